"""Grade stage: scores with intervals, and the paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from tasks.contracts.artifacts import TableRef
from tasks.contracts.recipes import Grade
from tasks.contracts.rows import Prediction, Question, Score
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.evaluation import baseline_predictions, grade_predictions
from tasks.stage import Table, Work, table_stage


@table_stage("grade", version=2, run_name="grade")
async def grade(
    work: Work,
    *,
    predictions: Mapping[str, TableRef[Prediction]],
    train: TableRef[Question],
    graded: TableRef[Question],
    benchmark: str,
    recipe: Grade,
    seed: int,
) -> Table[Score]:
    """One Score a model, arm and split; comparisons of headline arms and the calibration of direct arms go into the record."""
    rows = [row for ref in predictions.values() for row in work.root.read(ref, Prediction)]
    if "entity_prior" in recipe.controls:
        questions = work.root.read(graded, Question)
        prior = get_benchmark(benchmark).entity_prior(work.root.read(train, Question), questions)
        rows += baseline_predictions(questions, prior, model="entity_prior")
    made = grade_predictions(rows, recipe=recipe, seed=seed)
    calibration = {model: asdict(each) for model, each in made.calibration.items()}
    return Table(made.scores, Score, {"comparisons": [asdict(each) for each in made.comparisons], "calibration": calibration, "draft": None})
