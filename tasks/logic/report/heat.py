"""Attributed texts: each token with how strongly, and in which direction, it moved the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tasks.contracts.rows import TokenShare
from tasks.logic.report import words

SHADES = 8  # steps of strength; the ninth would be hard to tell
_QUESTIONS = 4
_STRONGEST = 5
_TEMPLATE = "template"
ROLES = {
    "question": "question",
    "draft_questions": "draft: its questions",
    "draft_verdict": "draft: its verdict",
    "draft_other": "draft: other words",
    "chain": "the model's own chain",
}


@dataclass(frozen=True)
class Shaded:
    """A token as it is shown: `shade` from -SHADES (against the verdict given) over 0 to SHADES (for it)."""

    text: str
    shade: int


@dataclass(frozen=True)
class Passage:
    """Neighbouring tokens of one role; template tokens carry no attribution and have no label."""

    label: str
    tokens: tuple[Shaded, ...]


@dataclass(frozen=True)
class HeatText:
    """One question as one model read it. `sentence` names the strongest tokens, for readers who cannot see the shades."""

    title: str
    passages: tuple[Passage, ...]
    sentence: str


@dataclass(frozen=True)
class HeatQuestion:
    """One question under every model and draft that was attributed."""

    qid: str
    texts: tuple[HeatText, ...]


def heat(rows: Sequence[TokenShare]) -> list[HeatQuestion]:
    """The first few questions that most readings cover. Shades are relative to the strongest token of the whole question, so that its texts compare."""
    by_question: dict[str, dict[tuple[str, str], list[TokenShare]]] = {}
    for row in rows:
        by_question.setdefault(row.qid, {}).setdefault((row.draft, row.model), []).append(row)
    fullest = sorted(by_question.items(), key=lambda item: -len(item[1]))[:_QUESTIONS]
    return [_question(qid, readings) for qid, readings in fullest]


def _question(qid: str, readings: dict[tuple[str, str], list[TokenShare]]) -> HeatQuestion:
    strongest = max((abs(row.attribution) for rows in readings.values() for row in rows), default=0.0) or 1.0
    order = sorted(readings, key=lambda key: (key[0] != "own", key[1] != "track_b"))
    return HeatQuestion(qid, tuple(_text(model, draft, readings[draft, model], strongest) for draft, model in order))


def _text(model: str, draft: str, rows: Sequence[TokenShare], strongest: float) -> HeatText:
    ordered = sorted(rows, key=lambda row: row.place)
    passages = tuple(
        Passage(label=ROLES.get(role, ""), tokens=tuple(Shaded(row.token, shade(row.attribution, strongest)) for row in run))
        for role, run in groupby(ordered, key=lambda row: row.role)
    )
    told = sorted((row for row in ordered if row.role != _TEMPLATE and row.token.strip()), key=lambda row: -abs(row.attribution))[:_STRONGEST]
    named = "; ".join(f"“{row.token.strip()}” {words.change(row.attribution)} ({ROLES.get(row.role, row.role)})" for row in told)
    whose = "with its own draft" if draft == "own" else "with another question's draft"
    return HeatText(f"{words.label(model)}, {whose}", passages, f"Strongest, in nats: {named}." if named else "Nothing here moved the verdict.")


def shade(attribution: float, strongest: float) -> int:
    """Attribution in whole steps of the strongest one, sign kept."""
    return max(-SHADES, min(SHADES, round(SHADES * attribution / strongest)))
