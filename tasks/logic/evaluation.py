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
from tasks.logic.scores import Comparison, compare, compare_pooled, holm, score


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A comparison fixed before a test split is read. `claim`: 0 = better at all; negative = not worse by that much."""

    new: str
    old: str
    claim: float

    @property
    def name(self) -> str:
        """The comparison's name in the summary."""
        return f"{self.new}_vs_{self.old}"


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
    present = {claim.name: claim for claim in CLAIMS if all((name, heads[name], recipe.split) in cells for name in (claim.new, claim.old))}
    compared = [
        compare(
            name,
            *_both_answered(cells[claim.new, heads[claim.new], recipe.split], cells[claim.old, heads[claim.old], recipe.split]),
            resamples=recipe.bootstrap,
            seed=seed,
            claim=claim.claim,
        )
        for name, claim in present.items()
    ]
    return Grading(scores=[score(rows) for rows in cells.values()], comparisons=holm(compared), calibration=found)


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


def _both_answered(new: Sequence[Prediction], old: Sequence[Prediction]) -> tuple[list[Prediction], list[Prediction]]:
    """Both sides on the questions that both were read on: one may have read only the first of them."""
    shared = {row.qid for row in new} & {row.qid for row in old}
    return [row for row in new if row.qid in shared], [row for row in old if row.qid in shared]


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


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """One comparison over several runs: each run's own figures, and all of them together."""

    runs: tuple[Comparison, ...]
    together: Comparison


def pool_comparisons(runs: Sequence[tuple[Mapping[str, str], str, Sequence[Prediction]]], *, resamples: int, seed: int) -> list[Pooled]:
    """Every claim that all runs can answer. A run is (headline arms, graded split, predictions)."""
    cells = [_headline_cells(*run) for run in runs]
    pooled = []
    for claim in CLAIMS:
        if not all(claim.new in each and claim.old in each for each in cells):
            continue
        pairs = [_both_answered(each[claim.new], each[claim.old]) for each in cells]
        single = tuple(compare(claim.name, new, old, resamples=resamples, seed=seed, claim=claim.claim) for new, old in pairs)
        pooled.append(Pooled(runs=single, together=compare_pooled(claim.name, pairs, resamples=resamples, seed=seed, claim=claim.claim)))
    return pooled


def pooled_table(pooled: Sequence[Pooled]) -> str:
    """Markdown: a line for each run, and one in bold for all runs together."""
    lines = ["| comparison | run | n | difference, pp | 95 % interval | p | verdict |", "|---|---|---|---|---|---|---|"]
    for each in pooled:
        lines += [_pooled_line(run, str(number)) for number, run in enumerate(each.runs, start=1)]
        lines.append(_pooled_line(each.together, "**all**"))
    return "\n".join(lines)


def _pooled_line(each: Comparison, run: str) -> str:
    interval = f"{100 * each.ci_low:+.1f} to {100 * each.ci_high:+.1f}"
    return f"| {each.name} | {run} | {each.n} | {100 * each.difference:+.1f} | {interval} | {each.p_value:.2g} | {each.verdict} |"


def _headline_cells(heads: Mapping[str, str], split: str, predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    cells: dict[str, list[Prediction]] = defaultdict(list)
    for row in predictions:
        if row.split == split and heads.get(row.model) == row.arm:
            cells[row.model].append(row)
    return cells
