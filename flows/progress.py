"""Run flows from the command line, with a progress bar a stage and a readable end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table

from flows.bars import bars
from flows.countdown import expected
from flows.cross_validate import cross_validate
from flows.evaluate import evaluate
from flows.full_pipeline import full_pipeline
from flows.plan import open_plan
from flows.teach import fetch_student, teach
from flows.train import train
from tasks.earlier import earlier_seconds
from tasks.report import read_summary

FLOWS: dict[str, Callable[..., Awaitable[Any]]] = {"student": fetch_student, "teach": teach, "train": train, "evaluate": evaluate, "report": full_pipeline}


async def run_with_progress(profile: str, overrides: Mapping[str, Any], *, until: str, console: Console) -> RenderableType:
    """Run the flow that ends with `until`; returns what to print at the end."""
    plan = open_plan(profile, overrides)
    with bars(console, stages=expected(plan) if until == "report" else (), before=earlier_seconds(plan.context.root)):
        outcome = await FLOWS[until](profile, dict(overrides))
    return _report_panel(outcome) if until == "report" else Panel(f"{until} is done; the artifacts are listed by `socratune run {profile}`'s report")


async def cross_validate_with_progress(profile: str, overrides: Mapping[str, Any], *, folds: int, console: Console) -> str:
    """Run every fold of a cross-validation; returns the pooled tables as Markdown."""
    with bars(console):
        return await cross_validate(profile, folds, dict(overrides))


def _report_panel(report: Any) -> RenderableType:
    summary = read_summary(report)
    table = Table(
        Column("model", overflow="fold"), "arm", "n", "accuracy", "95 % interval", "yes-rate", "unparsed", title=f"{summary['profile']} on {summary['split']}"
    )
    for name, model in summary["models"].items():
        cell = model["arms"][model["headline"]]
        interval = f"{cell['ci_low']:.1%} to {cell['ci_high']:.1%}"
        table.add_row(name, model["headline"], str(cell["n"]), f"{cell['accuracy']:.1%}", interval, f"{cell['yes_rate']:.1%}", str(cell["unparsed"]))
    compared = Table(Column("comparison", overflow="fold"), "difference", "95 % interval", "p (Holm)", "verdict")
    for each in summary["comparisons"]:
        interval = f"{100 * each['ci_low']:+.1f} to {100 * each['ci_high']:+.1f} pp"
        compared.add_row(each["name"], f"{100 * each['difference']:+.1f} pp", interval, f"{each['p_holm']:.2g}", each["verdict"])
    reused = sum(line["cached"] for line in summary["stages"])
    foot = f"majority line {summary['majority_accuracy']:.1%}; {reused} of {len(summary['stages'])} stages reused; report: {report.html}"
    return Group(table, compared, foot)
