"""Drawing and keeping apart the questions of a benchmark, whatever its subject."""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Question


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The questions of one split, and how many were left out of it, by reason."""

    questions: list[Question]
    excluded: dict[str, int]


def normalised(text: str) -> str:
    """Text with case, punctuation, accents' encoding and spacing levelled: two questions that differ only there are one question."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded).split())


def stratified(questions: Sequence[Question], *, n: int, seed: int) -> list[Question]:
    """`n` of `questions` (0 = all, as they are) in the proportions of their (kind, answer) strata.

    The draw of a smaller n is the beginning of the draw of a larger one. Raises DataError when there are fewer than n.
    """
    require(n, available=len(questions), split=questions[0].split if questions else "")
    if n == 0:
        return list(questions)
    strata: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for question in sorted(questions, key=lambda each: each.qid):
        strata[question.kind, question.answer].append(question)
    ranked = []
    for key, members in sorted(strata.items()):
        random.Random(f"{seed}|{key}").shuffle(members)
        # The k-th of m members stands at (k + 1/2) / m of the way, so every prefix of the merged order holds each stratum's share.
        ranked += [((index + 0.5) / len(members), key, question) for index, question in enumerate(members)]
    return [question for _, _, question in sorted(ranked, key=lambda each: each[:2])[:n]]


def require(n: int, *, available: int, split: str) -> None:
    """Raise DataError, naming the maximum, when `n` questions are asked of a split that has fewer."""
    if n > available:
        raise DataError(f"{n} questions were asked of the {split or 'empty'} split, which has {available}; set recipe.sample.{split} to at most {available}")


def check_disjoint(splits: Mapping[str, Sequence[Question]]) -> None:
    """Raise DataError when a question stands in two splits, by id or by normalised text, or twice in one."""
    seen: dict[str, tuple[str, str]] = {}
    for split, questions in splits.items():
        for question in questions:
            for key in (f"id {question.qid}", f"text {normalised(question.question)}"):
                if key in seen:
                    other, qid = seen[key]
                    raise DataError(
                        f"question {question.qid} of {split} is question {qid} of {other} (same {key.split()[0]}): {question.question!r}; "
                        "remove one of them from the question file"
                    )
                seen[key] = (split, question.qid)
