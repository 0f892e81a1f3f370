"""Log-probabilities of completions: the one forward that SFT, preference training, the reference pass and choice scoring share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tasks.training.student import arithmetic
from tasks.training.tokens import Tokens

Batch = Mapping[str, Tensor]


class CompletionLogProbs(NamedTuple):
    """Natural-log probabilities. `per_token` [rows, scored positions] is 0 outside completions; `mask` says where they are."""

    per_token: Tensor
    mask: Tensor

    @property
    def total(self) -> Tensor:
        """Summed over each completion, in nats [rows]."""
        return self.per_token.sum(dim=1)

    @property
    def tokens(self) -> Tensor:
        """Completion tokens [rows]."""
        return self.mask.sum(dim=1)


def pad_left(rows: Sequence[Tokens], *, pad: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` [rows, longest row] for generation: every row ends at the right edge, where its next token goes."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, width - len(row.ids) :] = torch.tensor(row.ids)
        attention[index, width - len(row.ids) :] = 1
    return {"input_ids": ids, "attention_mask": attention}


def pad_right(rows: Sequence[Tokens], *, pad: int) -> dict[str, Tensor]:
    """One batch to be scored or trained on; all tensors are [rows, longest row], positions count from each row's first token.

    Padding stands on the right: a causal row never looks at it, and no position looks at nothing. Padding on the left has positions that attend
    to nothing at all; their backward is NaN on CUDA and spoils every gradient.
    """
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    completion = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        length = len(row.ids)
        ids[index, :length] = torch.tensor(row.ids)
        attention[index, :length] = 1
        completion[index, length - row.completion : length] = True
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": completion}


def completion_log_probs(model: Any, batch: Batch) -> CompletionLogProbs:
    """Log-probability of every completion token of a right-padded batch.

    The language-model head runs from the first completion token of any row on; the softmax is in float32. A completion that begins its row is
    scored from its second token: nothing predicts the first.
    """
    mask = batch["completion_mask"].clone()
    mask[:, 0] = False
    width = mask.shape[1]
    kept = width - int(mask.any(dim=0).int().argmax())
    with arithmetic(model):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], logits_to_keep=kept + 1, use_cache=False).logits[:, :-1]
    targets = batch["input_ids"][:, -kept:]
    chosen = -cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view_as(targets)
    mask = mask[:, -kept:]
    return CompletionLogProbs(per_token=chosen.masked_fill(~mask, 0.0), mask=mask)


@torch.no_grad()
def score_completions(model: Any, rows: Sequence[Tokens], *, pad: int, batch_size: int) -> Iterable[tuple[list[int], Tensor]]:
    """Summed log-probabilities of `rows` in nats, batch by batch as (row indices, [batch]), longest rows first so that memory runs out at once or never.

    Dropout is off while it runs; the model's mode is put back afterwards.
    """
    was_training = model.training
    model.eval()
    try:
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
        device = next(model.parameters()).device
        for start in range(0, len(order), batch_size):
            picked = order[start : start + batch_size]
            batch = {name: tensor.to(device) for name, tensor in pad_right([rows[index] for index in picked], pad=pad).items()}
            yield picked, completion_log_probs(model, batch).total.cpu()
    finally:
        model.train(was_training)
