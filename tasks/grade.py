"""Grade stage: scores with intervals, and the paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from tasks.contracts.artifacts import TableRef
from tasks.contracts.recipes import Grade
from tasks.contracts.rows import Arm, Pair, Prediction, Question, Score
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.draft_experiment import draft_experiment
from tasks.logic.evaluation import baseline_predictions, grade_predictions
from tasks.stage import Table, Work, table_stage


@table_stage("grade", version=5, run_name="grade")
async def grade(
    work: Work,
    *,
    predictions: Mapping[str, TableRef[Prediction]],
    train: TableRef[Question],
    graded: TableRef[Question],
    pairs: TableRef[Pair] | None,
    benchmark: str,
    recipe: Grade,
    seed: int,
) -> Table[Score]:
    """One Score a model, arm and split; into the record go comparisons of headline arms, calibration of direct arms, and what the drafts are worth.

    `pairs` are those of a recipe that also trained a twin without drafts.
    """
    rows = [row for ref in predictions.values() for row in work.root.read(ref, Prediction)]
    if "entity_prior" in recipe.controls:
        questions = work.root.read(graded, Question)
        prior = get_benchmark(benchmark).entity_prior(work.root.read(train, Question), questions)
        rows += baseline_predictions(questions, prior, model="entity_prior")
    made = grade_predictions(rows, recipe=recipe, seed=seed)
    calibration = {model: asdict(each) for model, each in made.calibration.items()}
    unmatched: dict[str, dict[str, int]] = {}
    for ref in predictions.values():
        unmatched |= work.root.record(ref)["summary"].get("unmatched", {})
    draft = draft_experiment(
        rows,
        split=recipe.split,
        resamples=recipe.bootstrap,
        seed=seed,
        unmatched=unmatched,
        rewrite_pairs=None if pairs is None else sum(pair.arm == Arm.REWRITE for pair in work.root.read(pairs, Pair)),
    )
    summary = {"comparisons": [asdict(each) for each in made.comparisons], "calibration": calibration, "draft": asdict(draft) if draft else None}
    return Table(made.scores, Score, summary)
