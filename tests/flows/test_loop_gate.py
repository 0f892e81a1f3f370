"""Regressions planted into rounds of a loop: each is reverted for its own reason, and the next round starts from the right student.

The base student knows its questions by heart, so that there is something to lose. The trainer alone is swapped: all else of a round is real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import self_guided as loop_flow
from flows.plan import open_plan
from flows.self_guided import self_guided
from tasks.align import align
from tasks.contracts.artifacts import Address, ModelRef, write_rows
from tasks.contracts.jobs import Job, SftStep
from tasks.contracts.loops import LoopFolder
from tasks.contracts.recipes import Lora, Sft
from tasks.contracts.rows import Example, Question
from tasks.logic.benchmarks import pocketqa, yes_no
from tasks.training.launch import run_job
from tests.flows.pipeline import PROFILE
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
            direct_weight=0.0, counterfactual_weight=0.0, select_questions=0, lora=Lora(rank=16, alpha=32, dropout=0.0, targets="all-linear"),
        )  # fmt: skip
        step = SftStep(
            name="plant", weights=weights(student, quantization="nf4"), examples="examples.parquet", exams=None, exam_max_new_tokens=1, recipe=recipe,
            steps=None, tokens=None, allow=("class_balance",), seed=0, machine=MACHINE.model_copy(update={"batch_tokens": 1024}), out="adapter",
        )  # fmt: skip
        run_job(Job(steps=(step,)), folder, on_progress=lambda each: None)
        return folder / "adapter"

    return make


def test_each_regression_is_reverted_for_its_reason(
    prefect_server: None, student: Path, plant: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**CHANGES, "execution.root": str(tmp_path), "recipe.student.model": str(student)}
    plan = open_plan(str(PROFILE), changes)
    planted: dict[str, str] = {}

    async def faulty(fault: str, parent: ModelRef) -> ModelRef:
        address = Address(stage="align", version=0, recipe=fault, inputs={"parent": parent.digest})
        return plan.context.root.save_model(address, plant(fault), base=parent.base, summary={}, seconds=0.0)

    async def fire(fault: str = "") -> Any:
        async def train(run: Any, **arguments: Any) -> ModelRef:
            return await faulty(fault, arguments["track_b"])

        monkeypatch.setattr(loop_flow, "align", train if fault else align)
        return await self_guided(str(PROFILE), changes)

    firings = [asyncio.run(fire(fault)) for fault in ("", FLIPPED, LONG, ONLY_NO)]
    planted = dict(zip(("", FLIPPED, LONG, ONLY_NO), firings, strict=True))
    path = Path(firings[0].folder)
    name, _, _ = path.name.rpartition("-")
    assert planted[""].verdict == "accepted", planted[""].reasons
    assert [each.verdict for each in firings[1:]] == ["reverted"] * 3
    assert {each.accepted for each in firings} == {"round 1"}
    assert any("accuracy" in reason for reason in planted[FLIPPED].reasons)
    assert [reason for reason in planted[LONG].reasons if "token" in reason or "long" in reason] == list(planted[LONG].reasons)
    assert any("yes" in reason for reason in planted[ONLY_NO].reasons)
    folder = LoopFolder(plan.context.root, name, _start(path, plan.context.root.path))
    assert [each.parent for each in folder.rounds[1:]] == ["start", "round 1", "round 1", "round 1"]
    assert len({each.seed for each in folder.rounds}) == 5
    assert all((tmp_path / each.student / "artifact.json").is_file() for each in folder.rounds)
    again = asyncio.run(fire())
    assert folder.rounds[-1].parent == "round 1"
    assert again.round == 5


def _start(path: Path, root: Path) -> ModelRef:
    digest = path.name.rpartition("-")[2]
    return ModelRef(stage="align", key="", digest=digest, path=str(root), base="")
