"""What a run of a profile would find, make and pay: the flows themselves, looking ahead instead of running."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.evaluate import evaluate
from flows.plan import Plan, open_plan
from flows.teach import teach
from flows.train import train
from tasks.contracts.asks import Estimate
from tasks.contracts.failures import NotYet
from tasks.contracts.readings import judged_sizes
from tasks.estimate import free_bytes, missing_key
from tasks.foresee import Foreseen, foresee
from tasks.outlook import CardOutlook, outlook

STAGES_SHOWN = 4


async def forecast(profile: str, overrides: Mapping[str, Any]) -> Foreseen:
    """Walk the flows as far as what is stored allows. Computes nothing, loads no model and calls nobody."""
    with foresee() as ahead, suppress(NotYet):
        corpus = await teach.fn(profile, dict(overrides))
        students = await train.fn(profile, dict(overrides), corpus)
        await evaluate.fn(profile, dict(overrides), corpus, students)
    return ahead


async def forecast_tables(profile: str, overrides: Mapping[str, Any]) -> RenderableType:
    """The forecast as tables for a terminal."""
    plan = open_plan(profile, overrides)
    ahead = await forecast(profile, overrides)
    stages = Table("stage", "stored", "took, s", title=Text(f"What a run of {plan.profile.name} finds"))
    for label, stored, seconds in ahead.stages:
        stages.add_row(label, "yes" if stored else "no, to do", f"{seconds:.0f}" if stored else "")
    more = [] if all(stored for _, stored, _ in ahead.stages) else [Text("Whatever follows from a stage that is to do is to do as well.")]
    asked = ("teach", True) in {(label, stored) for label, stored, _ in ahead.stages}
    cost = [Text("The teacher: everything is asked and stored.")] if asked else _cost(ahead.estimate, kind=plan.recipe.teacher.kind)
    cost += _judging(plan, ahead)
    if lacking := missing_key(plan.profile):
        cost.append(Text(f"A run would stop before it begins: {lacking}.", style="bold"))
    cards = outlook(plan.profile, splits=plan.splits, source=plan.source, folder=plan.folder_of(plan.recipe.student.model))
    where = f"looked in {plan.context.root.path.absolute()}; free on the disk: {free_bytes(plan.context) / 2**30:.1f} GiB"
    machine = [Text(f"The student computes in {plan.precision}"), Text(where)]
    return Group(stages, *more, *cost, *_cards(cards, student=plan.recipe.student.model), *machine)


def _cards(cards: list[CardOutlook] | None, *, student: str) -> list[RenderableType]:
    """GPU hours and memory by card, and the hours of each stage on the smallest that fits."""
    if cards is None:
        return [Text(f"GPU hours: not known before {student} and its questions are fetched.")]
    table = Table("card", "GPU hours", "peak GiB", "trains with", title="A GPU would be busy for about")
    for card in cards:
        hours = _hours(card.total) if card.hours else "does not fit"
        table.add_row(card.gpu.name, hours, f"{card.peak_gib:.1f}", card.how or card.fits)
    fitting = [card for card in cards if card.hours]
    note = Text(
        "Memory is counted from the network's shape; hours are scaled from readings on one H200 by data-sheet figures, so take them for an order of magnitude."
    )
    if not fitting:
        return [table, note]
    longest = sorted(fitting[0].hours.items(), key=lambda each: -each[1])[:STAGES_SHOWN]
    parts = ", ".join(f"{stage} {_hours(each)}" for stage, each in longest)
    return [table, Text(f"Of these, on {fitting[0].gpu.name}: {parts}."), note]


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min" if hours >= 1 / 60 else "under a minute"


def _judging(plan: Plan, ahead: Foreseen) -> list[RenderableType]:
    """At most how many calls the judge takes: two a pair; equal sets of questions, and those that the ledger holds, take none."""
    if plan.judged_arm is None:
        return []
    if ("judge", True) in {(label, stored) for label, stored, _ in ahead.stages}:
        return [Text("The judge: everything is asked and stored.")]
    split = plan.recipe.grade.split
    limits = [size for size in (plan.recipe.judge.questions, *judged_sizes(plan.recipe.grade, plan.recipe.ablate), plan.splits[split]) if size]
    calls = f"at most {2 * min(limits):,} calls" if limits else f"at most two calls a question of {split}"
    return [Text(f"The judge ({plan.recipe.judge.model}): {calls}, for both orders of each pair; not in the table above.")]


def _cost(estimate: Estimate | None, *, kind: str) -> list[RenderableType]:
    if estimate is None:
        why = (
            "a recorded teacher costs nothing"
            if kind == "recorded"
            else "not known before the questions are fetched: run with --until teach first, or give a file"
        )
        return [Text(f"The teacher: {why}.")]
    title = f"The teacher: {estimate.owned:,} of {estimate.asks:,} replies are in the ledger already"
    table = Table("", "calls", "tokens in", "tokens out", "US dollars", "minutes", title=title)
    for name in ("low", "expected", "high"):
        cost = getattr(estimate, name)
        table.add_row(name, f"{cost.calls:,}", f"{cost.tokens_in:,}", f"{cost.tokens_out:,}", f"{cost.usd:,.2f}", f"{cost.minutes:,.1f}")
    return [table, Text("; ".join(estimate.notes)), Text(f"disk for replies: about {estimate.disk_bytes / 2**20:.1f} MiB")]
