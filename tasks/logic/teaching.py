"""What the teacher is asked, and how its answers become rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Literal

from tasks.contracts.asks import Answer, Ask
from tasks.contracts.recipes import Teacher
from tasks.contracts.rows import Drafted, Outcome, Question, Taught, Verdict
from tasks.logic.benchmarks import Benchmark
from tasks.logic.benchmarks.teacher_talk import TeacherReply

_SCHEMA_MODELS = ("gpt-4o", "gpt-4.1", "gpt-5", "o1", "o3", "o4")  # OpenAI, "Structured outputs": supported from gpt-4o-2024-08-06 on
_BEFORE_SCHEMAS = ("gpt-4o-2024-05-13", "o1-mini", "o1-preview")


def replies_as_json(response_format: Literal["auto", "json_schema", "text"], *, model: str) -> bool:
    """Whether the teacher is asked for an object of the benchmark's schema; "auto" knows which of OpenAI's models keep to one."""
    if response_format != "auto":
        return response_format == "json_schema"
    return model.startswith(_SCHEMA_MODELS) and not model.startswith(_BEFORE_SCHEMAS)


@dataclass(frozen=True, kw_only=True)
class Talk:
    """How a recipe talks to its teacher: in whose wording, about the student's questions or not, in JSON or under headings."""

    benchmark: Benchmark
    ask: bool
    as_json: bool

    @property
    def schema(self) -> Mapping[str, object] | None:
        """The JSON schema of a reply, None for one under headings."""
        return self.benchmark.reply_schema(ask=self.ask) if self.as_json else None

    def problem(self, text: str) -> str | None:
        """Why a whole reply cannot be used, None where it can."""
        return self.read(text).problem or None

    def read(self, text: str) -> TeacherReply:
        """A reply taken apart, read as what was asked for and never as anything else."""
        return self.benchmark.parse_teacher_reply(text, ask=self.ask, as_json=self.as_json)


def talk_of(recipe: Teacher, *, benchmark: Benchmark) -> Talk:
    """How `recipe` has the questions of `benchmark` asked."""
    return Talk(benchmark=benchmark, ask=recipe.ask, as_json=replies_as_json(recipe.response_format, model=recipe.model))


def asks_for(rows: Sequence[Drafted], *, talk: Talk, samples: range, hint: bool) -> list[Ask]:
    """One ask a question and sample number; with `hint` the gold facts stand in the prompt, which makes another ledger key."""
    asks = []
    for row in rows:
        messages = talk.benchmark.teacher_messages(row, hint=hint, as_json=talk.as_json, ask=talk.ask)
        asks += [Ask(qid=row.qid, sample=sample, messages=messages, hinted=hint, schema=talk.schema) for sample in samples]
    return asks


def further_asks(rows: Sequence[Drafted], *, talk: Talk, samples: int, resamples: int, rationalise: bool) -> list[Ask]:
    """What is asked about questions that `samples` replies did not settle: `resamples` more, numbered on, and one with the gold facts to `rationalise`."""
    more = asks_for(rows, talk=talk, samples=range(samples, samples + resamples), hint=False)
    return more + asks_for(rows, talk=talk, samples=range(1), hint=True) if rationalise else more


def check_asks(taught: Sequence[Taught], *, talk: Talk, seed: int) -> list[Ask]:
    """Two asks for each usable reply: what follows from its reasoning, then, in the same order, what follows from the reasoning of another question.

    The second ask shows whether the first can fail (ALGORITHMS 5.4: of two verdicts, chance recovers one in two). The second half is missing where
    replies of only one question are usable. All are sample 0: equal reasoning is asked about once.
    """
    sound = [row for row in taught if agrees(row)]
    donors = _donors(sound, seed=seed)
    pairs = [(row, row) for row in sound] + [(row, donors[row.qid]) for row in sound if donors]
    return [check_ask(row, talk.benchmark.standalone(answered=said.answered, reasoning=said.reasoning), talk=talk) for row, said in pairs]


def check_ask(question: Question, reasoning: str, *, talk: Talk) -> Ask:
    """Which verdict follows from `reasoning`, which holds none."""
    messages = talk.benchmark.check_messages(question, reasoning=reasoning, as_json=talk.as_json)
    return Ask(qid=question.qid, sample=0, messages=messages, hinted=False, schema=talk.benchmark.check_schema if talk.as_json else None)


