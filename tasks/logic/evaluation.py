"""Scores of every reading, the comparisons that the project stands for, and the baselines that need no model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.contracts.readings import headline_arms
from tasks.contracts.recipes import Grade
from tasks.contracts.rows import Arm, Prediction, Question, Score, Verdict
from tasks.logic.arms import calibrated
from tasks.logic.calibration import calibration_error, matthews
from tasks.logic.claims import Claim, Pooled, Sides, compare_family, pool_family
from tasks.logic.scores import Comparison, score

CLAIMS = (
    Claim(new="track_b", old="track_a", claim=0.0),
    Claim(new="track_b", old="track_a_matched", claim=0.0),
    Claim(new="aligned", old="track_b", claim=-0.03),  # preference training may cost accuracy; 3 points is the most we accept
    Claim(new="track_a", old="zero_shot", claim=0.0),
    Claim(new="track_b", old="facts_only", claim=0.0),
    Claim(new="track_b", old="shuffled_rationale", claim=0.0),
)


@dataclass(frozen=True, kw_only=True)
class Grading:
    """The cells of the result table, the comparisons over the graded split, and how good the direct margins are, by model (empty = not asked for)."""

    scores: list[Score]
    comparisons: list[Comparison]
    calibration: dict[str, Calibration]


@dataclass(frozen=True, kw_only=True)
class MarginFigures:
    """How well the margins of one model's direct answers tell yes from no."""

    accuracy: float
    balanced_accuracy: float
    mcc: float  # Matthews correlation
    ece: float  # expected calibration error of sigmoid(margin), ten bins


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A model's direct answers at threshold 0 and at thresholds chosen on `chosen_on` dev questions; two where each half of dev chose for the other."""

    thresholds: list[float]
    chosen_on: int
    plain: MarginFigures
    calibrated: MarginFigures


def grade_predictions(predictions: Sequence[Prediction], *, recipe: Grade, seed: int) -> Grading:
    """Score every (model, arm, split); compare headline arms on the graded split, Holm over the whole family; calibrate where the recipe says so."""
    cells: dict[tuple[str, str, str], list[Prediction]] = defaultdict(list)
    for row in predictions:
        cells[row.model, row.arm, row.split].append(row)
    found = _calibrate(cells, recipe.split) if recipe.calibrate else {}
    heads = headline_arms(recipe)
    sides = {name: [cells[name, arm, recipe.split]] for name, arm in heads.items() if (name, arm, recipe.split) in cells}
    compared = compare_family(CLAIMS, sides, resamples=recipe.bootstrap, seed=seed)
    return Grading(scores=[score(rows) for rows in cells.values()], comparisons=compared, calibration=found)


def _calibrate(cells: dict[tuple[str, str, str], list[Prediction]], split: str) -> dict[str, Calibration]:
    """Adds the cell of the calibrated arm of every model whose direct answers on `split` have margins; returns what was found."""
    found = {}
    for model in [model for model, arm, where in cells if (arm, where) == (Arm.DIRECT, split)]:
        direct, dev = cells[model, Arm.DIRECT, split], cells.get((model, Arm.DIRECT, "dev"), [])
        if any(math.isnan(row.margin) for row in direct):
            continue  # a baseline without a model
        moved, thresholds = calibrated(direct, dev)
        cells[model, Arm.CALIBRATED, split] = moved
        found[model] = Calibration(thresholds=thresholds, chosen_on=len(dev), plain=margin_figures(direct), calibrated=margin_figures(moved))
    return found


def margin_figures(rows: Sequence[Prediction]) -> MarginFigures:
    """Figures of direct answers; their verdict is yes where the margin is above 0."""
    cell = score(rows)
    margins, gold = [row.margin for row in rows], [row.answer == Verdict.YES for row in rows]
    return MarginFigures(
        accuracy=cell.accuracy,
        balanced_accuracy=cell.balanced_accuracy,
        mcc=matthews([margin > 0 for margin in margins], gold),
        ece=calibration_error(margins, gold),
    )


def baseline_predictions(questions: Sequence[Question], verdicts: Sequence[str], *, model: str) -> list[Prediction]:
    """Verdicts of a baseline without a model, one a question, as predictions of the direct arm."""
    return [
        Prediction(
            qid=row.qid,
            split=row.split,
            kind=row.kind,
            model=model,
            arm=Arm.DIRECT,
            question=row.question,
            answer=row.answer,
            verdict=verdict,
            text="",
            tokens=0,
            cut=False,
            margin=float("nan"),
            reason="",
        )
        for row, verdict in zip(questions, verdicts, strict=True)
    ]


def pool_comparisons(runs: Sequence[tuple[Mapping[str, str], str, Sequence[Prediction]]], *, resamples: int, seed: int) -> list[Pooled]:
    """Every claim that all runs can answer. A run is (headline arms, graded split, predictions)."""
    return pool_family(CLAIMS, [_headline_sides(*run) for run in runs], resamples=resamples, seed=seed)


def _headline_sides(heads: Mapping[str, str], split: str, predictions: Sequence[Prediction]) -> Sides:
    cells: dict[str, list[Prediction]] = defaultdict(list)
    for row in predictions:
        if row.split == split and heads.get(row.model) == row.arm:
            cells[row.model].append(row)
    return {model: [rows] for model, rows in cells.items()}
