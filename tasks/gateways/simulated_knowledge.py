"""What the simulated teacher says: right facts about pocketqa questions, wrong verdicts at a known rate, as text or as JSON; and what it makes of reasoning
that it is shown."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from tasks.contracts.rows import Question
from tasks.logic.benchmarks import pocketqa
from tasks.logic.benchmarks.teacher_talk import ALONE, CHECK_MARK, standalone

VERSION = 1  # raise it when the wording of replies changes: it is part of the ledger key
UNKNOWN = "the simulated teacher knows pocketqa questions only; use recipe.teacher.kind=openai or recorded"
_OTHER_WAY = "Putting these facts side by side, the comparison comes out the other way round."
_OPEN = "open"  # no verdict follows
_QUESTION = re.compile(r"^Question: *(.+?) *$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Said:
    """One reply before it has a form. Questions and reasoning are left out of it where they are empty, because then they were not asked for."""

    questions: tuple[tuple[str, str], ...]  # (clarifying question, its answer)
    reasoning: str
    verdict: str

    def text(self) -> str:
        """The sections that the teacher is asked for."""
        exchanges = [line for asked, answered in self.questions for line in (f"Q: {asked}", f"A: {answered}")]
        analysis = ["## Teaching Analysis", *exchanges, ""] if exchanges else []
        steps = ["## Step-by-Step Reasoning", self.reasoning, ""] if self.reasoning else []
        return "\n".join([*analysis, *steps, "## Final Assessment", f"**[{self.verdict.upper()}]**"])

    def json(self) -> str:
        """The same as a JSON object, for a request with a JSON schema."""
        questions = [{"question": asked, "answer": answered} for asked, answered in self.questions]
        parts = {"questions": questions, "reasoning": self.reasoning, "verdict": self.verdict}
        return json.dumps({name: part for name, part in parts.items() if part})

    def beginning(self, body: dict[str, Any]) -> str:
        """The content as far as a reply gets that is cut before its verdict."""
        return self.json()[: -len(json.dumps(self.verdict)) - 1] if wants_json(body) else self.text().partition("## Final Assessment")[0]

    def content(self, body: dict[str, Any]) -> str:
        """The content in the form that the request asks for."""
        return self.json() if wants_json(body) else self.text()

    def with_surrogate(self) -> Said:
        """The same with half a character in the reasoning: no UTF-8 file takes it."""
        return replace(self, reasoning=f"{self.reasoning} \ud800")


ECHO = Said(
    questions=(("What is asked?", "Whether the statement holds."), ("What is known?", "Enough to say.")), reasoning="What is known settles it.", verdict="yes"
)


def wants_json(body: dict[str, Any]) -> bool:
    """Whether the request has a JSON schema for its reply."""
    form = body.get("response_format")
    return isinstance(form, dict) and form.get("type") == "json_schema"


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """The pocketqa facts, and how often they are put wrongly."""

    error_rate: float
    no_bias: float
    seed: int

    def says(self, body: dict[str, Any]) -> Said | None:
        """The reply to a request, or None for a question that pocketqa does not hold."""
        prompt = "\n".join(str(message.get("content")) for message in body["messages"] if message.get("role") == "user")
        found = _QUESTION.search(prompt)
        question = pocketqa.lookup(found.group(1)) if found else None
        if question is None:
            return None
        _, marked, checked = prompt.partition(CHECK_MARK)
        if marked:
            return Said(questions=(), reasoning="", verdict=_follows(question, checked))
        hinted = all(fact in prompt for fact in question.facts)
        verdict = self.verdict(question, sample_seed=int(body.get("seed") or 0), hinted=hinted)
        return _teach(question, verdict, asked=not any(ALONE in str(message.get("content")) for message in body["messages"]))

    def verdict(self, question: Question, *, sample_seed: int, hinted: bool) -> str:
        """What this teacher says: gold, or an error.

        A share `error_rate` of (question, seed) pairs, drawn by hash, is in error. Of these a share `no_bias` says "no" whatever the
        truth (so it is wrong on yes questions only), the others say the opposite of gold. P(wrong | yes) = error_rate,
        P(wrong | no) = error_rate (1 - no_bias). A hinted request is answered right.
        """
        digest = hashlib.sha256(f"{self.seed}|{sample_seed}|{question.question}".encode()).digest()
        errs = int.from_bytes(digest[:8]) / 2**64 < self.error_rate
        biased = int.from_bytes(digest[8:16]) / 2**64 < self.no_bias
        if hinted or not errs:
            return question.answer
        return "no" if biased or question.answer == "yes" else "yes"


def _teach(question: Question, verdict: str, *, asked: bool) -> Said:
    """A wrong reply has the right facts and the wrong conclusion, as a careless teacher would. Without `asked` it answers no questions."""
    rationale = pocketqa.rationale(question)
    reasoning = rationale.reasoning if verdict == question.answer else _OTHER_WAY
    if not asked:
        return Said(questions=(), reasoning=standalone(answered=rationale.answered, reasoning=reasoning), verdict=verdict)
    return Said(questions=tuple(zip(rationale.asked, rationale.answered, strict=True)), reasoning=reasoning, verdict=verdict)


def _follows(question: Question, reasoning: str) -> str:
    """The verdict that reasoning supports: the question is open unless both of its facts stand there."""
    if not all(fact in reasoning for fact in question.facts):
        return _OPEN
    opposite = "no" if question.answer == "yes" else "yes"
    return opposite if _OTHER_WAY in reasoning else question.answer
