"""The decoding loop against transformers' own, on the CPU; the shapes that CUDA graphs need run here without graphs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from tasks.training import decoding, slots
from tasks.training.decoding import Decoder, decode, decoding_bytes
from tasks.training.sampling import Sampling

LENGTHS = (3, 17, 9, 30, 9, 1, 22)
VOCABULARY = 400  # fewer than the tiny student has
NEW = 40


@pytest.fixture
def model(tiny: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()


def prompts(lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(7, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def one_by_one(model: Any, rows: Sequence[Sequence[int]], stops: Sequence[int]) -> list[list[int]]:
    """Greedy continuations by transformers, a row at a time and so without padding."""
    replies = []
    for row in rows:
        ids = torch.tensor([row])
        settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": list(stops) or None, "pad_token_id": 0}
        replies.append(model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0, len(row) :].tolist())
    return replies


def stops_of(model: Any) -> list[int]:
    """Tokens that end some rows early, one of them at once, and leave others to run to the end."""
    free = one_by_one(model, prompts(), [])
    return [free[0][0], free[1][5], free[3][11]]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_greedy_tokens_are_those_of_generate_row_by_row_with_early_stops(model, fixed, batch_size):
    stops = stops_of(model)
    want = one_by_one(model, prompts(), stops)
    assert 1 in map(len, want)
    assert NEW in map(len, want)
    assert decode(model, prompts(), max_new_tokens=NEW, stops=stops, pad=0, batch_size=batch_size, fixed=fixed) == want


def test_samples_of_one_prompt_share_its_prefill_and_rows_keep_their_order(model, monkeypatch):
    rows = [prompts()[place] for place in (3, 0, 3, 1, 3, 0)]
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    got = decode(model, rows, max_new_tokens=NEW, stops=[], pad=0, batch_size=8)
    assert seen[0] == (3, 30)
    assert set(seen[1:]) == {(6, 1)}
    assert got == one_by_one(model, rows, [])
    monkeypatch.setattr(decoding, "_PREFILL_TOKENS", 40)  # now every distinct prompt is a prefill of its own, at its own width
    assert decode(model, rows, max_new_tokens=NEW, stops=[], pad=0, batch_size=8) == got


@pytest.mark.parametrize("prefill", [8192, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_all_prompts_begin_with_is_read_once_and_every_token_is_the_same(model, monkeypatch, dtype, prefill):
    monkeypatch.setattr(decoding, "_PREFILL_TOKENS", prefill)
    model = model.to(dtype)
    beginning = prompts((40,))[0]
    rows = [beginning + rest for rest in prompts((3, 17, 9, 1, 9))]
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    got = decode(model, rows, max_new_tokens=NEW, stops=[], pad=0, batch_size=8)
    assert seen[0] == (1, 40)
    assert all(width <= 17 for _, width in seen[1:])
    if dtype == torch.float32:  # rounded more coarsely, near ties fall either way in transformers' own loop too
        assert got == one_by_one(model, rows, [])
    seen.clear()
    decode(model, [beginning, *rows], max_new_tokens=1, stops=[], pad=0, batch_size=8)
    assert seen[0] == (1, 39)  # the shortest prompt keeps a token of its own


@pytest.fixture
def used_slots_only(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """What is around the kernel for slots in use, on the CPU: torch says what the kernel would. Holds the rows and slots of each call."""
    seen = []

    def attend_one_token(query: Any, keys: Any, values: Any, *, first: Any, slot: Any, scale: float) -> Any:
        seen.append((len(query), keys.shape[2], len(first), int(slot)))
        out = torch.empty(len(query), 1, query.shape[1], query.shape[3])
        for row, (start, end) in enumerate(zip(first.tolist(), slot.expand(len(first)).tolist(), strict=True)):
            k, v = (each[row, :, start : end + 1].repeat_interleave(query.shape[1] // keys.shape[1], dim=0) for each in (keys, values))
            out[row, 0] = ((scale * query[row] @ k.transpose(1, 2)).softmax(dim=-1) @ v)[:, 0]
        return out

    monkeypatch.setattr(decoding, "one_kernel", lambda keys, values: True)
    monkeypatch.setitem(sys.modules, "tasks.training.one_token", SimpleNamespace(attend_one_token=attend_one_token))
    return seen


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("batch_size", [4, 16])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "phi3"])
def test_reading_the_slots_in_use_only_gives_the_tokens_of_generate(used_slots_only, model, family, batch_size, fixed):
    if family != "llama":
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        config = AutoConfig.for_model(family, vocab_size=VOCABULARY, pad_token_id=0, initializer_range=0.2, sliding_window=None, **sizes)
        model = AutoModelForCausalLM.from_config(config).eval()
    stops = stops_of(model)
    got = decode(model, prompts(), max_new_tokens=NEW, stops=stops, pad=0, batch_size=batch_size, fixed=fixed)
    assert got == one_by_one(model, prompts(), stops)
    assert {width for _, width, _, _ in used_slots_only} == {80}  # the whole storage, for the longest of all prompts and its reply
    assert all(rows == firsts for rows, _, firsts, _ in used_slots_only)
    layers = model.config.num_hidden_layers
    slots_read = [slot for *_, slot in used_slots_only]
    assert slots_read[: 2 * layers] == [30] * layers + [31] * layers  # the first step sees the token that it writes


def test_a_model_that_keeps_the_slots_in_use_to_itself_is_refused(used_slots_only, model):
    for layer in model.model.layers:
        attention = layer.self_attn.forward
        layer.self_attn.forward = lambda *args, attention=attention, first_slot=None, last_slot=None, **rest: attention(*args, **rest)
    with pytest.raises(RuntimeError, match="do not hand first_slot"):
        decode(model, prompts(), max_new_tokens=NEW, stops=[], pad=0, batch_size=4)


@pytest.mark.parametrize("fixed", [False, True])
def test_finished_rows_leave_the_batch(model, fixed):
    rows = prompts([5] * 40)
    free = one_by_one(model, rows, [])
    stops = sorted({reply[2] for reply in free} - set(free[7]))
    widths = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: widths.append(inputs[0].shape))
    got = decode(model, rows, max_new_tokens=NEW, stops=stops, pad=0, batch_size=64, fixed=fixed)
    assert got == one_by_one(model, rows, stops)
    assert len(got[7]) == NEW
    batches = [shape[0] for shape in widths if shape[1] == 1]
    assert batches[0] == 40
    assert min(batches[: NEW - 1]) <= (8 if fixed else max(1, sum(len(reply) == NEW for reply in got)))


@pytest.mark.parametrize("fixed", [False, True])
def test_samples_do_not_depend_on_the_batch_or_its_shapes(model, fixed):
    rows = [row for row in prompts() for _ in range(3)]
    noise = Sampling(temperature=0.9, seeds=[(1 << 61) + 977 * index for index in range(len(rows))])
    stops = stops_of(model)
    alone = [
        decode(model, [row], max_new_tokens=NEW, stops=stops, pad=0, batch_size=1, noise=Sampling(temperature=0.9, seeds=[seed]))[0]
        for row, seed in zip(rows, noise.seeds, strict=True)
    ]
    assert decode(model, rows, max_new_tokens=NEW, stops=stops, pad=0, batch_size=16, noise=noise, fixed=fixed) == alone
    assert len(set(map(tuple, alone))) == len(alone)


def test_attention_over_a_window_is_left_to_transformers():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = MistralForCausalLM(MistralConfig(vocab_size=VOCABULARY, sliding_window=16, initializer_range=0.2, **sizes)).eval()
    want = one_by_one(model, prompts(), [])
    assert decode(model, prompts(), max_new_tokens=NEW, stops=[], pad=0, batch_size=4) == want
    wide = {"temperature": 0.9, "seeds": list(range(len(LENGTHS)))}
    drawn = decode(model, prompts(), max_new_tokens=6, stops=[], pad=0, batch_size=4, noise=Sampling(**wide))
    model.config.sliding_window = 64
    short = [drawn[5], drawn[0]]  # texts within either window: both loops draw the same
    again = decode(model, prompts(), max_new_tokens=6, stops=[], pad=0, batch_size=4, noise=Sampling(**wide))
    assert [again[5], again[0]] == short


@pytest.mark.parametrize("used_only", [False, True])
def test_all_layers_and_widths_share_what_is_compiled(model, monkeypatch, request, used_only):
    if used_only:
        request.getfixturevalue("used_slots_only")
    rows = prompts([30, 9, 4])
    want = one_by_one(model, rows, [])
    graphs = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiler, advance, widths = torch.compile, Decoder._advance, set()

    def compiled_advance(self: Decoder, steps: int, rows: int, width: int) -> None:
        widths.add(width)
        with slots.compiled_layers(self.model, wanted=True):
            advance(self, steps, rows, width)

    monkeypatch.setattr(torch, "compile", lambda function, **settings: compiler(function, backend=backend, **settings))
    monkeypatch.setattr(Decoder, "_advance", compiled_advance)
    numbers = [layer.self_attn.layer_idx for layer in model.model.layers]
    assert decode(model, rows, max_new_tokens=NEW, stops=[], pad=0, batch_size=8, fixed=True) == want
    assert len(widths) == (1 if used_only else 3)
    assert 0 < len(graphs) < 2 * len(numbers)  # a layer is cut in a few pieces around its attention; each was compiled once
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == numbers
    assert all("forward" not in layer.__dict__ for layer in model.model.layers)


def test_warming_up_for_a_graph_changes_no_token(model, monkeypatch):
    """Graphs themselves need a GPU; here a graph is a note of the steps to take, and what is around it is the real thing."""
    stops = stops_of(model)
    noise = Sampling(temperature=0.9, seeds=list(range(len(LENGTHS))))
    want = decode(model, prompts(), max_new_tokens=NEW, stops=stops, pad=0, batch_size=16, noise=noise)
    create, forward = Decoder.__init__, Decoder._forward
    recording: list[Graph] = []
    warm = []

    class Graph:
        def __init__(self) -> None:
            self.step: Any = None

        def replay(self) -> None:
            self.step()

    def graphed(self: Decoder, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        self.graphed = True

    def recorded(self: Decoder, rows: int, width: int) -> None:
        if recording:
            recording[0].step = lambda: forward(self, rows, width)
        else:
            warm.append((rows, width))
            forward(self, rows, width)

    @contextmanager
    def capture(graph: Graph, **_: Any) -> Iterator[None]:
        recording.append(graph)
        yield
        recording.clear()

    stream = SimpleNamespace(wait_stream=lambda _: None)
    for name, fake in (("CUDAGraph", Graph), ("graph", capture), ("Stream", lambda: stream), ("current_stream", lambda: stream), ("stream", nullcontext)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(Decoder, "__init__", graphed)
    monkeypatch.setattr(Decoder, "_forward", recorded)
    assert decode(model, prompts(), max_new_tokens=NEW, stops=stops, pad=0, batch_size=16, noise=noise, fixed=True) == want
    assert len(warm) == 3 * len(set(warm))  # every shape was warmed up once, and after that only replayed
    assert len(set(warm)) >= 2


@pytest.mark.parametrize("sampled", [False, True])
def test_where_memory_runs_out_batches_are_halved_and_say_the_same(model, monkeypatch, caplog, sampled):
    noise = Sampling(temperature=0.9, seeds=list(range(len(LENGTHS)))) if sampled else None
    asked = {"max_new_tokens": NEW, "stops": [], "pad": 0, "batch_size": 16, "noise": noise}
    want, run, taken, heard = decode(model, prompts(), **asked), Decoder.run, [], []

    def run_in(most: int) -> Any:
        def limited(self: Decoder, given: Sequence[Sequence[int]], **how: Any) -> list[list[int]]:
            if len(given) > most:
                raise torch.OutOfMemoryError
            taken.append(len(given))
            return run(self, given, **how)

        return limited

    monkeypatch.setattr(Decoder, "run", run_in(3))
    assert decode(model, prompts(), **asked, tick=heard.append) == want
    assert taken == heard == [2, 2, 2, 1]  # 7 did not fit, nor did 4
    assert "ran out at 4 texts at once; going on with 2" in caplog.text
    monkeypatch.setattr(Decoder, "run", run_in(0))
    with pytest.raises(torch.OutOfMemoryError):
        decode(model, prompts(), **asked)


def test_what_decoding_takes_counts_the_storage_and_grows_with_rows(model):
    decoder = Decoder(model, rows=7, longest=48, stops=[], pad=0)
    decoder.run(prompts(), max_new_tokens=4)
    stored = sum(each.nbytes for layer in decoder.storage for each in layer)
    few, many = (decoding_bytes(model, rows=rows, longest=48) for rows in (700, 707))
    assert many - few == stored + 7 * model.config.vocab_size * 24  # beyond a prefill's widest moment only storage and scores grow
    one, two = (decoding_bytes(model, rows=rows, longest=48) for rows in (1, 2))
    layer = model.config.get_text_config()
    assert two - one == stored / 7 + layer.vocab_size * 24 + stored / 7 + 48 * 4 * (3 * layer.intermediate_size + 8 * layer.hidden_size)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "shared", "size"), [(4, 4, 64), (14, 2, 64), (8, 2, 128), (6, 1, 16)])
def test_the_kernel_for_slots_in_use_is_the_product_under_a_mask(dtype, heads, shared, size):
    generator = torch.Generator("cuda").manual_seed(0)
    rows, width, slot = 12, 208, torch.tensor([171], device="cuda")
    query, keys, values = (torch.randn(rows, *shape, size, generator=generator, device="cuda", dtype=dtype) for shape in ((heads, 1), *[(shared, width)] * 2))
    first = torch.tensor([0, 1, 31, 32, 33, 95, 96, 140, 159, 160, 170, 171], device="cuda")
    assert slots.one_kernel(keys, values)
    columns = torch.arange(width, device="cuda")
    hidden = (columns < first[:, None]) | (columns > slot)
    mask = hidden.float().mul(torch.finfo(torch.float32).min)[:, None, None]
    module = torch.nn.Identity()
    want, _ = slots.attend(module, query.float(), keys.float(), values.float(), mask, scaling=0.3)
    got, _ = slots.attend(module, query, keys, values, mask, scaling=0.3, first_slot=first, last_slot=slot)
    assert got.shape == want.shape
    assert torch.allclose(got.float(), want, atol=2e-2, rtol=1e-2)
    garbage = torch.where(hidden[:, None, :, None], float("nan"), 1.0).to(dtype)
    again, _ = slots.attend(module, query, keys * garbage, values * garbage, mask, scaling=0.3, first_slot=first, last_slot=slot)
    assert torch.equal(again, got)  # what is hidden is not read


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("sampled", [False, True])
def test_cuda_graphs_give_the_tokens_of_plain_steps(model, caplog, compiled, sampled):
    model = model.cuda()
    stops = [3]
    noise = Sampling(temperature=0.9, seeds=list(range(len(LENGTHS) * 6))) if sampled else None
    rows = prompts(LENGTHS * 6)
    plain = decode(model, rows, max_new_tokens=NEW, stops=stops, pad=0, batch_size=64, noise=noise, fixed=False)
    assert decode(model, rows, max_new_tokens=NEW, stops=stops, pad=0, batch_size=64, noise=noise, compiled=compiled) == plain
    assert "without" not in caplog.text


@pytest.mark.gpu
def test_graphs_of_slots_in_use_give_the_tokens_of_the_same_steps_taken_plainly(model, caplog, monkeypatch):
    model = model.to("cuda", torch.bfloat16)
    asked = {"max_new_tokens": NEW, "stops": [3], "pad": 0, "batch_size": 64, "noise": Sampling(temperature=0.9, seeds=list(range(len(LENGTHS) * 6)))}
    got = decode(model, prompts(LENGTHS * 6), **asked)
    assert "without" not in caplog.text

    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(Decoder, "_capture", fail)
    assert decode(model, prompts(LENGTHS * 6), **asked) == got
    assert "without" in caplog.text
