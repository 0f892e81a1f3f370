"""Cross-validation: the whole pipeline once a fold, then all folds together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.full_pipeline import full_pipeline
from flows.plan import Overrides, ProfileName, open_plan
from tasks.contracts.splits import MOST, Fold
from tasks.publish import publish_pooled
from tasks.runs import pool_runs

Folds = Annotated[int, Field(ge=2, le=MOST, description="Into how many parts the questions are cut; each is tested once")]
WHOLE = {"recipe.sample.train": 0, "recipe.sample.dev": 0, "recipe.sample.test": 0}  # all questions, where nothing else is said


@flow(name="cross-validate", flow_run_name="cross-validate {profile}")
async def cross_validate(profile: ProfileName, folds: Folds = 5, overrides: Overrides = None) -> str:
    """Each question is tested once, by a model that never saw it; teacher replies are paid once over all folds. Returns the pooled tables as Markdown."""
    changes = checked_changes(profile, folds, overrides)
    reports = [await full_pipeline(profile, change) for change in changes]
    pooled = pool_runs([report.folder for report in reports])
    await publish_pooled(pooled)
    return pooled


def checked_changes(profile: str, folds: int, overrides: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What each fold changes of the profile. Every configuration fault is told here, before anything starts."""
    parts = [Fold(number, folds) for number in range(folds)]
    changes = [{**WHOLE, **(overrides or {}), "recipe.sample.split": part.name, "recipe.grade.split": "test"} for part in parts]
    for change in changes:
        open_plan(profile, change, asks=True)
    return changes
