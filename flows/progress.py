"""Run flows from the command line, with a progress bar a stage and a readable end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.text import Text

from flows.bars import bars
from flows.countdown import expected
from flows.cross_validate import checked_changes, cross_validate
from flows.evaluate import evaluate
from flows.full_pipeline import full_pipeline
from flows.plan import open_plan
from flows.results import results
from flows.teach import fetch_student, teach
from flows.train import train
from tasks.earlier import earlier_seconds

FLOWS: dict[str, Callable[..., Awaitable[Any]]] = {"student": fetch_student, "teach": teach, "train": train, "evaluate": evaluate, "report": full_pipeline}


async def run_with_progress(profile: str, overrides: Mapping[str, Any], *, until: str, console: Console) -> RenderableType:
    """Run the flow that ends with `until`; returns what to print at the end."""
    plan = open_plan(profile, overrides, asks=until != "student")
    console.print(f"The student computes in {plan.precision}", highlight=False)
    with bars(console, stages=expected(plan) if until == "report" else (), before=earlier_seconds(plan.context.root)):
        outcome = await FLOWS[until](profile, dict(overrides))
    return results(outcome, width=console.width) if until == "report" else finished(until, profile)


def finished(until: str, profile: str) -> RenderableType:
    """What is said at the end of a part of a run; a name is printed as it is, brackets too."""
    return Panel(Text(f"{until} is done; the artifacts are listed by `socratune run {profile}`'s report"))


async def cross_validate_with_progress(profile: str, overrides: Mapping[str, Any], *, folds: int, console: Console) -> str:
    """Run every fold of a cross-validation; returns the pooled tables as Markdown."""
    checked_changes(profile, folds, overrides)
    with bars(console):
        return await cross_validate(profile, folds, dict(overrides))
