"""Ask a finished student questions, in one child process that loads it once and ends with the answers. No stage: nothing of it is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.contracts.artifacts import ModelRef, TableRef, read_rows
from tasks.contracts.jobs import ConsultStep, Job, Machine, Weights
from tasks.contracts.recipes import Recipe
from tasks.contracts.rows import Arm, Completion, Question
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.consulting import Consultation, consultation, far_from, question_of
from tasks.stage import Context

__all__ = ["Consultation", "ask_student", "question_of"]


def ask_student(
    context: Context,
    *,
    recipe: Recipe,
    student: ModelRef,
    drafter: ModelRef,
    adapter: ModelRef,
    train: TableRef[Question],
    questions: Sequence[str],
    hear: Callable[[str], None],
) -> list[Consultation]:
    """Of each question the drafter's draft, the student's rewrite of it and its direct answer. `hear` is told how far it is.

    A question whose words occur in none of `train` comes with a warning.

    Where the profile trained no rewrites (recipe.pair.arms), the reasoning without a draft, which it did train, is shown as well.
    Raises DataError for a question that is empty, no Unicode, or longer than the student reads.
    """
    from tasks.training.launch import run_job

    asked = [question_of(question) for question in questions]
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
        questions=tuple(each.question for each in asked),
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
    trained, replies = [row.question for row in context.root.read(train, Question)], len(completions) // len(asked)
    return [
        consultation(each, completions[place * replies : (place + 1) * replies], benchmark=get_benchmark(recipe.benchmark), warning=far_from(each, trained))
        for place, each in enumerate(asked)
    ]
