"""The teach flow through real Prefect: shards, failed rows, plans without a network, and a run repeated from an exported ledger."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterName

from tasks.gateways.simulated_faults import Fault
from tasks.gateways.simulated_server import SimulatedServer, serve_simulated
from tasks.logic.teaching import shards
from tests.flows.pipeline import PROJECT, Pipeline

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
FAULTLESS = {"recipe.sample.train": 24}


@pytest.fixture(scope="module")
def teacher() -> Iterator[tuple[SimulatedServer, str]]:
    server = SimulatedServer(error_rate=0.0, no_bias=0.0)
    with serve_simulated(server) as url:
        yield server, url


def test_a_plan_foresees_calls_and_dollars_and_touches_neither_network_nor_disk(pipeline: Pipeline) -> None:
    blocked = "import sys; sys.addaudithook(lambda event, _: sys.exit('network') if event in ('socket.connect', 'socket.getaddrinfo') else None);"
    code = f"{blocked} from flows.cli import app; sys.argv[0] = 'socratune'; app()"
    command = pipeline.command(until="teach", changes=FAULTLESS)
    arguments = ["plan", *(part for part in command[4:] if part not in ("--until", "teach"))]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=PROJECT, env=pipeline.whole_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 of 48 replies are in the ledger already" in done.stderr  # 24 questions, 2 samples
    assert "execution.teacher.price" in done.stderr
    assert not list(pipeline.root.rglob("*"))


def test_shards_are_tasks_and_rows_that_fail_are_asked_again_alone(pipeline: Pipeline, teacher: tuple[SimulatedServer, str]) -> None:
    server, _ = teacher
    changes: dict[str, Any] = {**FAULTLESS, "execution.teacher.shard": 10, "execution.teacher.max_in_flight": 1}
    server.faults = dict.fromkeys(range(48, 51), Fault(status=500))  # all three tries: whichever question is the last gets no reply
    said = pipeline.failed(until="teach", changes={**changes, "execution.teacher.max_failed_share": 0.0})
    assert "1 of 48 questions got no reply" in said
    assert "only these are asked then" in said
    server.faults = {}
    calls = server.calls
    pipeline.run(until="teach", changes=changes)
    assert server.calls == calls + 1
    (record,) = (json.loads(path.read_text()) for path in pipeline.root.glob("data/teach/*/artifact.json"))
    assert (record["partial"], record["summary"]["outcomes"]["ok"]) == (False, 48)
    pipeline.run(until="teach", changes=changes)
    assert server.calls == calls + 1


async def test_the_ui_shows_shards_the_estimate_and_the_progress(pipeline: Pipeline) -> None:
    async with get_client() as client:
        runs = await client.read_task_runs(task_run_filter=TaskRunFilter(name=TaskRunFilterName(like_="ask ")), limit=200)
        artifacts = await client.read_artifacts(limit=200)
    assert {"ask 1 to 9", "ask 10 to 19", "ask 39 to 48"} <= {run.name for run in runs}
    asked = next(run for run in runs if run.name == "ask 39 to 48" and run.end_time)
    assert asked.end_time - asked.start_time > timedelta(milliseconds=5)  # the work is inside the task, not after it
    (estimate,) = (artifact for artifact in artifacts if artifact.key == "teacher-estimate" and "47 of 48" in (artifact.description or ""))
    assert {line["case"] for line in json.loads(estimate.data)} == {"low", "expected", "high"}
    assert "execution.teacher.price" in estimate.description


def test_200_000_questions_make_a_few_hundred_tasks() -> None:
    pieces = shards(200_000, size=500)
    assert len(pieces) == 400
    assert [first for first, _ in pieces[1:]] == [end for _, end in pieces[:-1]]
    assert (pieces[0][0], pieces[-1][1]) == (0, 200_000)
    assert {end - first for first, end in pieces} == {500}


def test_an_exported_ledger_repeats_the_run_with_neither_key_nor_network(pipeline: Pipeline, teacher: tuple[SimulatedServer, str], tmp_path: Path) -> None:
    server, _ = teacher
    export = tmp_path / "replies.parquet"
    ledger = pipeline.root / "data" / "ledger.sqlite"
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "ledger", "export", str(export), "--ledger", str(ledger)], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout)["rows"] == 48
    calls = server.calls
    elsewhere = Pipeline(
        root=tmp_path / "root",
        student=pipeline.student,
        environment={key: value for key, value in pipeline.environment.items() if not key.startswith("OPENAI")},
        changes={**pipeline.changes, "recipe.teacher.kind": "recorded", "recipe.teacher.recordings": [str(export)], "execution.teacher.price": None},
    )
    elsewhere.run(until="teach", changes=FAULTLESS)
    assert server.calls == calls
    (record,) = (json.loads(path.read_text()) for path in elsewhere.root.glob("data/teach/*/artifact.json"))
    assert record["summary"]["outcomes"]["ok"] == 48
