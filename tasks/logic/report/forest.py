"""A forest plot: one line a comparison, its difference and 95 % interval against no difference and against what was claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.logic.report import words
from tasks.logic.report.charts import Tick, nice_ticks


@dataclass(frozen=True)
class ForestRow:
    """One comparison; places are percent of the plot's width. `claim` is None where it is no difference at all."""

    label: str
    verdict: str
    low: float
    middle: float
    high: float
    claim: float | None
    figure: str
    interval: str
    n: int


@dataclass(frozen=True)
class Forest:
    """A plot ready to draw; `zero` and ticks in percent of its width."""

    rows: tuple[ForestRow, ...]
    zero: float
    ticks: tuple[Tick, ...]


def forest(comparisons: Sequence[Mapping[str, Any]]) -> Forest | None:
    """Lay out comparisons (name, n, difference, ci_low, ci_high, claim, verdict; shares). One axis in percentage points that holds 0 and every claim.

    None where there is nothing to draw.
    """
    if not comparisons:
        return None
    values = [round(100 * each[key], 3) for each in comparisons for key in ("ci_low", "ci_high", "difference", "claim")]
    marks = nice_ticks(min(0.0, *values), max(0.0, *values), most=5)

    def across(share: float) -> float:
        return round(2 + 96 * (100 * share - marks[0]) / (marks[-1] - marks[0]), 2)

    rows = tuple(
        ForestRow(
            label=words.comparison_label(each["name"]),
            verdict=each["verdict"],
            low=across(each["ci_low"]),
            middle=across(each["difference"]),
            high=across(each["ci_high"]),
            claim=across(each["claim"]) if each["claim"] else None,
            figure=words.points(each["difference"]),
            interval=f"{words.points(each['ci_low'])} to {words.points(each['ci_high'])}",
            n=each["n"],
        )
        for each in comparisons
    )
    return Forest(rows, across(0.0), tuple(Tick(across(mark / 100), words.points(mark / 100)) for mark in marks))
