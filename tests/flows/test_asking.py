"""What the teach flow asks, counted by the teacher: chosen questions, a teacher without questions, more samples, checks of the reasoning."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from tasks.contracts.artifacts import Address, ArtifactRoot, TableRef, read_rows
from tasks.contracts.profiles import load_profile
from tasks.contracts.rows import Drafted, Taught
from tasks.gateways.simulated_server import SimulatedServer
from tasks.stage import Context
from tasks.teach import teach
from tests.flows.pipeline import PROFILE, PROJECT, Pipeline
from tests.logic.rows_of import drafted, questions

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
SAMPLES, RESAMPLES, CHOSEN = 1, 3, 12  # half of the 24 train questions
HALF = {"recipe.teacher.select": "uncertain", "recipe.teacher.select_share": 0.5}
ALL_OF_IT: dict[str, Any] = {
    **HALF,
    "recipe.teacher.samples": SAMPLES,
    "recipe.teacher.ask": False,
    "recipe.curate.disagreement": "resample",
    "recipe.curate.resamples": RESAMPLES,
    "recipe.curate.validate_with": "teacher",
    "recipe.curate.max_shift": 1.0,
}


def made(pipeline: Pipeline, stage: str) -> list[dict[str, Any]]:
    """Records of a stage's artifacts with their folder, in the order in which they were made."""
    paths = pipeline.root.glob(f"data/{stage}/*/artifact.json")
    return sorted(({**json.loads(path.read_text()), "folder": path.parent} for path in paths), key=lambda record: record["created_at"])


def table(folder: Path, row_type: type) -> list[Any]:
    return [row for part in sorted(folder.glob("part-*.parquet")) for row in read_rows(part, row_type)]


def planned(pipeline: Pipeline, changes: dict[str, Any]) -> str:
    command = pipeline.command(until="teach", changes=changes)
    arguments = [*command[:3], "plan", *(part for part in command[4:] if part not in ("--until", "teach"))]
    done = subprocess.run(arguments, cwd=PROJECT, env=pipeline.whole_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stderr.split())


def test_a_plan_counts_the_chosen_questions_what_follows_them_and_the_checks(pipeline: Pipeline) -> None:
    told = planned(pipeline, ALL_OF_IT)
    first, again = CHOSEN * SAMPLES, CHOSEN * RESAMPLES
    assert f"0 of {first} replies are in the ledger already" in told
    assert f"asking again: 0 for sure, and none, 20% or all of {again} more" in told
    assert f"or {2 * (first + again)} more" in told
    assert "12 questions are asked about, 50% of them all" in told


def test_only_chosen_questions_are_asked_again_where_wrong_and_checked_where_right(pipeline: Pipeline, teacher: tuple[SimulatedServer, str]) -> None:
    server, _ = teacher
    pipeline.run(until="teach", changes=ALL_OF_IT)
    (select,), (teach,) = made(pipeline, "select"), made(pipeline, "teach")
    chosen = [row.qid for row in table(select["folder"], Drafted)]
    assert len(chosen) == CHOSEN
    assert sum(select["summary"]["chosen"].values()) == sum(select["summary"]["left"].values()) == CHOSEN
    rows: list[Taught] = table(teach["folder"], Taught)
    assert [row.qid for row in rows[: CHOSEN * SAMPLES : SAMPLES]] == chosen
    assert not any(row.asked or row.answered or row.hinted for row in rows)
    settled = {row.qid for row in rows[: CHOSEN * SAMPLES] if row.verdict == row.answer}
    assert 0 < len(settled) < CHOSEN
    samples = Counter(row.qid for row in rows)
    assert samples == {qid: SAMPLES + (0 if qid in settled else RESAMPLES) for qid in chosen}
    assert {row.sample for row in rows[CHOSEN * SAMPLES :]} == set(range(SAMPLES, SAMPLES + RESAMPLES))
    right = [row for row in rows if row.verdict == row.answer]
    assert all((row.recovered, row.unmoved) == (row.verdict, "unparsed") for row in right)
    assert all((row.recovered, row.unmoved) == ("", "") for row in rows if row.verdict != row.answer)
    assert teach["summary"]["resampled"] == len(rows) - CHOSEN * SAMPLES
    assert (teach["summary"]["checked"], teach["summary"]["recovered"], teach["summary"]["unmoved"]) == (len(right), len(right), 0)
    assert server.calls == teach["summary"]["usage"]["calls"] <= len(rows) + 2 * len(right)  # equal reasoning is checked once


def test_what_was_asked_and_checked_is_found_in_the_ledger(pipeline: Pipeline, teacher: tuple[SimulatedServer, str]) -> None:
    calls = teacher[0].calls
    told = planned(pipeline, {**ALL_OF_IT, "recipe.teacher.attempts": 3})  # another table of the same asks
    assert f"{calls} of {calls} replies are in the ledger already" in told
    assert "checks of reasoning: 0 for sure, and none, 0 or 0 more" in told


def test_disagreement_samples_drafts_and_asks_about_those_that_differ(pipeline: Pipeline) -> None:
    pipeline.run(until="teach", changes={**HALF, "recipe.teacher.select": "disagreement", "recipe.curate.max_shift": 1.0})
    select, teach = made(pipeline, "select")[-1], made(pipeline, "teach")[-1]
    assert 0 <= select["summary"]["scores"]["min"] <= select["summary"]["scores"]["max"]
    assert {row.qid for row in table(teach["folder"], Taught)} == {row.qid for row in table(select["folder"], Drafted)}


@flow(name="teach-from-a-recording")
async def taught_from(folder: str, recording: str) -> tuple[TableRef[Taught], dict[str, Any]]:
    """Teach four questions whose recorded replies are all wrong; a second sample of the first question is recorded and right."""
    rows = [drafted(question) for question in questions(4)]
    lines = [{"qid": row.qid, "reasoning": "It is so.", "answer": {"yes": "no", "no": "yes"}[row.answer]} for row in rows]
    lines.append({"qid": rows[0].qid, "reasoning": "It is not so.", "answer": rows[0].answer, "sample": 1})
    Path(recording).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    changes = {"recipe.teacher.kind": "recorded", "recipe.teacher.samples": 1, "recipe.teacher.recordings": [recording]}
    profile = load_profile(str(PROFILE), folder=PROJECT, overrides=changes)
    context = Context(root=ArtifactRoot(Path(folder)), execution=profile.execution)
    stored = context.root.save_table(Address(stage="draft", version=1, recipe={}, inputs={}), rows, Drafted, summary={}, seconds=0.0)
    ref = await teach(
        context, drafted=stored, benchmark="pocketqa", recipe=profile.recipe.teacher, recordings=(Path(recording),),
        rationalise=False, resamples=2, validate=False, seed=0,
    )  # fmt: skip
    return ref, context.root.record(ref)


@pytest.mark.usefixtures("prefect_server")
async def test_samples_that_were_not_recorded_fail_their_rows_and_not_the_run(tmp_path: Path) -> None:
    ref, record = await taught_from(str(tmp_path), str(tmp_path / "replies.jsonl"))
    outcomes = [(row.sample, row.outcome) for row in ArtifactRoot(tmp_path).read(ref, Taught)]
    assert outcomes == [(0, "ok")] * 4 + [(1, "ok"), (2, "failed")] + [(1, "failed"), (2, "failed")] * 3
    assert not record["partial"]  # asking again would not mend it
