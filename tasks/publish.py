"""Prefect artifacts of what a run made. Called by flows with what stages returned, so that cached runs show them too."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact, acreate_table_artifact

from tasks.contracts.artifacts import ModelRef, TableRef
from tasks.contracts.outcomes import Report
from tasks.contracts.rows import Curated, Score
from tasks.foresee import foreseen
from tasks.logic.report.tables import render_markdown_tables
from tasks.stage import Context

P = ParamSpec("P")


def _in_real_runs(publish: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """Publish nothing while a plan is made."""

    @functools.wraps(publish)
    async def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if foreseen() is None:
            await publish(*args, **kwargs)

    return call


@_in_real_runs
async def publish_corpus(context: Context, curated: TableRef[Curated]) -> None:
    """Class counts after each curation filter."""
    filters = context.root.record(curated)["summary"]["filters"]
    rows = [{"step": each["step"], "yes": each["yes"], "no": each["no"], "share of yes": f"{each['yes_share']:.1%}"} for each in filters]
    await acreate_table_artifact(key="class-shares", table=rows, description="Questions per class after each step of curation")


@_in_real_runs
async def publish_training(context: Context, adapters: Mapping[str, ModelRef]) -> None:
    """One line a trained model: examples, steps, loss, seconds."""
    rows = [{"model": name, **_training_line(context.root.record(ref))} for name, ref in adapters.items()]
    await acreate_table_artifact(key="training", table=rows, description="What was trained")


@_in_real_runs
async def publish_scores(context: Context, scores: TableRef[Score]) -> None:
    """The result table and the comparisons."""
    cells = [
        {
            "model": cell.model,
            "arm": cell.arm,
            "split": cell.split,
            "n": cell.n,
            "accuracy": f"{cell.accuracy:.1%}",
            "95 % interval": f"{cell.ci_low:.1%} to {cell.ci_high:.1%}",
            "majority line": f"{cell.majority_accuracy:.1%}",
            "yes-rate": f"{cell.yes_rate:.1%}",
            "unparsed": cell.unparsed,
        }
        for cell in context.root.read(scores, Score)
    ]
    await acreate_table_artifact(key="results", table=cells, description="Accuracy by model and arm")
    found = context.root.record(scores)["summary"]
    await acreate_table_artifact(key="comparisons", table=_compared(found["comparisons"]), description="Paired comparisons of headline arms")
    if found["draft"]:
        told = f"The draft family: {found['draft']['verdict']}"
        await acreate_table_artifact(key="draft-comparisons", table=_compared(found["draft"]["comparisons"]), description=told)


@_in_real_runs
async def publish_report(report: Report) -> None:
    """A link to the report, and its tables in Markdown."""
    tables = render_markdown_tables(json.loads(Path(report.summary).read_text(encoding="utf-8")))
    await acreate_link_artifact(key="report", link=f"file://{report.html}", link_text="report.html", description=f"Report and summary in {report.folder}")
    for key, text in tables.items():
        await acreate_markdown_artifact(key=f"summary-{key}", markdown=text, description=f"{key.replace('-', ' ').capitalize()} as in the report")


@_in_real_runs
async def publish_pooled(tables: str) -> None:
    """The comparisons of several runs, pooled."""
    await acreate_markdown_artifact(key="pooled-comparisons", markdown=tables, description="Comparisons by run and over all runs")


def _training_line(record: Mapping[str, Any]) -> dict[str, Any]:
    summary = record["summary"]
    shown = ("examples", "pairs", "steps", "tokens", "final_loss", "kept_epoch")
    return {key: summary[key] for key in shown if key in summary} | {"seconds": record["seconds"]}


def _compared(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "comparison": each["name"],
            "n": each["n"],
            "difference": f"{100 * each['difference']:+.1f} pp",
            "95 % interval": f"{100 * each['ci_low']:+.1f} to {100 * each['ci_high']:+.1f} pp",
            "p (Holm)": f"{each['p_holm']:.2g}",
            "verdict": each["verdict"],
        }
        for each in comparisons
    ]
