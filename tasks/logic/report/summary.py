"""summary.json: the machine-readable result of a run, from typed values to strict JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tasks.contracts.asks import Usage
from tasks.contracts.failures import DataError
from tasks.contracts.rows import Score
from tasks.logic.balance import FilterStep
from tasks.logic.scores import Comparison

_CELL = ("accuracy", "ci_low", "ci_high", "n", "yes_rate", "unparsed", "balanced_accuracy")
_COMPARISON = ("name", "n", "right", "claim", "difference", "ci_low", "ci_high", "p_value", "p_holm", "minimal_detectable", "verdict")


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """All arms of one model; `headline` names the arm it is judged by."""

    headline: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class StageLine:
    """One stage of the run: wall-clock seconds, whether it was reused, and its folder relative to the artifact root."""

    stage: str
    seconds: float
    cached: bool
    artifact: str


@dataclass(frozen=True, kw_only=True)
class TestRead:
    """How often a recipe has read a test split."""

    __test__ = False  # a row, not a test case, whatever its name

    recipe: str
    split: str
    times: int


def summary(
    *,
    profile: str,
    overrides: Mapping[str, object],
    benchmark: str,
    student: str,
    teacher: str,
    split: str,
    splits: Mapping[str, int],
    majority_accuracy: float,
    models: Mapping[str, ModelScores],
    controls: Mapping[str, ModelScores],
    comparisons: Sequence[Comparison],
    unparsed: str,
    accepted: str,
    same_as: Mapping[str, str],
    remarks: Sequence[str],
    draft: Mapping[str, object] | None,
    attribution: Mapping[str, object] | None,
    judge: Mapping[str, object] | None,
    calibration: Mapping[str, object],
    costs: Mapping[str, Mapping[str, Mapping[str, float]]],
    curation: Mapping[str, object],
    filters: Sequence[FilterStep],
    teacher_usage: Usage,
    stages: Sequence[StageLine],
    test_reads: Sequence[TestRead],
) -> dict[str, Any]:
    """Assemble summary.json. `curation` holds further counts of the curate stage; `filters` goes beside them as `steps`.

    `costs` by model and arm: generated tokens and milliseconds a question. `calibration` by model: its direct margins, plain and calibrated.
    `unparsed` says what a text without a verdict counts as; `accepted` which student of a self-guided loop stands as the aligned one, "" = none. `draft`,
    `attribution` and `judge` are None where the recipe does not ask for the experiment.

    `same_as` says which models are another one under a second name; `remarks` is what belongs beside the table of results.

    Raises DataError when a headline arm was not scored or when a value has no strict JSON form (NaN, infinity, objects).
    """
    assembled = {
        "profile": profile,
        "overrides": dict(overrides),
        "benchmark": benchmark,
        "student": student,
        "teacher": teacher,
        "split": split,
        "splits": dict(splits),
        "majority_accuracy": majority_accuracy,
        "models": {name: _model(name, model) for name, model in models.items()},
        "controls": {name: _model(name, model) for name, model in controls.items()},
        "comparisons": [{key: getattr(each, key) for key in _COMPARISON} for each in comparisons],
        "unparsed": unparsed,
        "accepted": accepted,
        "same_as": dict(same_as),
        "remarks": list(remarks),
        "draft": draft,
        "attribution": attribution,
        "judge": judge,
        "calibration": dict(calibration),
        "costs": costs,
        "curation": {**curation, "steps": [{**asdict(step), "yes_share": step.yes_share} for step in filters]},
        "teacher_usage": asdict(teacher_usage),
        "stages": [asdict(line) for line in stages],
        "test_reads": [asdict(read) for read in test_reads],
    }
    plain: dict[str, Any] = json.loads(summary_json(assembled))
    return plain


def summary_json(assembled: Mapping[str, Any]) -> str:
    """The text of summary.json. Raises DataError for what strict JSON cannot say."""
    try:
        return json.dumps(assembled, indent=1, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"the summary holds a value that JSON cannot express ({error}); every figure must be a finite number or plain text") from error


def _model(name: str, model: ModelScores) -> dict[str, Any]:
    arms = {cell.arm: {key: getattr(cell, key) for key in _CELL} for cell in model.scores}
    if model.headline not in arms:
        raise DataError(f"{name}: its headline arm {model.headline!r} was not scored, only {sorted(arms)}; add its predictions or change recipe.grade.headline")
    if len(arms) < len(model.scores):
        raise DataError(f"{name}: an arm is scored twice; give one score for each arm")
    return {"headline": model.headline, "arms": arms}
