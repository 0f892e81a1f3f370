"""Continue prompts with a causal language model: one prefill a distinct prompt, then one token a step for a whole batch.

Keys and values lie in one fixed storage, prompts at its right edge, so that all rows of a batch write the same slot. On CUDA a step (forward, choice
of the token, bookkeeping) is a CUDA graph of a number of rows; the host looks at tokens every few steps only. Where no kernel reads just the slots in
use, a step attends to a width of the storage under a mask, and a graph is one of that width too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import Cache

from tasks.training.completions import pad_left
from tasks.training.sampling import Sampling, perturb, perturb_in_parts
from tasks.training.slots import Slots, compiled_layers, one_kernel, one_token_attention
from tasks.training.tokens import Tokens

logger = logging.getLogger(__name__)
_PREFILL_TOKENS = 8192  # padded tokens a prefill: keeps a GPU busy, and the copy of keys and values that it makes stays small
_FIXED_STEPS, _FEWEST_ROWS = 8, 8  # CUDA: steps between looks at the tokens; fewer rows are no faster
_WIDTH = 16  # widths come in multiples
_WORTH_SHARING = 16  # tokens that all prompts begin with, from which computing them once pays
Tick = Callable[[int], None]
Tock = Callable[[float], None]


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stops: Sequence[int],
    pad: int,
    batch_size: int,
    noise: Sampling | None = None,
    compiled: bool = False,
    fixed: bool | None = None,
    tick: Tick | None = None,
    tock: Tock | None = None,
) -> list[list[int]]:
    """New token ids of every prompt, in order, each ending with the first of `stops` or after `max_new_tokens`.

    Greedy without `noise`. `model` is in eval mode. Prompts of like length share a batch, the longest first: memory runs out at once or never; if it does,
    batches are halved. `tick` hears how many prompts each batch answered, `tock`
    after each look at the tokens how many answers' worth of the batch in hand is made.

    `fixed` (default: on CUDA) keeps to few shapes, as graphs need; `compiled` fuses
    the layers of these graphs.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), tuple(prompts[index])))
    replies: dict[int, list[int]] = {}
    decoder: Decoder | None = None
    found: list[list[int]] | None
    while todo := order[len(replies) :]:
        picked = todo[:batch_size]
        asked = [prompts[index] for index in picked]
        drawn = None if noise is None else Sampling(temperature=noise.temperature, seeds=[noise.seeds[index] for index in picked])
        longest = len(prompts[order[0]]) + max_new_tokens
        try:
            if not _fits(model, longest):
                found = _generate(model, asked, max_new_tokens=max_new_tokens, stops=stops, pad=pad, noise=drawn)
            else:
                decoder = decoder or Decoder(model, rows=len(picked), longest=longest, stops=stops, pad=pad, compiled=compiled, fixed=fixed)
                found = decoder.run(asked, max_new_tokens=max_new_tokens, noise=drawn, tock=tock)
        except torch.OutOfMemoryError:
            if len(picked) == 1:
                raise
            found = None
        if found is None:  # out here the error no longer holds what it ran in
            batch_size, decoder = (len(picked) + 1) // 2, None
            logger.warning("GPU memory ran out at %d texts at once; going on with %d (execution.train.generate_batch)", len(picked), batch_size)
            torch.cuda.empty_cache()
            continue
        replies.update(zip(picked, found, strict=True))
        if tick is not None:
            tick(len(picked))
    return [replies[index] for index in range(len(prompts))]


def decoding_bytes(model: Any, *, rows: int, longest: int) -> int:
    """Memory that decoding `rows` texts of `longest` tokens takes beside the weights: keys and values, a prefill's widest moment, and the rows' scores."""
    config = model.config.get_text_config()
    size, vocabulary = model.get_input_embeddings().weight.element_size(), model.get_output_embeddings().weight.shape[0]
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    stored = 2 * config.num_hidden_layers * heads * width * size  # a token's
    read = min(rows * longest, max(_PREFILL_TOKENS, longest)) * (stored + size * (3 * config.intermediate_size + 8 * config.hidden_size))
    return int(rows * longest * stored + read + rows * vocabulary * (3 * size + 3 * 4))


