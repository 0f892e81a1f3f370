"""The audit of what a run has stored: the taught table and the curated corpus, read and not made again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.flows.pipeline import PROJECT, Pipeline

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def test_a_stored_run_is_audited_from_its_tables_without_a_network(pipeline: Pipeline) -> None:
    pipeline.run(until="teach", changes={"recipe.curate.max_shift": 0.5})
    before = {path: path.stat().st_mtime_ns for path in pipeline.root.rglob("artifact.json")}
    blocked = "import sys; sys.addaudithook(lambda event, _: sys.exit('network') if event in ('socket.connect', 'socket.getaddrinfo') else None);"
    command = pipeline.command(until="teach", changes={"recipe.curate.max_shift": 0.5})
    arguments = ["audit", *(part for part in command[4:] if part not in ("--until", "teach"))]
    code = f"{blocked} from flows.cli import app; sys.argv[0] = 'socratune'; app()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=PROJECT, env=pipeline.whole_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (page,) = pipeline.root.glob("data/audit/*/audit.json")
    read = json.loads(page.read_text(encoding="utf-8"))
    (teacher,) = read["teachers"]
    assert (teacher["kind"], teacher["questions"], teacher["replies"]) == ("taught", 24, 48)
    (record,) = (json.loads(path.read_text(encoding="utf-8")) for path in pipeline.root.glob("data/curate/*/artifact.json"))
    assert read["class_shares"] == record["summary"]["filters"]
    assert {path: path.stat().st_mtime_ns for path in pipeline.root.rglob("artifact.json")} == before
