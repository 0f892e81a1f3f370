"""Log-probabilities of completions: the one forward that SFT, preference training, the reference pass and choice scoring share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.training.attention import segments
from tasks.training.device import free_bytes
from tasks.training.memory import HEAD_TOKENS
from tasks.training.packing import Bundle, Packed, pack, split, to_device
from tasks.training.tokens import Tokens


def pad_left(rows: Sequence[Tokens], *, pad: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` [rows, longest row] for generation: every row ends at the right edge, where its next token goes."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, width - len(row.ids) :] = torch.tensor(row.ids)
        attention[index, width - len(row.ids) :] = 1
    return {"input_ids": ids, "attention_mask": attention}


class HeadLogProbs(torch.autograd.Function):
    """log softmax(h W^T)[target] for hidden states h [N, H] and a frozen head W [V, H], in float32 [N], without ever holding N x V logits.

    The gradient of each log-probability with respect to its hidden state, W[target] - p W, is made beside it, so that no logit is computed twice.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities [N]."""
        needed = ctx.needs_input_grad[0]
        slopes = torch.empty_like(hidden) if needed else hidden.new_empty(0)
        found = []
        for start in range(0, len(hidden), HEAD_TOKENS):
            wanted = target[start : start + HEAD_TOKENS, None]
            logits = hidden[start : start + HEAD_TOKENS] @ weight.t()
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            total = logits.logsumexp(dim=1, keepdim=True)
            found.append((logits.gather(1, wanted) - total).squeeze(1))
            if needed:
                shares = logits.sub_(total).exp_().neg_().scatter_add_(1, wanted, torch.ones_like(total))
                torch.mm(shares.to(weight.dtype), weight, out=slopes[start : start + HEAD_TOKENS])
        ctx.save_for_backward(slopes)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of the hidden states [N, H]."""
        (slopes,) = ctx.saved_tensors
        return slopes * gradients[0][:, None].to(slopes.dtype), None, None


def packed_log_probs(model: Any, packed: Packed) -> Tensor:
    """Natural-log probability of every scored token [N], in float32. The model must have been loaded with the "packed" attention."""
    if hasattr(model, "noise"):
        model.noise.draw(packed.rows, packed.positions)
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    seen = network.get_decoder()(input_ids=packed.ids[None], position_ids=packed.positions[None], use_cache=False, **segments(packed))
    return HeadLogProbs.apply(seen.last_hidden_state[0].index_select(0, packed.source), network.get_output_embeddings().weight, packed.target)  # type: ignore[no-any-return, no-untyped-call]


def per_completion(per_token: Tensor, packed: Packed) -> Tensor:
    """Sums over each completion's scored tokens [C], in their order: no two runs add up differently."""
    lengths = to_device(packed.lengths, per_token.device)
    total: Tensor = torch.segment_reduce(per_token, "sum", lengths=lengths, unsafe=True)  # "safe" waits for the device to see that they add up
    return total


def scored_tokens(device: torch.device) -> int:
    """Tokens to read at once without gradients, where nothing else is asked for: what keeps the device busy and needs little memory."""
    if device.type != "cuda":
        return 2048
    return 8192 if free_bytes(device) > 16 * 2**30 else 2048


@torch.no_grad()
def score_completions(model: Any, bundles: Sequence[Bundle], *, budget: int) -> Iterator[tuple[list[int], list[list[float]]]]:
    """Summed log-probabilities in nats, batch by batch: indices of bundles, and for each bundle one number a completion.

    Dropout is off while it runs; the model's mode is put back afterwards.
    """
    was_training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        under_way: list[tuple[list[int], Tensor]] = []  # the device computes one batch while the host makes the next
        for group in split([bundle.size for bundle in bundles], budget=budget) if bundles else []:
            packed = pack([bundles[index] for index in group]).to(device)
            under_way.append((group, per_completion(packed_log_probs(model, packed), packed)))
            if len(under_way) > 1:
                yield _told(*under_way.pop(0), bundles)
        for group, totals in under_way:
            yield _told(group, totals, bundles)
    finally:
        model.train(was_training)


def _told(group: list[int], totals: Tensor, bundles: Sequence[Bundle]) -> tuple[list[int], list[list[float]]]:
    numbers = iter(totals.tolist())
    return group, [[next(numbers) for _ in bundles[index].completions] for index in group]
