"""Write a run's summary and report from what the other flows made."""

from __future__ import annotations

from datetime import datetime

from prefect import flow

from flows.plan import Overrides, ProfileName, open_plan
from tasks.contracts.outcomes import Corpus, Findings, Report, Students
from tasks.publish import publish_report
from tasks.report import write_report


@flow(name="report", flow_run_name="report {profile}")
async def report(profile: ProfileName, overrides: Overrides, corpus: Corpus, students: Students, findings: Findings, started: datetime) -> Report:
    """`data/runs/<profile>-<utc>/` with summary.json, report.html, slides.pptx, predictions and the exported training data."""
    plan = open_plan(profile, overrides)
    written = await write_report(
        plan.context, profile=plan.profile, overrides=plan.overrides, corpus=corpus, students=students, findings=findings, started=started
    )
    await publish_report(written)
    return written
