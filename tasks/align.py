"""Align stage: preference training with Cal-DPO / Dr-DPO phases from the Track B adapter."""

from __future__ import annotations

from tasks.contracts.artifacts import ModelRef, TableRef, write_rows
from tasks.contracts.jobs import AlignStep
from tasks.contracts.recipes import Align, Student
from tasks.contracts.rows import Arm, Drafted, Exam, Pair
from tasks.logic.asking import exams
from tasks.logic.benchmarks import get_benchmark
from tasks.stage import Model, Work, model_stage


@model_stage("align", version=5, run_name="align on {pairs.stage}s")
async def align(
    work: Work,
    *,
    pairs: TableRef[Pair],
    student: ModelRef,
    track_b: ModelRef,
    dev: TableRef[Drafted],
    benchmark: str,
    recipe: Align,
    exam_arm: str,
    exam_max_new_tokens: int,
    allow: tuple[str, ...],
    numbers: Student,
    seed: int,
) -> Model:
    """The adapter of the epoch that answers the first `select_questions` of dev best, Track B itself included."""
    write_rows(work.folder / "pairs.parquet", work.root.read(pairs, Pair), Pair)
    questions = work.root.read(dev, Drafted)[: recipe.select_questions]
    write_rows(work.folder / "exams.parquet", exams(questions, arm=Arm(exam_arm), benchmark=get_benchmark(benchmark)), Exam)
    step = AlignStep(
        name="align",
        weights=work.weights(student, track_b, numbers),
        reference=track_b.digest,
        pairs="pairs.parquet",
        exams="exams.parquet",
        exam_max_new_tokens=exam_max_new_tokens,
        recipe=recipe,
        allow=allow,
        seed=seed,
        machine=work.machine,
        out="adapter",
    )
    (done,) = await work.run(step)
    return Model(work.folder / "adapter", base=student.path, summary={"pairs": pairs.rows, **done.summary})
