"""What the teacher is asked, and how its answers become rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Literal

from tasks.contracts.asks import Answer, Ask
from tasks.contracts.rows import Drafted, Outcome, Question, Taught, Verdict
from tasks.logic.benchmarks import Benchmark

_SCHEMA_MODELS = ("gpt-4o", "gpt-4.1", "gpt-5", "o1", "o3", "o4")  # OpenAI, "Structured outputs": supported from gpt-4o-2024-08-06 on
_BEFORE_SCHEMAS = ("gpt-4o-2024-05-13", "o1-mini", "o1-preview")


def replies_as_json(response_format: Literal["auto", "json_schema", "text"], *, model: str) -> bool:
    """Whether the teacher is asked for an object of the benchmark's schema; "auto" knows which of OpenAI's models keep to one."""
    if response_format != "auto":
        return response_format == "json_schema"
    return model.startswith(_SCHEMA_MODELS) and not model.startswith(_BEFORE_SCHEMAS)


def asks_for(rows: Sequence[Drafted], *, benchmark: Benchmark, samples: int, hint: bool, as_json: bool) -> list[Ask]:
    """`samples` asks a question; with `hint` the gold facts stand in the prompt, which makes another ledger key."""
    schema = benchmark.reply_schema if as_json else None
    return [
        Ask(qid=row.qid, sample=sample, messages=benchmark.teacher_messages(row, hint=hint, as_json=as_json), hinted=hint, schema=schema)
        for row in rows
        for sample in range(samples)
    ]


def undrafted(questions: Sequence[Question]) -> list[Drafted]:
    """Questions as rows with an empty draft, to foresee what asking about them would take."""
    values = ({field.name: getattr(row, field.name) for field in fields(Question)} for row in questions)
    return [Drafted(**row, draft="", draft_verdict=Verdict.UNPARSED, draft_questions=(), drafter="") for row in values]


def shards(count: int, *, size: int) -> list[tuple[int, int]]:
    """(first, end) of consecutive pieces of at most `size`, as even as can be."""
    pieces = -(-count // size)
    return [(count * number // pieces, count * (number + 1) // pieces) for number in range(pieces)]


def disagreements(rows: Sequence[Drafted], taught: Sequence[Taught]) -> list[Drafted]:
    """Questions that were answered, by no reply in agreement with gold. Those without any reply wait for the next run."""
    agreed = {row.qid for row in taught if row.outcome == Outcome.OK and row.verdict == row.answer}
    answered = {row.qid for row in taught if row.outcome != Outcome.FAILED}
    return [row for row in rows if row.qid in answered - agreed]


def taught_rows(rows: Sequence[Drafted], answers: Sequence[Answer], *, benchmark: Benchmark) -> list[Taught]:
    """One row an answer, in the order asked. Clarifying questions are kept as far as the teacher answered them, in its wording."""
    by_qid = {row.qid: row for row in rows}
    return [_taught(by_qid[answer.ask.qid], answer, benchmark) for answer in answers]


def _taught(row: Drafted, answer: Answer, benchmark: Benchmark) -> Taught:
    parsed = benchmark.parse_teacher_reply(answer.text)
    usable = answer.outcome == Outcome.OK
    return Taught(
        **{field.name: getattr(row, field.name) for field in fields(Drafted)},
        sample=answer.ask.sample,
        reply=answer.text,
        outcome=answer.outcome,
        verdict=parsed.verdict if usable else Verdict.UNPARSED,
        reasoning=parsed.reasoning if usable else "",
        asked=parsed.asked,
        answered=parsed.answered,
        asked_source="draft" if parsed.asked and set(parsed.asked) <= set(row.draft_questions) else "teacher",
        hinted=answer.ask.hinted,
        teacher=answer.model,
        note=answer.note,
        attempts=answer.attempts,
        status=answer.status,
        request_id=answer.request_id,
        recovered="",
        unmoved="",
    )
