"""Which of a teacher's reasonings are worth training on. Each sieve counts what it turned away, by reason.

Answer agreement alone keeps wrong reasoning: on yes/no questions chance agrees half the time (ALGORITHMS 5.4).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tasks.contracts.rows import Taught
from tasks.logic.benchmarks.teacher_talk import without_verdict
from tasks.logic.sampling import normalised

_BANDS, _ROWS = 42, 3  # of a MinHash: two texts of similarity 0.5 become candidates with probability 1 - (1 - 0.5^3)^42 = 0.996, of 0.8 always
_HEDGED = re.compile(
    r"\b(?:the|my)\s+(?:\w+\s+)?(?:answer|verdict)\s+(?:is|remains|seems|(?:would|could|should|must|may|might)(?:\s+(?:\w+ly|most|still))*\s+be)"
    r"(?:\s+to\s+be)?(?:,?\s+(?:\w+ly|still|somewhat|most|more|then|therefore))*[\s,:]*[*_\[(\"“']*(yes|no)\b",
    re.IGNORECASE,
)
_AFFIRMED = re.compile(r"(?:^|(?<=[.!?]\s))(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:\w+ly,?\s*)?(?=(?:yes|no)\s*[,.!])", re.IGNORECASE)


class Sifted(NamedTuple):
    """Rows that passed a sieve, and how many it mended or turned away, by reason."""

    rows: list[Taught]
    counts: Counter[str]


def without_leak(reasoning: str) -> str:
    """A reasoning without the sentences that tell its verdict before the end: plainly, hedged ("the answer is probably no") or in passing ("So, yes, ...")."""
    return without_verdict(_AFFIRMED.sub("", _HEDGED.sub(r"the answer is \1", reasoning)))


def sound(rows: Sequence[Taught], *, min_words: int, max_words: int) -> Sifted:
    """Rows whose reasoning, freed of its verdict, has from `min_words` to `max_words` words."""
    kept, counts = [], Counter[str]()
    for row in rows:
        said = " ".join(row.answered)
        # Reasoning that is the answers once more is never written beside them, and a yes in it answers a clarifying question.
        reasoning = row.reasoning if row.reasoning == said else without_leak(row.reasoning) or said
        counts["verdict taken out of the reasoning"] += reasoning != " ".join(row.reasoning.split())
        words = len(reasoning.split())
        if fault := "nothing but a verdict" if not words else "too short" if words < min_words else "too long" if words > max_words else "":
            counts[fault] += 1
        else:
            kept.append(replace(row, reasoning=reasoning))
    return Sifted(kept, +counts)


def validated(rows: Sequence[Taught]) -> Sifted:
    """Rows that a fresh pass confirmed, or that nobody asked it about: the verdict follows from the reasoning, and not from another question's."""
    kept, counts = [], Counter[str]()
    for row in rows:
        if row.recovered and row.recovered != row.verdict:
            counts["verdict does not follow from the reasoning"] += 1
        elif row.unmoved == row.verdict:
            counts["verdict follows from another question's reasoning too"] += 1
        else:
            counts["not validated"] += not row.recovered
            kept.append(row)
    return Sifted(kept, +counts)


def distinct(rows: Sequence[Taught], *, near_duplicate: float, most: int) -> Sifted:
    """At most `most` reasonings of a question, no two alike: of those whose Jaccard similarity of word triples is `near_duplicate` or more, the first stays."""
    kept, counts = [], Counter[str]()
    seen: dict[tuple[str, bool], list[frozenset[str]]] = defaultdict(list)
    for row in rows:
        triples, others = word_triples(row.reasoning), seen[row.qid, row.hinted]
        if any(similarity(triples, other) >= near_duplicate for other in others):
            counts["like another of the question"] += 1
        elif len(others) == most:
            counts["beyond the reasonings kept of a question"] += 1
        else:
            others.append(triples)
            kept.append(row)
    return Sifted(kept, counts)


def pasted(rows: Sequence[Taught], *, near_duplicate: float, seed: int) -> int:
    """How many rows have the reasoning of a row of another question. MinHash (Broder 1997) finds candidates, their exact similarity decides."""
    from datasketch import MinHash, MinHashLSH

    triples = [word_triples(row.reasoning) for row in rows]
    hashes = MinHash.bulk(([each.encode() for each in one] for one in triples), num_perm=_BANDS * _ROWS, seed=seed)
    index = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))
    for number, minhash in enumerate(hashes):
        index.insert(number, minhash)
    return sum(
        any(rows[other].qid != row.qid and similarity(triples[number], triples[other]) >= near_duplicate for other in index.query(hashes[number]))
        for number, row in enumerate(rows)
    )


def word_triples(text: str) -> frozenset[str]:
    """Every three consecutive words, case and punctuation levelled; the whole of a shorter text."""
    words = normalised(text).split()
    return frozenset(" ".join(words[start : start + 3]) for start in range(max(len(words) - 2, 1)))


def similarity(left: frozenset[str], right: frozenset[str]) -> float:
    """Jaccard similarity, 0 to 1."""
    return len(left & right) / len(left | right)
