"""A drafted question for the tests of prompts and replies."""

from __future__ import annotations

from tasks.contracts.rows import Drafted


def drafted(*, question: str = "Is iron heavy?", draft: str = "Answer: Yes\nQuestions: How heavy is iron?") -> Drafted:
    return Drafted(
        qid="q1",
        split="train",
        kind="",
        term="Iron",
        description="a metal",
        question=question,
        answer="no",
        facts=("Iron has a density of 7.9.",),
        decomposition=("What is the density of iron?", "Is #1 high?"),
        entities=(),
        draft=draft,
        draft_verdict="yes",
        draft_questions=("How heavy is iron?",),
        drafter="d",
    )
