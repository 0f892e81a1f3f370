"""Where a run's time went: seconds by kind of stage, computed now and computed by earlier runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SpentRow:
    """One kind of stage: seconds, and the same as percent of the longest one."""

    stage: str
    steps: int
    computed: float
    cached: float
    computed_width: float
    cached_width: float


def spent(stages: Sequence[Mapping[str, Any]]) -> list[SpentRow]:
    """Stage lines (stage, seconds, cached) summed by the first word of their name, in the order of the run; cached seconds are what an earlier run took."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for line in stages:
        kinds.setdefault(line["stage"].split()[0], []).append(line)
    sums = {kind: [sum(line["seconds"] for line in lines if line["cached"] is cached) for cached in (False, True)] for kind, lines in kinds.items()}
    longest = max((sum(both) for both in sums.values()), default=0.0) or 1.0
    return [
        SpentRow(kind, len(kinds[kind]), computed, cached, round(100 * computed / longest, 2), round(100 * cached / longest, 2))
        for kind, (computed, cached) in sums.items()
    ]
