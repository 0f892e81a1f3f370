"""Predict stage: one model's answers to one split, under each arm it is read in."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.contracts.artifacts import ModelRef, TableRef, read_rows, write_rows
from tasks.contracts.jobs import AnswerStep
from tasks.contracts.recipes import Student
from tasks.contracts.rows import Arm, Completion, Drafted, Prediction, Request
from tasks.logic.asking import arm_requests, predictions
from tasks.logic.benchmarks import get_benchmark
from tasks.stage import Table, Work, table_stage


@table_stage("predict", version=2, run_name="predict {model} on {split}")
async def predict(
    work: Work,
    *,
    model: str,
    split: str,
    questions: TableRef[Drafted],
    student: ModelRef,
    adapter: ModelRef | None,
    arms: Mapping[str, int],
    benchmark: str,
    max_new_tokens: int,
    allow: tuple[str, ...],
    numbers: Student,
    seed: int,
) -> Table[Prediction]:
    """Greedy answers; `arms` says how many questions each arm reads, 0 = all. A reading of a test split goes into the register."""
    wording = get_benchmark(benchmark)
    rows = work.root.read(questions, Drafted)
    requests = [request for arm, size in arms.items() for request in arm_requests(rows[: size or None], arm=Arm(arm), benchmark=wording)]
    write_rows(work.folder / "requests.parquet", requests, Request)
    step = AnswerStep(
        name=f"{model} on {split}",
        weights=work.weights(student, adapter, numbers),
        requests="requests.parquet",
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        allow=allow,
        seed=seed,
        machine=work.machine,
        out="completions.parquet",
    )
    (done,) = await work.run(step)
    made = predictions(rows, read_rows(work.folder / done.out, Completion), model=model, benchmark=wording)
    if split == "test":
        work.root.register_test_read({"model": model, "arms": dict(arms), "questions": questions.digest, "key": work.address.key})
    return Table(made, Prediction, done.summary)
