"""The judge stage through real Prefect and a real server: what is asked, what is paid again, and a judge that reads only the order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from tasks.contracts.artifacts import Address, ArtifactRoot, TableRef
from tasks.contracts.failures import DataError, TeacherRefused, TeacherUnavailable
from tasks.contracts.profiles import load_profile
from tasks.contracts.rows import Judgement, Prediction
from tasks.gateways.simulated_faults import Fault
from tasks.gateways.simulated_server import SimulatedServer, serve_simulated
from tasks.judge import judge
from tasks.stage import Context
from tests.flows.pipeline import PROFILE, PROJECT
from tests.logic.rows_of import BENCHMARK, prediction, questions

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]
PRICE = {"input": 1.0, "cached_input": None, "output": 2.0}
PAID = {"recipe.judge.kind": "openai", "recipe.judge.model": "my-judge", "execution.teacher.price": PRICE, "execution.teacher.tries": 1}
QUESTIONS = 12


def chains(model: str, *, vague: bool) -> list[Prediction]:
    """Reasoning chains on the same questions: some models ask about what is asked, some ask about nothing in particular."""
    rows = []
    for question in questions(QUESTIONS):
        said = BENCHMARK.template_rationale(question)
        asked = ("What is known?",) if vague else said.asked
        text = BENCHMARK.completion(asked=asked, answered=said.answered, reasoning=said.reasoning, answer=question.answer)
        rows.append(replace(prediction(question, model=model, arm="reasoning", verdict=question.answer), text=text))
    return rows


@flow(name="judged")
async def judged(folder: str, changes: dict[str, Any], new: list[dict[str, Any]], old: list[dict[str, Any]]) -> tuple[TableRef[Judgement], dict[str, Any]]:
    profile = load_profile(str(PROFILE), folder=PROJECT, overrides={"recipe.judge.questions": 0, **changes})
    context = Context(root=ArtifactRoot(Path(folder)), execution=profile.execution)
    stored = [save(context.root, rows) for rows in (new, old)]
    labels = profile.recipe.judge.labels
    ref = await judge(
        context, new=stored[0], old=stored[1], arm="reasoning", benchmark="pocketqa", recipe=profile.recipe.judge,
        labels=Path(labels) if labels else None, teacher="simulated-gpt-4", resamples=500, seed=0,
    )  # fmt: skip
    return ref, context.root.record(ref)["summary"]


def save(root: ArtifactRoot, rows: list[dict[str, Any]]) -> TableRef[Prediction]:
    plain = [{**row, "margin": 0.0} for row in rows]  # what has no stable form makes no address
    address = Address(stage="predict", version=1, recipe=plain, inputs={})
    return root.save_table(address, [Prediction(**row) for row in plain], Prediction, summary={}, seconds=0)


async def run(folder: Path, changes: dict[str, Any], *, swapped: bool = False) -> tuple[list[Judgement], dict[str, Any]]:
    new, old = chains("aligned", vague=swapped), chains("track_b", vague=not swapped)
    ref, summary = await judged(str(folder), changes, [vars(row) for row in new], [vars(row) for row in old])
    return ArtifactRoot(folder).read(ref, Judgement), summary


async def test_the_better_questions_win_whoever_wrote_them(tmp_path: Path) -> None:
    rows, summary = await run(tmp_path, {"recipe.judge.kind": "simulated"})
    evidence = summary["evidence"]
    assert (len(rows), evidence["n"], summary["pairs"]["asked"]) == (QUESTIONS, QUESTIONS, QUESTIONS)
    assert evidence["wins"] > 2 * QUESTIONS // 3
    assert evidence["verdict"] == "underpowered"  # twelve questions prove nothing, whatever the net
    assert (evidence["judge"], summary["arm"], summary["usage"]["calls"]) == ("simulated-judge", "reasoning", 2 * QUESTIONS)
    _, turned = await run(tmp_path, {"recipe.judge.kind": "simulated"}, swapped=True)
    assert turned["evidence"]["losses"] > 2 * QUESTIONS // 3


async def test_a_judge_that_reads_only_the_order_is_declared_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = SimulatedServer(error_rate=0.0, no_bias=0.0, position_bias=1.0)
    with serve_simulated(server) as url:
        answer_from(url, monkeypatch)
        _, summary = await run(tmp_path, PAID)
    assert (summary["evidence"]["inconsistent"], summary["evidence"]["usable"], summary["evidence"]["net"]) == (1.0, False, 0.0)
    assert summary["evidence"]["judge"] == "my-judge"


async def test_a_resumed_judge_pays_only_for_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = SimulatedServer(error_rate=0.0, no_bias=0.0, faults=dict.fromkeys(range(20, 25), Fault(status=500)))
    changes = {**PAID, "execution.teacher.max_in_flight": 1}
    with serve_simulated(server) as url:
        answer_from(url, monkeypatch)
        with pytest.raises(TeacherUnavailable, match="5 of 24 questions got no reply"):
            await run(tmp_path, {**changes, "execution.teacher.max_failed_share": 0.1})
        rows, summary = await run(tmp_path, {**changes, "execution.teacher.max_failed_share": 0.5})
        assert (summary["usage"]["calls"], summary["usage"]["cached"], server.calls) == (5, 19, 29)
        assert server.stats()["duplicates"] == 0
        assert summary["usage"]["usd"] > 0
        again, _ = await run(tmp_path, changes)
        assert (again, server.calls) == (rows, 29)


async def test_a_reply_that_never_came_is_asked_for_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = SimulatedServer(error_rate=0.0, no_bias=0.0, faults={24: Fault(status=500)})
    changes = {**PAID, "execution.teacher.max_in_flight": 1, "execution.teacher.max_failed_share": 0.5}
    with serve_simulated(server) as url:
        answer_from(url, monkeypatch)
        _, summary = await run(tmp_path, changes)
        assert summary["evidence"]["unparsed"] == 1
        _, summary = await run(tmp_path, changes)
    assert (summary["evidence"]["unparsed"], server.calls) == (0, 25)


async def test_a_person_labels_the_file_that_the_run_wrote_and_nothing_is_asked_again(tmp_path: Path) -> None:
    _, summary = await run(tmp_path, {"recipe.judge.kind": "simulated"})
    path = tmp_path / summary["labelling"]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == QUESTIONS
    path.write_text("".join(json.dumps({**row, "winner": "1" if row["set_2"] == ["What is known?"] else "2"}) + "\n" for row in rows), encoding="utf-8")
    _, labelled = await run(tmp_path, {"recipe.judge.kind": "simulated", "recipe.judge.labels": str(path)})
    assert labelled["usage"]["calls"] == 0
    assert labelled["evidence"]["human_n"] == QUESTIONS
    assert labelled["evidence"]["kappa"] is not None
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["winner"]  # a file in use is not written over
    path.write_text('{"qid": "elsewhere", "winner": "1"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="was not judged in this run"):
        await run(tmp_path, {"recipe.judge.kind": "simulated", "recipe.judge.labels": str(path)})


async def test_a_paid_judge_without_a_key_is_refused_before_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(TeacherRefused, match="OPENAI_API_KEY"):
        await run(tmp_path, PAID)


def answer_from(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-test", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
