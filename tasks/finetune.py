"""Finetune stage: QLoRA SFT of one track."""

from __future__ import annotations

from tasks.contracts.artifacts import ModelRef, TableRef, write_rows
from tasks.contracts.jobs import SftStep
from tasks.contracts.recipes import Sft, Student, Track
from tasks.contracts.rows import Curated, Example
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.examples import sft_examples, training_length
from tasks.stage import Context, Model, Work, model_stage


@model_stage("finetune", version=2, run_name="finetune {track}")
async def finetune(
    work: Work,
    *,
    track: Track,
    curated: TableRef[Curated],
    student: ModelRef,
    init: ModelRef | None,
    matched: ModelRef | None,
    benchmark: str,
    recipe: Sft,
    numbers: Student,
    seed: int,
) -> Model:
    """An adapter trained on the track's examples, from the base or from `init`; as long as `matched` was trained, where the track says so."""
    rows = work.root.read(curated, Curated)
    examples = sft_examples(rows, track=track, benchmark=get_benchmark(benchmark), direct_weight=recipe.direct_weight, seed=seed)
    write_rows(work.folder / "examples.parquet", examples, Example)
    length = training_length(track, work.root.record(matched)["summary"] if matched else {})
    step = SftStep(
        name=track,
        weights=work.weights(student, init, numbers),
        examples="examples.parquet",
        recipe=recipe,
        steps=length.steps,
        tokens=length.tokens,
        seed=seed,
        machine=work.machine,
        out="adapter",
    )
    (done,) = await work.run(step)
    return Model(work.folder / "adapter", base=student.path, summary={"examples": len(examples), **done.summary})


def steps_of(context: Context, trained: ModelRef) -> int:
    """Optimiser steps that an adapter was trained for."""
    return int(context.root.record(trained)["summary"]["steps"])
