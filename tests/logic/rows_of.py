"""Rows for tests of logic: real pocketqa questions carried through the stages by plain values."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tasks.contracts.rows import Completion, Curated, Drafted, Prediction, Question, Taught
from tasks.logic.benchmarks import get_benchmark, pocketqa

BENCHMARK = get_benchmark("pocketqa")


def questions(n: int, *, split: str = "train") -> list[Question]:
    return pocketqa.sample(split=split, n=n, seed=3)


def drafted(question: Question, *, draft: str = "Answer: Yes", verdict: str = "yes", asked: tuple[str, ...] = ()) -> Drafted:
    return Drafted(**values(question, Question), draft=draft, draft_verdict=verdict, draft_questions=asked, drafter="d")


def taught(question: Question, *, verdict: str | None = None, hinted: bool = False, **changes: Any) -> Taught:
    """A reply in the words of a perfect teacher, its verdict perhaps another."""
    said = pocketqa.rationale(question)
    row: dict[str, Any] = {
        "sample": 0, "reply": "", "outcome": "ok", "verdict": verdict or question.answer, "reasoning": said.reasoning, "asked": said.asked,
        "answered": said.answered, "asked_source": "teacher", "hinted": hinted, "teacher": "t", "note": "",
        "attempts": 1, "status": 200, "request_id": "r", "recovered": "", "unmoved": "",
    }  # fmt: skip
    return Taught(**values(drafted(question), Drafted), **{**row, **changes})


def curated(question: Question, *, role: str = "sft", **changes: Any) -> Curated:
    return Curated(
        **{
            **values(taught(question), Taught),
            "provenance": "agreed",
            "weight": 1.0,
            "verdict_factor": 1.0,
            "role": role,
            "consensus": question.answer,
            "consensus_margin": 1.0,
            **changes,
        }
    )


def completion(row: Question, text: str, *, arm: str = "reasoning", sample: int = 0, cut: bool = False) -> Completion:
    return Completion(qid=row.qid, arm=arm, sample=sample, text=text, tokens=9, cut=cut, margin=float("nan"))


def prediction(row: Question, *, model: str, arm: str, verdict: str, split: str = "dev") -> Prediction:
    return Prediction(
        qid=row.qid, split=split, kind=row.kind, model=model, arm=arm, question=row.question, answer=row.answer, verdict=verdict, text=verdict,
        tokens=1, cut=False, margin=float("nan"), reason="",
    )  # fmt: skip


def values(row: Any, row_type: type) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row_type)}
