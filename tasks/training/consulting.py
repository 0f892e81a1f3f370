"""Answer questions of a person's own: draft each, then rewrite the drafts, with the network loaded once where student and drafter share it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import write_rows
from tasks.contracts.failures import DataError
from tasks.contracts.jobs import ConsultStep
from tasks.contracts.rows import Completion, Request
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.consulting import following, opening, question_of
from tasks.training.generation import answer, trained_lengths
from tasks.training.guards import Allowed, verdicts_fit
from tasks.training.progress import Report
from tasks.training.student import Student, add_trained_adapter, load_student
from tasks.training.tokens import prompt_ids


def run_consult(step: ConsultStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one ConsultStep. Raises DataError where a question is longer than the student reads."""
    benchmark, questions = get_benchmark(step.benchmark), [question_of(text) for text in step.questions]
    allowed = Allowed(step.allow)
    verdicts_fit(trained_lengths(folder / step.weights.adapter), step.arms, max_new_tokens=step.max_new_tokens, allowed=allowed)

    def replies(student: Student, requests: list[Request], *, most: int) -> list[Completion]:
        for request in requests:
            _fits(student, request, most=most)
        settings = {"temperature": 0.0, "seed": step.seed, "batch_size": step.machine.generate_batch, "compiling": step.machine.compile, "report": report}
        return answer(student, requests, max_new_tokens=most, **settings)  # type: ignore[arg-type]

    drafter = load_student(step.drafter, folder=folder, device=step.machine.device, trainable=False)
    drafts = [replies(drafter, opening(question, benchmark=benchmark), most=step.draft_max_new_tokens) for question in questions]
    if step.drafter == step.weights.model_copy(update={"adapter": ""}):
        student = Student(add_trained_adapter(drafter.model, folder / step.weights.adapter, trainable=False), drafter.tokenizer)
    else:
        del drafter  # two networks may not fit
        student = load_student(step.weights, folder=folder, device=step.machine.device, trainable=False)
    made: list[Completion] = []
    for question, (draft,) in zip(questions, drafts, strict=True):
        made += [draft, *replies(student, following(question, draft, arms=step.arms, benchmark=benchmark), most=step.max_new_tokens)]
    write_rows(folder / step.out, made, Completion)
    return {"device": str(student.device), "allowed": allowed.found}


def _fits(student: Student, request: Request, *, most: int) -> None:
    room = getattr(student.model.config.get_text_config(), "max_position_embeddings", None)
    length = len(prompt_ids(student.tokenizer, request.prompt))
    if room is not None and length + most > room:
        raise DataError(f"the question is too long: with its prompt it is {length} tokens, and this student reads {room - most} at most; shorten it")
