"""Regressions planted into rounds of a loop: each is reverted for its own reason, and the next round starts from the right student.

The base student knows its questions by heart, so that there is something to lose. The trainer alone is swapped: all else of a round is real.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from flows import self_guided as loop_flow
from flows.cli import app
from flows.plan import open_plan
from flows.self_guided import self_guided
from tasks.align import align
from tasks.contracts.artifacts import Address, ModelRef, read_rows, write_rows
from tasks.contracts.jobs import Job, SftStep
from tasks.contracts.outcomes import Firing
from tasks.contracts.recipes import Lora, Sft
from tasks.contracts.rounds import Round
from tasks.contracts.rows import Example, Question
from tasks.logic.benchmarks import pocketqa, yes_no
from tasks.training.launch import run_job
from tests.flows.pipeline import PROFILE, PROJECT, Pipeline, wait_for
from tests.schooled_student import school
from tests.training.jobs import MACHINE, weights

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
DEV = 20
REASONING = "So it is."
CHANGES: dict[str, Any] = {
    "recipe.sample.train": 24, "recipe.sample.dev": DEV, "recipe.grade.controls": [], "recipe.curate.max_shift": 0.5,
    "recipe.loop.explore.samples": 3, "recipe.loop.explore.extra_samples": 0, "recipe.loop.explore.temperature": 2.0,
    "recipe.loop.gate": {
        "min_gain": -0.05, "worse_p": 0.1, "max_yes_shift": 0.15, "max_unparsed": 0.01, "max_length_change": 0.5, "min_chosen_log_ratio": -9.0,
        "max_hard_loss": 0.15, "max_drift": 99.0, "drift_questions": 2,
    },
    "recipe.loop.stop.rejections": 9,
}  # fmt: skip
FLIPPED, LONG, ONLY_NO = "labels flipped", "three times longer", "only no"


def said(row: Question, fault: str = "") -> str:
    answer = {FLIPPED: "no" if row.answer == "yes" else "yes", ONLY_NO: "no"}.get(fault, row.answer)
    reasoning = " ".join([REASONING] * (4 if fault == LONG else 1))
    return f"{reasoning}\nFinal answer: {answer.title()}"


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return [row for split, size in (("train", 24), ("dev", DEV)) for row in pocketqa.sample(split=split, n=size, seed=0)]


@pytest.fixture(scope="module")
def student(questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lessons = [(yes_no.reasoning_prompt(row.question), said(row) + "<|stop|>") for row in questions]
    return school(tmp_path_factory.mktemp("student"), lessons, steps=400, batch=16)


@pytest.fixture(scope="module")
def plant(student: Path, questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Trains an adapter that has a fault."""

    def make(fault: str) -> Path:
        folder = tmp_path_factory.mktemp("planted")
        rows = [
            Example(
                qid=row.qid, arm="reasoning", prompt=yes_no.reasoning_prompt(row.question), completion=said(row, fault), answer=row.answer,
                weight=1.0, verdict_factor=1.0, reasoning_factor=1.0,
            )
            for row in questions
        ]  # fmt: skip
        write_rows(folder / "examples.parquet", rows, Example)
        recipe = Sft(
            init="base", reasoning="completion", epochs=30, learning_rate=3e-3, warmup=0.0, effective_batch=8, max_length=512, verdict_weight=8.0,
            track_a=None, direct_weight=0.0, counterfactual_weight=0.0, select_questions=0, lora=Lora(rank=16, alpha=32, dropout=0.0, targets="all-linear"),
        )  # fmt: skip
        step = SftStep(
            name="plant", weights=weights(student, quantization="nf4"), examples="examples.parquet", exams=None, exam_max_new_tokens=1, recipe=recipe,
            steps=None, tokens=None, allow=("class_balance",), seed=0, machine=MACHINE.model_copy(update={"batch_tokens": 1024}), out="adapter",
        )  # fmt: skip
        run_job(Job(steps=(step,)), folder, on_progress=lambda each: None)
        return folder / "adapter"

    return make


