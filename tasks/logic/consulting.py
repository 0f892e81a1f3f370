"""One question of a person's own: what the student is asked about it, and its draft, questions, answers and verdict as values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Arm, Completion, Drafted, Question, Request
from tasks.logic.asking import arm_requests, draft_requests, drafted
from tasks.logic.benchmarks import Benchmark
from tasks.logic.texts import line_of

QID = "asked"
_LONG = 4  # letters: shorter words are mostly grammar


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What the student wrote under one arm, taken apart; `cut` says that the token limit stopped it, which leaves it without a verdict."""

    arm: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    reasoning: str
    verdict: str
    cut: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Consultation:
    """A student's way to a verdict. The draft is the drafter's, all else the aligned student's; `direct_margin` is in nats, above 0 = yes."""

    question: str
    draft: str
    draft_questions: tuple[str, ...]
    draft_verdict: str
    chains: tuple[Chain, ...]
    direct_verdict: str
    direct_margin: float
    warning: str  # where the question is far from what was trained, "" else


def question_of(text: str) -> Question:
    """A person's question as a row, on one line. Raises DataError for a text that is empty or no Unicode."""
    try:
        said = line_of(text.encode("utf-8").decode("utf-8"))
    except UnicodeEncodeError as error:
        raise DataError("the question is not valid UTF-8; check the terminal's encoding and ask again") from error
    if not said:
        raise DataError('the question is empty; ask something that yes or no can answer, e.g. "Could Julius Caesar have used a telephone?"')
    return Question(qid=QID, split="", kind="", term="", description="", question=said, answer="", facts=(), decomposition=(), entities=())


def opening(question: Question, *, benchmark: Benchmark) -> list[Request]:
    """What the drafter is asked."""
    return draft_requests([question], benchmark=benchmark)


def following(question: Question, draft: Completion, *, arms: Sequence[str], benchmark: Benchmark) -> list[Request]:
    """What the aligned student is asked once the draft is there: `arms`, then the direct answer."""
    rows = _drafted(question, draft, benchmark)
    return [request for arm in (*arms, Arm.DIRECT) for request in arm_requests(rows, arm=Arm(arm), benchmark=benchmark)]


def far_from(question: Question, trained: Iterable[str]) -> str:
    """A warning where most words of the question that say something occur in no question trained on, "" else. It knows words, not meanings."""
    words = list(dict.fromkeys(_said(question.question)))
    known = {word for text in trained for word in _said(text)}
    new = [word for word in words if word not in known]
    if 2 * len(new) <= len(words):
        return ""
    return f"{len(new)} of {len(words)} of its words occur in no question that the student was trained on ({', '.join(new[:5])}): a guess, most likely."


def _said(text: str) -> list[str]:
    """The words that a question is about, as it writes them, in small letters."""
    return [word for word in re.findall(r"\w+", text.lower()) if len(word) >= _LONG]


def consultation(question: Question, completions: Sequence[Completion], *, benchmark: Benchmark, warning: str = "") -> Consultation:
    """The replies to `opening` and `following`, in order."""
    draft, *written, direct = completions
    (row,) = _drafted(question, draft, benchmark)
    return Consultation(
        question=question.question,
        draft=row.draft,
        draft_questions=row.draft_questions,
        draft_verdict=row.draft_verdict,
        chains=tuple(_chain(each, benchmark) for each in written),
        direct_verdict=benchmark.parse(direct.text, cut=False),
        direct_margin=direct.margin,
        warning=warning,
    )


def _drafted(question: Question, draft: Completion, benchmark: Benchmark) -> list[Drafted]:
    return drafted([question], [draft], benchmark=benchmark, drafter="")


def _chain(written: Completion, benchmark: Benchmark) -> Chain:
    parts = benchmark.parse_skeleton(written.text)
    return Chain(
        arm=written.arm,
        questions=parts.asked,
        answers=parts.answered,
        reasoning=parts.reasoning,
        verdict=benchmark.parse(written.text, cut=written.cut),
        cut=written.cut,
        text=written.text,
    )
