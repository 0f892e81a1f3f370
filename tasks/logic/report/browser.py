"""Every graded question as data for the page's own browser: a script shows what is asked for, so that hundreds stay quick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.logic.report import words
from tasks.logic.report.view import Transcript

FIRST = 10  # questions written into the page itself, for readers without scripts


def browser_data(transcripts: Sequence[Transcript]) -> dict[str, Any]:
    """Models that answered, in the order of their replies, and every question with what each wrote; a reply names its model by place."""
    models = list(dict.fromkeys(reply.model for item in transcripts for reply in item.replies))
    return {
        "models": [{"name": name, "label": words.brief(name)} for name in models],
        "questions": [
            {
                "id": item.qid,
                "question": item.question,
                "gold": item.gold,
                "facts": list(item.facts),
                "draft": item.draft,
                "asked": list(item.asked),
                "teacher": item.teacher,
                "replies": [
                    {"model": models.index(reply.model), "arm": words.arm_label(reply.arm), "verdict": reply.verdict, "right": reply.right, "text": reply.text}
                    for reply in item.replies
                ],
            }
            for item in transcripts
        ],
    }
