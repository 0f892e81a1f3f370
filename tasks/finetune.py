"""Finetune stage: QLoRA SFT of one track."""

from __future__ import annotations

from tasks.contracts.artifacts import ModelRef, TableRef, write_rows
from tasks.contracts.jobs import SftStep
from tasks.contracts.readings import Examination, Track
from tasks.contracts.recipes import Sft, Student
from tasks.contracts.rows import Arm, Curated, Drafted, Exam, Example, Taught
from tasks.logic.asking import exams
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.examples import counterfactual_examples, sft_examples, training_length
from tasks.stage import Context, Model, Work, model_stage


@model_stage("finetune", version=6, run_name="finetune {track}")
async def finetune(
    work: Work,
    *,
    track: Track,
    curated: TableRef[Curated],
    taught: TableRef[Taught] | None,
    student: ModelRef,
    init: ModelRef | None,
    matched: ModelRef | None,
    dev: TableRef[Drafted] | None,
    exam: Examination | None,
    benchmark: str,
    recipe: Sft,
    allow: tuple[str, ...],
    numbers: Student,
    seed: int,
) -> Model:
    """An adapter trained on the track's examples, from the base or from `init`; as long as `matched` was trained, where the track says so.

    `taught` adds what the teacher argued for the other verdict; `dev` and `exam` choose the epoch by the first `select_questions` of dev.
    """
    rows, wording = work.root.read(curated, Curated), get_benchmark(benchmark)
    examples = sft_examples(rows, track=track, benchmark=wording, reasoning=recipe.reasoning, direct_weight=recipe.direct_weight, seed=seed)
    replies = work.root.read(taught, Taught) if taught else []
    counterfactuals = counterfactual_examples(rows, replies, benchmark=wording, weight=recipe.counterfactual_weight)
    write_rows(work.folder / "examples.parquet", [*examples, *counterfactuals], Example)
    if dev and exam:
        questions = work.root.read(dev, Drafted)[: recipe.select_questions]
        write_rows(work.folder / "exams.parquet", exams(questions, arm=Arm(exam.arm), benchmark=wording), Exam)
    length = training_length(track, work.root.record(matched)["summary"] if matched else {})
    step = SftStep(
        name=track,
        weights=work.weights(student, init, numbers),
        examples="examples.parquet",
        exams="exams.parquet" if exam else None,
        exam_max_new_tokens=exam.max_new_tokens if exam else 0,
        recipe=recipe,
        steps=length.steps,
        tokens=length.tokens,
        allow=allow,
        seed=seed,
        machine=work.machine,
        out="adapter",
    )
    (done,) = await work.run(step)
    return Model(work.folder / "adapter", base=student.path, summary={"counterfactuals": len(counterfactuals), **done.summary})


def steps_of(context: Context, trained: ModelRef) -> int:
    """Optimiser steps that an adapter was trained for."""
    return int(context.root.record(trained)["summary"]["steps"])
