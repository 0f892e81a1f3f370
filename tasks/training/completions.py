"""Log-probabilities of completions: the one forward that SFT, preference training, the reference pass and choice scoring share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasks.training.tokens import Tokens

Batch = Mapping[str, Tensor]


class CompletionLogProbs(NamedTuple):
    """Natural-log probabilities. `per_token` [rows, longest completion] is 0 outside completions; `mask` says where they are."""

    per_token: Tensor
    mask: Tensor

    @property
    def total(self) -> Tensor:
        """Summed over each completion, in nats [rows]."""
        return self.per_token.sum(dim=1)

    @property
    def count(self) -> Tensor:
        """Completion tokens [rows]."""
        return self.mask.sum(dim=1)


def pad_left(rows: Sequence[Tokens], *, pad: int) -> dict[str, Tensor]:
    """One batch, every row ending at the right edge; all tensors are [rows, longest row].

    `position_ids` are given explicitly, so that a row's numbers do not depend on how far it was padded.
    """
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    attention = torch.zeros((len(rows), width), dtype=torch.long)
    completion = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, width - len(row.ids) :] = torch.tensor(row.ids)
        attention[index, width - len(row.ids) :] = 1
        completion[index, width - row.completion :] = True
    positions = (attention.cumsum(dim=1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": attention, "position_ids": positions, "completion_mask": completion}


def completion_log_probs(model: Any, batch: Batch) -> CompletionLogProbs:
    """Log-probability of every completion token of a left-padded batch.

    Completions end at the right edge, so the language-model head runs on the last few positions only; the softmax is in float32.
    """
    mask = batch["completion_mask"]
    longest = int(mask.sum(dim=1).max())
    logits = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        logits_to_keep=longest + 1,
        use_cache=False,
    ).logits[:, :-1]
    targets = batch["input_ids"][:, -longest:]
    logits = logits.float()
    chosen = logits.gather(dim=2, index=targets.unsqueeze(2)).squeeze(2) - logits.logsumexp(dim=2)
    mask = mask[:, -longest:]
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
            batch = {name: tensor.to(device) for name, tensor in pad_left([rows[index] for index in picked], pad=pad).items()}
            yield picked, completion_log_probs(model, batch).total.cpu()
    finally:
        model.train(was_training)