@pytest.fixture(scope="module")
def pipeline(prefect_server: None, student: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    from prefect.settings import PREFECT_API_URL

    return Pipeline(root=tmp_path_factory.mktemp("root"), student=student, environment={"PREFECT_API_URL": PREFECT_API_URL.value()}, changes=CHANGES)


def said_by(pipeline: Pipeline, command: str, *arguments: str) -> str:
    """What a command prints, on one line."""
    words = pipeline.command(until="report", changes={})
    environment = {**pipeline.whole_environment(), "COLUMNS": "160", "NO_COLOR": "1"}
    done = CliRunner().invoke(app, [command, str(PROFILE), *arguments, *words[words.index("--set") :]], env=environment)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_each_regression_is_reverted_for_its_reason(pipeline: Pipeline, plant: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {**CHANGES, "execution.root": str(pipeline.root), "recipe.student.model": str(pipeline.student)}
    root = open_plan(str(PROFILE), changes).context.root

    async def fire(fault: str) -> Firing:
        async def train(run: Any, **arguments: Any) -> ModelRef:
            parent: ModelRef = arguments["track_b"]
            address = Address(stage="align", version=0, recipe=fault, inputs={"parent": parent.digest})
            return root.save_model(address, plant(fault), base=parent.base, summary={}, seconds=0.0)

        monkeypatch.setattr(loop_flow, "align", train if fault else align)
        return cast(Firing, await (await self_guided(str(PROFILE), changes, return_state=True)).aresult())

    honest, flipped, long, only_no = (asyncio.run(fire(fault)) for fault in ("", FLIPPED, LONG, ONLY_NO))
    assert honest.verdict == "accepted", honest.reasons
    assert [each.verdict for each in (flipped, long, only_no)] == ["reverted"] * 3
    assert {each.accepted for each in (honest, flipped, long, only_no)} == {"round 1"}
    assert any("accuracy" in reason for reason in flipped.reasons)
    assert long.reasons
    assert all("token" in reason for reason in long.reasons)
    assert any("yes" in reason for reason in only_no.reasons)
    rounds = rounds_of(pipeline)
    assert [each.parent for each in rounds[1:]] == ["start", "round 1", "round 1", "round 1"]
    assert len({each.seed for each in rounds}) == 5
    assert all((pipeline.root / each.student / "artifact.json").is_file() for each in rounds)


def rounds_of(pipeline: Pipeline) -> list[Round]:
    (path,) = pipeline.root.glob("data/loops/*/rounds.parquet")
    return read_rows(path, Round)


def test_a_killed_round_goes_on_where_it_was(pipeline: Pipeline) -> None:
    command = pipeline.command(until="report", changes={})
    firing = [*command[:3], "loop", str(PROFILE), *command[command.index("--set") :]]
    process = subprocess.Popen(firing, cwd=PROJECT, env=pipeline.whole_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    tables = len(list(pipeline.root.glob("data/pair-round/*/artifact.json")))
    wait_for(lambda: len(list(pipeline.root.glob("data/pair-round/*/artifact.json"))) > tables or process.poll() is not None)
    process.kill()
    process.wait()
    made = pipeline.made_at()
    assert len(rounds_of(pipeline)) == 5
    assert "round 5" not in said_by(pipeline, "loop", "--rounds", "0")
    pipeline.changes["recipe.loop.stop.max_rounds"] = 5
    assert "The loop ended itself: 5 rounds made" in said_by(pipeline, "loop")
    assert made.items() <= pipeline.made_at().items()
    last = rounds_of(pipeline)[-1]
    assert (last.number, last.parent) == (5, "round 1")


def test_a_loop_that_ended_itself_makes_no_round_and_a_person_may_go_on(pipeline: Pipeline) -> None:
    assert "The loop ended itself" in said_by(pipeline, "loop")
    assert len(rounds_of(pipeline)) == 6
    pipeline.changes |= {"recipe.loop.stop.max_rounds": 9, "execution.loop.round_minutes": 0.001}
    assert "round 6 was reverted: given up after 0.001 minutes (execution.loop.round_minutes)" in said_by(pipeline, "loop")
    assert "now follows round 3" in said_by(pipeline, "promote", "3")
    assert "Answering: round 3" in said_by(pipeline, "ask", "Is it so?")
    held = said_by(pipeline, "rollback")
    assert "now follows round 3" not in held
    assert "now follows" in held
