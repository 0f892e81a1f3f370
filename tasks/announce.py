"""Tell Prefect what a firing of a self-guided loop came to: artifacts, an event, the run's final state; and pause the schedule of a loop that ended itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact, acreate_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.runtime import deployment
from prefect.states import Completed

from tasks.contracts.loops import LoopFolder
from tasks.contracts.outcomes import Firing
from tasks.logic.report.loop_page import loop_markdown
from tasks.logic.report.loop_words import loop_rows


async def announce(folder: LoopFolder, firing: Firing, *, profile: str, overrides: Mapping[str, Any]) -> None:
    """The history as artifacts of the run; an event `socratune.loop.accepted`, `.reverted`, `.skipped` or `.stopped`; a stopped loop's schedule is paused."""
    rounds = folder.rounds
    told = f"Rounds of {folder.name}: the accepted student is {firing.accepted}"
    await acreate_table_artifact(key="self-guided-rounds", table=loop_rows(rounds), description=told)
    await acreate_markdown_artifact(key="self-guided", markdown=loop_markdown(rounds, stopped=firing.stopped), description=told)
    await acreate_link_artifact(key="self-guided-page", link=f"file://{firing.page}", link_text="loop.html", description=told)
    for event in dict.fromkeys([firing.verdict, *(["stopped"] if firing.stopped else [])]):
        emit_event(
            event=f"socratune.loop.{event}",
            resource={"prefect.resource.id": f"socratune.loop.{folder.path.name}", "prefect.resource.name": folder.name},
            payload={**firing.model_dump(mode="json"), "profile": profile, "overrides": json.dumps(dict(overrides))},
        )
    if firing.stopped and deployment.id:
        await _pause(UUID(str(deployment.id)))


def final_state(firing: Firing) -> State[Firing]:
    """The flow run's state in the UI: Accepted, Reverted, Skipped or Stopped, and why."""
    why = "; ".join(firing.reasons) or {"accepted": f"the accepted student is {firing.accepted}", "skipped": "a round was made since this firing was due"}.get(
        firing.verdict, ""
    )
    stopped = f"the loop ended itself: {firing.stopped}" if firing.stopped else ""
    return Completed(name=firing.verdict.capitalize(), message="; ".join(part for part in (why, stopped) if part), data=firing)


async def _pause(deployment_id: UUID) -> None:
    """Switch the deployment's own schedules off; they can be switched on again in the UI."""
    async with get_client() as client:
        for schedule in await client.read_deployment_schedules(deployment_id):
            if schedule.active:
                await client.update_deployment_schedule(deployment_id, schedule.id, active=False)
