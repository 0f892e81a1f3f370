"""Ask a finished student one question, in one child process that ends with the answer. No stage: nothing of it is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from tasks.contracts.artifacts import ModelRef, read_rows
from tasks.contracts.jobs import ConsultStep, Job, Machine, Weights
from tasks.contracts.recipes import Recipe
from tasks.contracts.rows import Arm, Completion
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.consulting import Consultation, consultation, question_of
from tasks.stage import Context

__all__ = ["Consultation", "ask_student", "question_of"]


def ask_student(
    context: Context, *, recipe: Recipe, student: ModelRef, drafter: ModelRef, adapter: ModelRef, question: str, hear: Callable[[str], None]
) -> Consultation:
    """The drafter's draft, the student's rewrite of it and its direct answer. `hear` is told how far it is.

    Where the profile trained no rewrites (recipe.pair.arms), the reasoning without a draft, which it did train, is shown as well.
    Raises DataError for a question that is empty, no Unicode, or longer than the student reads.
    """
    from tasks.training.launch import run_job

    asked = question_of(question)
    arms = (Arm.REWRITE,) if Arm.REWRITE in recipe.pair.arms else (Arm.REWRITE, Arm.REASONING)
    numbers = recipe.student

    def weights(model: ModelRef, on_top: ModelRef | None) -> Weights:
        path = str(context.root.absolute(on_top)) if on_top else ""
        return Weights(model=str(context.root.absolute(model)), adapter=path, quantization=numbers.quantization, dtype=numbers.number_format)

    step = ConsultStep(
        name="ask",
        drafter=weights(drafter, None),
        weights=weights(student, adapter),
        benchmark=recipe.benchmark,
        question=asked.question,
        arms=arms,
        draft_max_new_tokens=recipe.draft.max_new_tokens,
        max_new_tokens=recipe.grade.max_new_tokens,
        allow=recipe.guards.allow,
        seed=recipe.seed,
        machine=Machine(**{**context.execution.train.model_dump(), "processes": 1}),
        out="completions.parquet",
    )
    scratch = context.root.path / "data" / ".work"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ask-", dir=scratch) as folder:
        (done,) = run_job(Job(steps=(step,)), Path(folder), on_progress=lambda each: hear(each.note))
        completions = read_rows(Path(folder) / done.out, Completion)
    return consultation(asked, completions, benchmark=get_benchmark(recipe.benchmark))
