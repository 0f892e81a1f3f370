"""The whole pipeline, as a table of contents."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow

from flows.evaluate import evaluate
from flows.plan import Overrides, ProfileName, open_plan
from flows.report import report
from flows.teach import teach
from flows.train import train
from tasks.contracts.outcomes import Report
from tasks.loop import follow


@flow(name="full-pipeline", flow_run_name="full-pipeline {profile}")
async def full_pipeline(profile: ProfileName = "demo", overrides: Overrides = None) -> Report:
    """Teach, train, evaluate, report. What is already stored for this recipe is not computed again."""
    started = datetime.now(UTC)
    plan = open_plan(profile, overrides, asks=True)  # every configuration fault is told here, before anything starts
    corpus = await teach(profile, overrides)
    students = follow(plan.context, await train(profile, overrides, corpus), profile=plan.profile.name, start=plan.recipe.loop.start)
    findings = await evaluate(profile, overrides, corpus, students)
    return await report(profile, overrides, corpus, students, findings, started)