def _donors(sound: Sequence[Taught], *, seed: int) -> dict[str, Taught]:
    """The reply of another question for each question: the next one on a ring in the order of a seeded hash; empty where there is no other.

    A ring, so that a reply that comes in later changes two asks and not all of them, which were paid for.
    """
    first = {row.qid: row for row in reversed(sound)}
    ring = sorted(first, key=lambda qid: hashlib.sha256(f"check:{seed}:{qid}".encode()).digest())
    return {qid: first[following] for qid, following in pairwise([*ring, *ring[:1]])} if len(ring) > 1 else {}


def checked_rows(taught: Sequence[Taught], answers: Sequence[Answer], *, talk: Talk) -> list[Taught]:
    """The rows with what the answers to their `check_asks` say. A check without a reply reads as unparsed: nothing followed."""
    verdicts: list[str] = [
        talk.benchmark.parse_check(answer.text, as_json=talk.as_json) if answer.outcome == Outcome.OK else Verdict.UNPARSED for answer in answers
    ]
    places = [place for place, row in enumerate(taught) if agrees(row)]
    recovered, unmoved = verdicts[: len(places)], verdicts[len(places) :] or [""] * len(places)
    rows = list(taught)
    for place, own, other in zip(places, recovered, unmoved, strict=True):
        rows[place] = replace(rows[place], recovered=own, unmoved=other)
    return rows


def undrafted(questions: Sequence[Question]) -> list[Drafted]:
    """Questions as rows with an empty draft, to foresee what asking about them would take."""
    values = ({field.name: getattr(row, field.name) for field in fields(Question)} for row in questions)
    return [Drafted(**row, draft="", draft_verdict=Verdict.UNPARSED, draft_questions=(), drafter="") for row in values]


def shards(count: int, *, size: int) -> list[tuple[int, int]]:
    """(first, end) of consecutive pieces of at most `size`, as even as can be."""
    pieces = -(-count // size)
    return [(count * number // pieces, count * (number + 1) // pieces) for number in range(pieces)]


def agrees(row: Taught) -> bool:
    """Whether a reply can be used and its verdict is gold."""
    return row.outcome == Outcome.OK and row.verdict == row.answer and bool(row.reasoning)


def disagreements(rows: Sequence[Drafted], taught: Sequence[Taught]) -> list[Drafted]:
    """Questions that were answered, by no reply in agreement with gold. Those without any reply wait for the next run."""
    agreed = {row.qid for row in taught if agrees(row)}
    answered = {row.qid for row in taught if row.outcome != Outcome.FAILED}
    return [row for row in rows if row.qid in answered - agreed]


def taught_rows(rows: Sequence[Drafted], answers: Sequence[Answer], *, talk: Talk) -> list[Taught]:
    """One row an answer, in the order asked. Clarifying questions are kept as far as the teacher answered them, in its wording."""
    by_qid = {row.qid: row for row in rows}
    return [_taught(by_qid[answer.ask.qid], answer, talk) for answer in answers]


def _taught(row: Drafted, answer: Answer, talk: Talk) -> Taught:
    parsed = talk.read(answer.text)
    usable = answer.outcome == Outcome.OK
    return Taught(
        **{field.name: getattr(row, field.name) for field in fields(Drafted)},
        sample=answer.ask.sample,
        reply=answer.text,
        outcome=answer.outcome,
        verdict=parsed.verdict if usable else Verdict.UNPARSED,
        reasoning=parsed.reasoning if usable else "",
        asked=parsed.asked if usable else (),
        answered=parsed.answered if usable else (),
        asked_source="draft" if usable and parsed.asked and set(parsed.asked) <= set(row.draft_questions) else "teacher",
        hinted=answer.ask.hinted,
        teacher=answer.model,
        note=answer.note,
        attempts=answer.attempts,
        status=answer.status,
        request_id=answer.request_id,
        recovered="",
        unmoved="",
    )


def reply_counts(taught: Sequence[Taught], *, samples: int) -> dict[str, object]:
    """The figures worth showing of a table of replies, `samples` of each question's being of the first pass."""
    outcomes = [row.outcome for row in taught]
    return {
        "outcomes": {each.value: outcomes.count(each) for each in Outcome},
        "hinted": sum(row.hinted for row in taught),
        "resampled": sum(row.sample >= samples for row in taught),
        "checked": sum(row.recovered != "" for row in taught),
        "recovered": sum(row.recovered == row.verdict for row in taught),
        "unmoved": sum(row.unmoved == row.verdict for row in taught),
    }