class Decoder:
    """Storage, buffers and graphs for batches of at most `rows` prompts of at most `longest` tokens, new ones included."""

    def __init__(self, model: Any, *, rows: int, longest: int, stops: Sequence[int], pad: int, compiled: bool = False, fixed: bool | None = None) -> None:
        self.model, self.stops, self.pad, self.compiled = model, set(stops), pad, compiled
        self.device = next(model.parameters()).device
        self.graphed = self.device.type == "cuda" and fixed is not False
        self.fixed = self.graphed if fixed is None else fixed
        self.most, self.capacity = rows, _up(longest, _WIDTH)
        self.storage: list[tuple[Tensor, Tensor]] = []
        self.one_kernel = False  # known once there is a storage
        self.unread = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=self.device)  # a mask of four dimensions is passed on as it is, so none is built
        self.columns = torch.arange(self.capacity, device=self.device)
        # A row's: next input and its position, first used slot and seed. The batch's: slot, step, place in `out`.
        self.token, self.position, self.first, self.seed = torch.zeros(4, rows, dtype=torch.long, device=self.device)
        self.slot, self.step, self.turn = torch.zeros(3, 1, dtype=torch.long, device=self.device)
        self.out = torch.zeros(_FIXED_STEPS, rows, dtype=torch.long, device=self.device)
        self.temperature = 0.0
        self.caches: dict[tuple[int, int], Cache] = {}
        self.graphs: dict[tuple[int, int, float], torch.cuda.CUDAGraph] = {}
        self.pool = torch.cuda.graph_pool_handle() if self.graphed else None
        self.perturb = torch.compile(perturb, dynamic=False) if compiled else perturb_in_parts  # compiled, nothing lies between

    @torch.no_grad()
    def run(self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, noise: Sampling | None = None, tock: Tock | None = None) -> list[list[int]]:
        """New token ids of each of a batch of prompts, as `decode` gives them."""
        replies: list[list[int]] = [[] for _ in prompts]
        live, rows = list(enumerate(replies)), self._rounded(len(prompts))
        with _precision(self.model):
            logits = self._prefill(prompts, rows, noise)
            self._choose(logits, rows)
            width, done, fresh = max(map(len, prompts)), 1, 1
            while True:
                said = self.out[:fresh, :rows].t().tolist()  # the one place where the host waits for the device
                live = [(row, reply) for row, reply in live if not _extend(reply, said[row], self.stops)]
                if not live or done == max_new_tokens:
                    return replies
                if tock is not None:
                    tock(len(prompts) - len(live) * (1 - done / max_new_tokens))
                live, rows = self._drop(live, rows, used=width + done - 1)
                fresh = min(_FIXED_STEPS if self.fixed else 1, max_new_tokens - done)
                done += fresh
                with one_token_attention(self.model):
                    self._advance(fresh, rows, self.capacity if self.one_kernel else min(_up(width + done - 1, _WIDTH), self.capacity))

    def _rounded(self, rows: int) -> int:
        """How many rows a batch with that many at work has: a power of two or the most, where shapes are fixed."""
        return min(self.most, max(_FEWEST_ROWS, 1 << (rows - 1).bit_length())) if self.fixed else rows

    def _prefill(self, prompts: Sequence[Sequence[int]], rows: int, noise: Sampling | None) -> Tensor:
        """Store the keys and values of all prompts, set the buffers, and return logits of first tokens [rows, vocabulary]; rows beyond the prompts are idle."""
        owners: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            owners.setdefault(tuple(prompt), []).append(row)
        width = max(map(len, owners))
        # Only where arithmetic is dear: a GPU is not kept busy by so few tokens, and its fastest attention takes no mask.
        begun = _beginning(list(owners)) if self.device.type == "cpu" else ()
        read = self._read(begun) if begun else None
        logits: Any = None
        for chunk in _chunks(list(owners)):
            rest = [Tokens(ids=ids[len(begun) :], prompt=0) for ids in chunk]
            batch = {name: each.to(self.device) for name, each in pad_left(rest, pad=self.pad).items()}
            positions = len(begun) + (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
            cache = _for_rows(read, len(chunk))
            batch["attention_mask"] = torch.cat([batch["attention_mask"].new_ones(len(chunk), len(begun)), batch["attention_mask"]], dim=1)
            last = self.model(**batch, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
            start = width - len(begun) - positions.shape[1]
            if not self.storage:
                self.storage = [self._room(layer) for layer in cache.layers]
                self.one_kernel = all(one_kernel(keys, values) for keys, values in self.storage)
            logits = last.new_zeros(rows, last.shape[1]) if logits is None else logits
            target = torch.tensor([row for ids in chunk for row in owners[ids]], device=self.device)
            source = torch.tensor([place for place, ids in enumerate(chunk) for _ in owners[ids]], device=self.device)
            places = _close_up(len(begun), [len(row.ids) for row in rest]) if begun else None
            for (keys, values), layer in zip(self.storage, cache.layers, strict=True):
                keys[target, :, start:width] = _rearranged(layer.keys, places)[source]
                values[target, :, start:width] = _rearranged(layer.values, places)[source]
            logits[target] = last[source]
        lengths = torch.tensor([*map(len, prompts), *[1] * (rows - len(prompts))], device=self.device)
        self.first[:rows] = width - lengths
        self.position[:rows] = lengths - 1
        self.seed[: len(prompts)] = torch.tensor(noise.seeds if noise else [0] * len(prompts), device=self.device)
        self.temperature = noise.temperature if noise else 0.0
        self.slot.fill_(width - 1)
        self.step.zero_()
        self.turn.zero_()
        return cast(Tensor, logits)

    def _read(self, ids: tuple[int, ...]) -> Any:
        """Keys and values of a text that begins several prompts."""
        cache: Any = DynamicCache()
        self.model(input_ids=torch.tensor([ids], device=self.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    def _room(self, layer: Any) -> tuple[Tensor, Tensor]:
        """Keys and values [rows, heads, slots, head size] of one layer; zeros, because a hidden slot must still hold a finite number."""
        keys, values = (each.new_zeros(self.most, each.shape[1], self.capacity, each.shape[3]) for each in (layer.keys, layer.values))
        return keys, values

    def _choose(self, logits: Tensor, rows: int) -> None:
        """Choose every row's next token and move all buffers one token on; nothing here waits for the device."""
        if self.temperature:
            logits = self.perturb(logits, seeds=self.seed[:rows], step=self.step, temperature=self.temperature)
        token = logits.argmax(dim=-1)  # a row past its stop goes on unread until it is dropped: cheaper than keeping track of it here
        self.token[:rows] = token
        self.out[:, :rows].index_copy_(0, self.turn, token[None])
        self.position[:rows].add_(1)
        for counter in (self.slot, self.step, self.turn):
            counter.add_(1)

    def _forward(self, rows: int, width: int) -> None:
        """One token for every row, reading the first `width` slots."""
        cache = self.caches.get((rows, width)) or Cache(layers=[Slots(keys[:rows], values[:rows], self.slot, width) for keys, values in self.storage])
        self.caches[rows, width] = cache
        ids, positions = self.token[:rows, None], self.position[:rows, None]
        seen = self._seen(rows, width)  # up to the slot of this very token; `_choose` moves on to the next
        logits = self.model(input_ids=ids, position_ids=positions, **seen, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        self._choose(logits[:, -1], rows)

    def _seen(self, rows: int, width: int) -> dict[str, Tensor]:
        """What the model hands on to `attend`: which slots each row sees."""
        if self.one_kernel:
            return {"attention_mask": self.unread, "first_slot": self.first[:rows], "last_slot": self.slot}
        dtype = self.storage[0][0].dtype
        hidden = (self.columns[:width] < self.first[:rows, None]) | (self.columns[:width] > self.slot)
        return {"attention_mask": hidden.to(dtype).mul_(torch.finfo(dtype).min)[:, None, None]}

    def _advance(self, steps: int, rows: int, width: int) -> None:
        self.turn.zero_()
        key = (rows, width, self.temperature)
        if self.graphed and key not in self.graphs:
            try:
                self.graphs[key] = self._capture(rows, width)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                logger.warning("This student cannot be decoded with CUDA graphs, which is slower without (%s)", error)
                self.graphed = False
        for _ in range(steps):
            if self.graphed:
                self.graphs[key].replay()
            else:
                self._forward(rows, width)

    def _capture(self, rows: int, width: int) -> torch.cuda.CUDAGraph:
        """The graph of one step. Warming up takes real steps, so the buffers are put back; what it wrote in the storage is written again."""
        buffers = (self.token, self.position, self.slot, self.step, self.turn, self.out)
        kept = [buffer.clone() for buffer in buffers]
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # A capture that fails may leave its stream current; the outer block puts this one back.
        with torch.cuda.stream(torch.cuda.current_stream()), compiled_layers(self.model, wanted=self.compiled):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._forward(rows, width)
                    for buffer, before in zip(buffers, kept, strict=True):
                        buffer.copy_(before)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):  # another thread may use the device meanwhile
                self._forward(rows, width)
        return graph

    def _drop(self, live: list[tuple[int, list[int]]], rows: int, *, used: int) -> tuple[list[tuple[int, list[int]]], int]:
        """Move the rows at work to the front once they are half or fewer; returns them and the number of rows from now on."""
        fewer = self._rounded(len(live))
        if 2 * len(live) > rows or fewer >= rows:
            return live, rows
        kept = torch.tensor([row for row, _ in live] + [live[0][0]] * (fewer - len(live)), device=self.device)
        for buffer in (self.token, self.position, self.first, self.seed):
            buffer[:fewer] = buffer[kept]
        for stored in (each for layer in self.storage for each in layer):
            stored[:fewer, :, :used] = stored[kept, :, :used]
        return [(row, reply) for row, (_, reply) in enumerate(live)], fewer


def _precision(model: Any) -> torch.autocast:
    """bfloat16 products where a bfloat16 model has float32 parts (adapters), as in training; no cached casts, which a graph would outlive."""
    weight = model.get_input_embeddings().weight
    mixed = weight.dtype == torch.bfloat16 and any(each.dtype == torch.float32 for each in model.parameters())
    return torch.autocast(weight.device.type, dtype=torch.bfloat16, enabled=mixed, cache_enabled=False)


def _fits(model: Any, longest: int) -> bool:
    """Whether a model's attention is of the plain kind that slots hold: all tokens seen, rotations that do not depend on the batch."""
    config = model.config.get_text_config()
    window, kinds = getattr(config, "sliding_window", None), set(getattr(config, "layer_types", None) or ())
    rotation = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    plain = kinds <= {"full_attention", "sliding_attention"} and (window is None or longest <= window) and rotation not in ("dynamic", "longrope")
    odd = getattr(config, "attn_logit_softcapping", None) is not None or config.model_type == "gpt_oss"
    return bool(plain and not odd and model._supports_attention_backend)


class _Perturbed(LogitsProcessor):
    """The same noise for transformers' own loop."""

    def __init__(self, noise: Sampling, width: int) -> None:
        self.noise, self.width = noise, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        seeds = torch.tensor(self.noise.seeds, device=scores.device)
        return perturb_in_parts(
            scores, seeds=seeds, step=torch.tensor([input_ids.shape[1] - self.width], device=scores.device), temperature=self.noise.temperature
        )


def _generate(model: Any, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, stops: Sequence[int], pad: int, noise: Sampling | None) -> list[list[int]]:
    """One batch by transformers' own loop, for attention that `Decoder` does not know."""
    batch = pad_left([Tokens(ids=tuple(prompt), prompt=0) for prompt in prompts], pad=pad)
    batch = {name: each.to(model.get_input_embeddings().weight.device) for name, each in batch.items()}
    width = batch["input_ids"].shape[1]
    settings = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=list(stops), pad_token_id=pad)  # type: ignore[no-untyped-call]
    processors = LogitsProcessorList([_Perturbed(noise, width)] if noise else [])
    with torch.no_grad(), _precision(model):
        rows = model.generate(**batch, generation_config=settings, logits_processor=processors)[:, width:].tolist()
    replies: list[list[int]] = [[] for _ in rows]
    for reply, row in zip(replies, rows, strict=True):
        _extend(reply, row, set(stops))
    return replies


def _extend(reply: list[int], tokens: list[int], stops: set[int]) -> bool:
    """Add tokens to a reply up to its stop; whether it came."""
    for token in tokens:
        reply.append(token)
        if token in stops:
            return True
    return False


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _beginning(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all prompts begin with, if it is worth computing once; each keeps a token of its own."""
    shortest, longest = min(prompts), max(prompts)  # in the order of their tokens: what these two share, all do
    most = min(map(len, prompts)) - 1
    common = next((place for place, (one, other) in enumerate(zip(shortest, longest, strict=False)) if one != other), most)
    return shortest[: min(common, most)] if len(prompts) > 1 and min(common, most) >= _WORTH_SHARING else ()


def _for_rows(read: Any, rows: int) -> Any:
    """A cache of so many rows that have all read the same text, or nothing."""
    cache: Any = DynamicCache()
    for number, layer in enumerate(read.layers if read is not None else ()):
        cache.update(*(each.expand(rows, -1, -1, -1) for each in (layer.keys, layer.values)), number)
    return cache


def _close_up(begun: int, rests: Sequence[int]) -> Tensor:
    """Where each slot's states are taken from [rows, slots], so that a shared beginning stands right before each row's own tokens, at the right edge.

    As computed, shorter rows have their padding between the two.
    """
    widest = max(rests)
    gaps = widest - torch.tensor(rests)[:, None]
    slots = torch.arange(begun + widest)[None]
    return torch.where(slots >= begun + gaps, slots, (slots - gaps).clamp(min=0))


def _rearranged(states: Tensor, places: Tensor | None) -> Tensor:
    """States [rows, heads, slots, d] with each row's slots taken from `places` [rows, slots]."""
    return states if places is None else states.gather(2, places[:, None, :, None].expand_as(states))


def _chunks(rows: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Rows in order, as many at once as a prefill takes when padded."""
    start, widest = 0, 0
    for end, row in enumerate(rows):
        widest = max(widest, len(row))
        if end > start and (end - start + 1) * widest > _PREFILL_TOKENS:
            yield rows[start:end]
            start, widest = end, len(row)
    yield rows[start:]
