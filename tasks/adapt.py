"""Adapt stage: the adaptive arm out of a model's direct and reasoning answers. Asks the student nothing."""

from __future__ import annotations

import math

from tasks.contracts.artifacts import TableRef
from tasks.contracts.rows import Arm, Prediction
from tasks.logic.arms import adaptive, adaptive_cost
from tasks.stage import Table, Work, table_stage


@table_stage("adapt", version=3, run_name="adapt {model} on {split}")
async def adapt(
    work: Work, *, model: str, split: str, read: TableRef[Prediction], dev: TableRef[Prediction], questions: int, calibrate: bool
) -> Table[Prediction]:
    """Direct where the margin is clear, reasoning elsewhere, for the first `questions` (0 = all); what is clear is chosen on the reading of `dev`."""
    made = adaptive(work.root.read(read, Prediction), work.root.read(dev, Prediction), questions=questions, calibrate=calibrate)
    cost = adaptive_cost(made, work.root.record(read)["summary"]["cost"])
    summary = {
        "cost": {Arm.ADAPTIVE.value: cost},
        "reasoned": made.reasoned,
        "thresholds": made.thresholds,
        "distances": [each if math.isfinite(each) else None for each in made.distances],  # null = reasoning always
    }
    return Table(made.predictions, Prediction, summary)
