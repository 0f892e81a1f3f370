"""Fire the loop from a terminal, show its rounds, and move its pointer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from flows.bars import bars
from flows.plan import Plan, open_plan
from flows.self_guided import self_guided
from flows.stored import stored
from tasks.contracts.failures import ArtifactError
from tasks.contracts.loops import PAGE, LoopFolder
from tasks.contracts.outcomes import Firing
from tasks.loop import history, promote, roll_back

_SHOWN = ("round", "verdict", "right", "gain", "p", "yes", "tokens", "chosen", "hardest", "drift", "pairs", "time")
_NARROW = ("round", "verdict", "right", "gain", "p", "yes", "hardest", "time")  # what fits 80 columns; the page has them all
_WIDE = 125  # columns of a terminal that holds all


async def loop_with_progress(profile: str, overrides: Mapping[str, Any], *, rounds: int, console: Console, width: int) -> RenderableType:
    """Make so many rounds, each a firing as the schedule would make it; returns what to print at the end, for a terminal of `width` columns."""
    plan = open_plan(profile, overrides)
    firing: Firing | None = None
    with bars(console):
        for _ in range(rounds):
            ended = await self_guided(profile, dict(overrides), return_state=True)
            firing = cast(Firing, await ended.aresult())
            if firing.stopped:
                break
    folder = await _folder(plan, profile)
    names = _SHOWN if width >= _WIDE else _NARROW
    table = Table(
        *(Column(name, overflow="fold") for name in names), title=Text(f"Self-guided loop of {folder.name}: the accepted student is {folder.accepted.label}")
    )
    rows = history(folder)
    for row in rows:
        table.add_row(*(str(row[name]) for name in names))
    reasons = [Text(f"round {row['round']} was reverted: {row['why']}") for row in rows if row["why"]]
    stopped = [Text(f"The loop ended itself: {firing.stopped}")] if firing and firing.stopped else []
    return Group(table, *reasons, *stopped, Text(f"page: {folder.path}/{PAGE}" if rows else "no round yet"))


async def point(profile: str, overrides: Mapping[str, Any], *, target: str | None) -> str:
    """Promote `target`, or roll back where it is None; says where the pointer stands."""
    folder = await _folder(open_plan(profile, overrides), profile)
    move = promote(folder, target) if target is not None else roll_back(folder)
    return f"{folder.name} now follows {move.label} ({move.adapter.path})"


async def _folder(plan: Plan, profile: str) -> LoopFolder:
    """The profile's loop, as its trained students name it. Raises ArtifactError where they are not trained yet."""
    found = await stored(plan, profile)
    if found is None:
        where = f"{plan.context.root.path.absolute()} holds no trained student of {profile} for these settings"
        raise ArtifactError(f"{where}, so it has no loop; run socratune loop {profile} first, with the same --set")
    return LoopFolder(plan.context.root, plan.profile.name, found[1].adapters[plan.recipe.loop.start])
