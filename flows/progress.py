"""Run flows from the command line, with a progress bar a stage and a readable end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from flows.cross_validate import checked_changes, cross_validate
from flows.evaluate import evaluate
from flows.full_pipeline import full_pipeline
from flows.plan import open_plan
from flows.teach import fetch_student, teach
from flows.train import train
from tasks import watch
from tasks.report import read_summary

FLOWS: dict[str, Callable[..., Awaitable[Any]]] = {"student": fetch_student, "teach": teach, "train": train, "evaluate": evaluate, "report": full_pipeline}


async def run_with_progress(profile: str, overrides: Mapping[str, Any], *, until: str, console: Console) -> RenderableType:
    """Run the flow that ends with `until`; returns what to print at the end."""
    plan = open_plan(profile, overrides, asks=until != "student")
    console.print(f"The student computes in {plan.precision}", highlight=False)
    with bars(console):
        outcome = await FLOWS[until](profile, dict(overrides))
    return _report_panel(outcome) if until == "report" else finished(until, profile)


def finished(until: str, profile: str) -> RenderableType:
    """What is said at the end of a part of a run; a name is printed as it is, brackets too."""
    return Panel(Text(f"{until} is done; the artifacts are listed by `socratune run {profile}`'s report"))


async def cross_validate_with_progress(profile: str, overrides: Mapping[str, Any], *, folds: int, console: Console) -> str:
    """Run every fold of a cross-validation; returns the pooled tables as Markdown."""
    checked_changes(profile, folds, overrides)
    with bars(console):
        return await cross_validate(profile, folds, dict(overrides))


@contextmanager
def bars(console: Console) -> Iterator[None]:
    """While the block runs, each stage has a bar with its time left."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bars, watch.listen(_Bars(bars)):
        yield


class _Bars:
    """One bar a stage; a stage that ends leaves its bar full."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._ids: dict[str, Any] = {}

    def __call__(self, progress: watch.Progress) -> None:
        if progress.stage not in self._ids:
            self._ids[progress.stage] = self._bars.add_task(progress.stage, total=None, note="")
        total = progress.total or None
        self._bars.update(self._ids[progress.stage], completed=progress.done, total=total, note=progress.note)


def _report_panel(report: Any) -> RenderableType:
    summary = read_summary(report)
    table = Table(
        Column("model", overflow="fold"),
        "arm",
        "n",
        "accuracy",
        "95 % interval",
        "yes-rate",
        "unparsed",
        title=Text(f"{summary['profile']} on {summary['split']}"),
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
    return Group(table, compared, Text(foot))
