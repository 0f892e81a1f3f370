"""What the teacher is asked, and how its answers become rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from tasks.contracts.asks import Answer, Ask
from tasks.contracts.rows import Drafted, Outcome, Taught, Verdict
from tasks.logic.benchmarks import Benchmark


def asks_for(rows: Sequence[Drafted], *, benchmark: Benchmark, samples: int, hint: bool) -> list[Ask]:
    """`samples` asks a question; with `hint` the gold facts stand in the prompt, which makes another ledger key."""
    return [Ask(qid=row.qid, sample=sample, messages=benchmark.teacher_messages(row, hint=hint), hinted=hint) for row in rows for sample in range(samples)]


def disagreements(rows: Sequence[Drafted], taught: Sequence[Taught]) -> list[Drafted]:
    """Questions for which no reply agrees with gold."""
    agreed = {row.qid for row in taught if row.outcome == Outcome.OK and row.verdict == row.answer}
    return [row for row in rows if row.qid not in agreed]


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
    )
