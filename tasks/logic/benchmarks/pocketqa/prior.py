"""The entity-prior baseline: how far the names alone go, without a fact or a comparison."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from tasks.contracts.rows import Question, Verdict


def entity_prior(train: Sequence[Question], questions: Sequence[Question]) -> list[Verdict]:
    """One verdict a question, from the yes-rate in `train` of each (kind, entity, position).

    The kind names the wording, so this is the best a reader of names can do. The two rates (one yes and one no added to each) are combined as
    log-odds; a tie takes the majority of `train`, and "no" where that ties too.
    """
    counts = Counter((key, row.answer) for row in train for key in _keys(row))
    answers = Counter(row.answer for row in train)
    default = Verdict.YES if answers["yes"] > answers["no"] else Verdict.NO
    return [_verdict(sum(math.log((counts[key, "yes"] + 1) / (counts[key, "no"] + 1)) for key in _keys(row)), default) for row in questions]


def _keys(row: Question) -> list[tuple[str, str, int]]:
    return [(row.kind, entity, position) for position, entity in enumerate(row.entities)]


def _verdict(odds: float, default: Verdict) -> Verdict:
    if abs(odds) < 1e-9:
        return default
    return Verdict.YES if odds > 0 else Verdict.NO
