"""The experiments on learning by asking, as summary.json holds them: the draft family, attribution and the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from tasks.contracts.readings import ABLATIONS, TWIN, kind_of
from tasks.contracts.rows import Arm, Score
from tasks.logic.statistics import wilson

_CELL = ("accuracy", "ci_low", "ci_high", "n", "yes_rate", "unparsed", "balanced_accuracy")


def is_ablation(cell: Score) -> bool:
    """Whether a cell belongs to the draft family rather than to the result table: it shows what is lost, not what a model can do."""
    return cell.model == TWIN or kind_of(cell.arm) in ABLATIONS


def draft_summary(record: Mapping[str, Any] | None, scores: Sequence[Score], *, split: str) -> dict[str, Any] | None:
    """The draft family: verdict, arms of the aligned model (shuffles as one, the twin as `aligned_no_draft`) and comparisons. None where not asked for.

    `record` is what the grade stage found, `scores` all its cells. The shuffles' accuracy is their mean, its interval that of so many questions, not of as
    many answers: the questions are the same each time.
    """
    if record is None:
        return None
    cells = [cell for cell in scores if cell.split == split]
    arms = {Arm.REWRITE.value: [cell for cell in cells if (cell.model, cell.arm) == ("aligned", Arm.REWRITE)]}
    arms |= {arm.value: [cell for cell in cells if cell.model == "aligned" and kind_of(cell.arm) == arm] for arm in ABLATIONS}
    arms |= {TWIN: [cell for cell in cells if cell.model == TWIN]}
    comparisons = [dict(each) for each in record["comparisons"]]
    return {
        "verdict": record["verdict"],
        "confounded": record["confounded"],
        "n": max((each["n"] for each in comparisons), default=0),
        "arms": {name: {key: getattr(_one(found), key) for key in _CELL} for name, found in arms.items() if found},
        "comparisons": comparisons,
    }


def _one(cells: Sequence[Score]) -> Score:
    """Several readings of the same questions as one cell."""
    first, accuracy = cells[0], mean(cell.accuracy for cell in cells)
    interval = wilson(round(accuracy * first.n), first.n)
    return replace(
        first,
        accuracy=accuracy,
        ci_low=min(interval.low, accuracy),
        ci_high=max(interval.high, accuracy),
        yes_rate=mean(cell.yes_rate for cell in cells),
        unparsed=round(mean(cell.unparsed for cell in cells)),
        balanced_accuracy=mean(cell.balanced_accuracy for cell in cells),
    )
