"""Which train questions are worth paying a teacher for, judged by what the untrained student makes of them. Gold answers are never looked at."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from tasks.contracts.rows import Arm, Completion, Drafted, Request
from tasks.logic.asking import arm_requests, draft_requests
from tasks.logic.benchmarks import Benchmark

DRAFTS = 4  # sampled a question, to see whether they agree
TEMPERATURE = 0.8  # of those drafts

Way = Literal["random", "uncertain", "disagreement"]


def selection_requests(rows: Sequence[Drafted], *, how: Way, benchmark: Benchmark) -> list[Request]:
    """What the student is asked: nothing, the direct arm, or `DRAFTS` drafts a question."""
    if how == "random":
        return []
    if how == "uncertain":
        return arm_requests(rows, arm=Arm.DIRECT, benchmark=benchmark)
    return [replace(request, sample=sample) for request in draft_requests(rows, benchmark=benchmark) for sample in range(DRAFTS)]


def usefulness(completions: Sequence[Completion], *, how: Way, benchmark: Benchmark) -> dict[str, float]:
    """Score by qid, higher = sooner asked about; no scores for "random".

    uncertain: minus the distance of the two answers, |log P(yes) - log P(no)|, in nats. disagreement: entropy in nats of the drafts' verdicts, a draft
    without one being a verdict of its own (query by committee, Seung et al. 1992; vote entropy, Dagan and Engelson 1995).
    """
    if how == "uncertain":
        return {each.qid: -abs(each.margin) for each in completions}
    votes: dict[str, Counter[str]] = {}
    for each in completions:
        votes.setdefault(each.qid, Counter())[benchmark.parse_draft(each.text).verdict] += 1
    return {qid: _entropy(counts) for qid, counts in votes.items()}


def chosen(rows: Sequence[Drafted], scores: dict[str, float], *, share: float, seed: int) -> list[Drafted]:
    """The `share` of the rows (rounded, at least one) with the highest scores, in the order of `rows`; a seeded hash of the qid settles ties.

    A smaller share is a part of a larger one. Without scores the choice is random.
    """
    ranked = sorted(rows, key=lambda row: (-scores.get(row.qid, 0.0), hashlib.sha256(f"select:{seed}:{row.qid}".encode()).digest()))
    kept = {row.qid for row in ranked[: max(1, round(share * len(rows)))]}
    return [row for row in rows if row.qid in kept]


def selection_counts(rows: Sequence[Drafted], kept: Sequence[Drafted], scores: dict[str, float]) -> dict[str, object]:
    """The figures worth showing: quartiles of the scores, and how many of each class were chosen and left. Gold is read here, after the choice."""
    taken = {row.qid for row in kept}
    left = [row for row in rows if row.qid not in taken]
    return {
        "scores": _spread([scores[row.qid] for row in rows if row.qid in scores]),
        "chosen": dict(sorted(Counter(row.answer for row in kept).items())),
        "left": dict(sorted(Counter(row.answer for row in left).items())),
    }


def _spread(scores: Sequence[float]) -> dict[str, float]:
    """Minimum, quartiles and maximum; nothing where there are no scores."""
    if not scores:
        return {}
    quartiles = statistics.quantiles(scores, n=4, method="inclusive") if len(scores) > 1 else [scores[0]] * 3
    return dict(zip(("min", "lower_quartile", "median", "upper_quartile", "max"), (min(scores), *quartiles, max(scores)), strict=True))


def _entropy(counts: Counter[str]) -> float:
    total = counts.total()
    return sum(count / total * math.log(total / count) for count in counts.values())
