"""Schedules of prefect.yaml fire: the server can insert the runs that they ask for, and none is switched on by itself."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import IntervalSchedule

from flows.self_guided import self_guided

pytestmark = [pytest.mark.prefect]
DEPLOYMENTS = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
LOOPS = [each for each in DEPLOYMENTS if each["entrypoint"].endswith(":self_guided")]


async def test_a_schedule_becomes_runs_on_the_server(prefect_server: None) -> None:
    async with get_client() as client:
        flow_id = await client.create_flow(self_guided)
        deployment = await client.create_deployment(flow_id, name="scheduled")
        await client.create_deployment_schedules(deployment, [(IntervalSchedule(interval=timedelta(minutes=1)), True)])
        asked = await client._client.post(f"/deployments/{deployment}/schedule", json={"min_runs": 3})  # what the scheduler does every minute
        asked.raise_for_status()
        runs = await client.get_scheduled_flow_runs_for_deployments([deployment])
    assert len({run.next_scheduled_start_time for run in runs}) >= 3


def test_loops_are_paused_until_switched_on_and_never_overlap() -> None:
    assert {each["name"] for each in LOOPS} == {"demo", "pocketqa", "strategyqa-8gb"}
    for each in LOOPS:
        assert [schedule["active"] for schedule in each["schedules"]] == [False]
        assert each["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
