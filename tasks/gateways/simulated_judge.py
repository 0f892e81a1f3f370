"""What the simulated judge rules: the set of questions that takes up more of what is asked wins, with some noise and a small liking for the first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.gateways.simulated_knowledge import Said, wants_json
from tasks.logic.benchmarks.judge_talk import CRITERIA, JUDGE, QUESTION_MARK, SET_MARKS
from tasks.logic.benchmarks.teacher_talk import content_words

# Raise simulated_knowledge.VERSION where rulings change: it is part of the ledger key.
POSITION_BIAS = 0.05  # share of comparisons that the order alone decides, where a server is not told otherwise
_NOISE, _MARGIN = 0.1, 0.05  # of the share of content words taken up: half-width of the noise, and the difference below which two sets tie


@dataclass(frozen=True, kw_only=True)
class Ruling(Said):
    """A reply that names a winner (1, 2 or tie) and no verdict on the question; its criteria all follow the winner."""

    def text(self) -> str:
        """The lines that a judge is asked for."""
        return "\n".join(f"{name}: {self.verdict}" for name in (*CRITERIA, "winner"))

    def json(self) -> str:
        """The same as a JSON object."""
        return json.dumps(dict.fromkeys((*CRITERIA, "winner"), self.verdict))

    def beginning(self, body: dict[str, Any]) -> str:
        """The content as far as a reply gets that is cut before its winner."""
        return self.json().partition('"winner"')[0] if wants_json(body) else self.text().partition("winner")[0]


def ruling(body: dict[str, Any], *, seed: int, position_bias: float) -> Ruling | None:
    """The ruling that a request asks for, None where it asks for something else or its sets cannot be read. The same request has the same ruling."""
    texts = {str(message.get("role")): str(message.get("content")) for message in body["messages"][:2]}
    if not texts.get("system", "").startswith(JUDGE):
        return None
    lines = texts.get("user", "").split("\n")
    try:
        question, first, second = (json.loads(line.removeprefix(mark)) for line, mark in zip(lines, (QUESTION_MARK, *SET_MARKS), strict=True))
    except ValueError:
        return None
    luck = hashlib.sha256(f"{seed}|{texts['user']}".encode()).digest()
    position, noise = (int.from_bytes(luck[place : place + 8]) / 2**64 for place in (0, 8))
    lead = _taken_up(question, first) - _taken_up(question, second) + _NOISE * (2 * noise - 1)
    winner = "1" if position < position_bias or lead > _MARGIN else "2" if lead < -_MARGIN else "tie"
    return Ruling(questions=(), reasoning="", verdict=winner)


def _taken_up(question: str, asked: Sequence[str]) -> float:
    """Share of the question's content words that the clarifying questions hold."""
    wanted = content_words(question)
    return len(wanted & content_words(" ".join(asked))) / max(len(wanted), 1)
