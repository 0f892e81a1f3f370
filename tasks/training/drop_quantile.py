"""Which pairs an epoch leaves out: the most suspicious share of the whole table, the same share of every stratum (ALGORITHMS 3.2)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from scipy.stats import rankdata

MARGIN_WEIGHT = 0.3  # of the suspicion; `disagreement` (teacher 0.5 and reference 0.2, already averaged) has the rest


def suspicion(disagreement: Sequence[float], margins: Sequence[float] | None) -> list[float]:
    """Score in (0, 1] a pair, higher = more suspicious: rank-average of `disagreement` and of low first-sight margins.

    `margins` are per-token log-gaps seen before a pair was used, averaged over the epochs so far; None before the first epoch.
    """
    if margins is None:
        return _ranks(disagreement)
    parts = zip(_ranks(disagreement), _ranks([-margin for margin in margins]), strict=True)
    return [(1 - MARGIN_WEIGHT) * doubt + MARGIN_WEIGHT * margin for doubt, margin in parts]


def kept_pairs(scores: Sequence[float], strata: Sequence[str], *, quantile: float) -> list[bool]:
    """Mask over the pairs: round(quantile * n) of all n are left out, shared among strata by largest remainder, the highest scores first.

    Equal scores are left out in table order, so the mask depends on nothing but its arguments.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        members[stratum].append(index)
    quota = _quotas({stratum: len(rows) for stratum, rows in members.items()}, quantile)
    dropped = {index for stratum, rows in members.items() for index in sorted(rows, key=lambda row: (-scores[row], row))[: quota[stratum]]}
    return [index not in dropped for index in range(len(scores))]


def _quotas(sizes: dict[str, int], quantile: float) -> dict[str, int]:
    total = round(quantile * sum(sizes.values()))
    exact = {stratum: quantile * size for stratum, size in sizes.items()}
    quota = {stratum: int(share) for stratum, share in exact.items()}
    by_remainder = sorted(exact, key=lambda stratum: (quota[stratum] - exact[stratum], stratum))
    for stratum in by_remainder[: total - sum(quota.values())]:
        quota[stratum] += 1
    return quota


def _ranks(values: Sequence[float]) -> list[float]:
    return [float(rank) / len(values) for rank in rankdata(values)]
