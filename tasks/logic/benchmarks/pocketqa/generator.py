"""pocketqa's questions: every clear pair of entities, split by pair, drawn so that entities and answers stay even."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Question
from tasks.logic.benchmarks.pocketqa.comparisons import ATTRIBUTES, COMPARISONS, WORDINGS, Comparison, Wording, capitalised
from tasks.logic.benchmarks.yes_no import Rationale
from tasks.logic.sampling import normalised, require

SPLITS = ("train", "dev", "test", "entity_disjoint")
_HELD_OUT = 0.18  # share of each attribute's entities that only entity_disjoint asks about
_TRAIN, _DEV = 0.48, 0.18  # shares of the pairs of the other entities; test has the rest


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two entities that can be compared; of a symmetric comparison the one with the smaller value stands left."""

    comparison: Comparison
    left: str
    right: str
    split: str


def sample(*, split: str, n: int, seed: int, kinds: Sequence[str] | None = None) -> list[Question]:
    """`n` questions of `split` (0 = all there are), seeded; only of `kinds` where given.

    Which pairs belong to a split depends on neither n nor seed. The draw takes next the pair whose entities were asked about least so far, so a small
    draw already covers the entities; yes and no differ by at most one in every kind; a smaller draw is the beginning of a larger one.
    Raises DataError, naming the maximum, when there are fewer than n, and for a kind that does not exist.
    """
    if unknown := sorted(set(kinds or ()) - set(WORDINGS)):
        raise DataError(f"recipe.sample.kinds: pocketqa has no kind {', '.join(unknown)}; it has {', '.join(sorted(WORDINGS))}")
    draw = _Draw(split=split, seed=seed, kinds=frozenset(WORDINGS if kinds is None else kinds))
    questions: list[Question] = []
    while (n == 0 or len(questions) < n) and (question := draw.next()) is not None:
        questions.append(question)
    require(n, available=len(questions), split=split)
    return questions


def rationale(question: Question) -> Rationale:
    """What a perfect teacher says: the two sub-questions, the two facts, and one sentence that compares them in the question's own words."""
    comparison, _ = WORDINGS[question.kind]
    left, right = question.entities
    less = comparison.is_less(left, right)
    relation = comparison.relation[0 if less else 1]
    conclusion = (comparison.less if less else comparison.more).format(left, right)
    return Rationale(
        asked=(comparison.left.question(left), comparison.right.question(right)),
        answered=(comparison.left.fact(left), comparison.right.fact(right)),
        reasoning=f"{comparison.left.show(left)} is {relation} {comparison.right.show(right)}, so {conclusion}.",
    )


def lookup(text: str) -> Question | None:
    """The question that reads `text` (case, spacing and punctuation aside), of whatever split; None where pocketqa has none."""
    found = _by_text().get(normalised(text))
    return _question(*found) if found else None


@cache
def held_out() -> frozenset[str]:
    """The fixed share of each attribute's entities that no split but entity_disjoint contains."""
    names: list[str] = []
    for attribute in ATTRIBUTES:
        names += sorted(attribute.values, key=lambda name: _hash("held out", name))[: math.ceil(_HELD_OUT * len(attribute.values))]
    return frozenset(names)


@cache
def pairs() -> tuple[Pair, ...]:
    """Every pair that can be asked. Pairs of a held-out entity with another one belong to no split and are left out."""
    return tuple(
        Pair(comparison=comparison, left=left, right=right, split=split)
        for comparison in COMPARISONS
        for left in comparison.left.values
        for right in comparison.right.values
        if comparison.clear(left, right) and (not comparison.symmetric or comparison.is_less(left, right)) and (split := _split(left, right))
    )


def _split(left: str, right: str) -> str:
    held = len(held_out() & {left, right})
    if held:
        return "entity_disjoint" if held == 2 else ""
    place = _hash("split", *sorted((left, right)))
    return "train" if place < _TRAIN else "dev" if place < _TRAIN + _DEV else "test"


@cache
def _by_text() -> dict[str, tuple[Pair, Wording, str]]:
    texts = {}
    for pair in pairs():
        for wording in pair.comparison.wordings:
            for answer in ("yes", "no"):
                if _askable(pair, wording, answer):
                    texts[normalised(_question(pair, wording, answer).question)] = (pair, wording, answer)
    return texts


def _wants_less(wording: Wording, answer: str) -> bool:
    """Whether `wording` has `answer` when its left value is the smaller one."""
    return (answer == "yes") == wording.yes_when_less


def _askable(pair: Pair, wording: Wording, answer: str) -> bool:
    return pair.comparison.symmetric or pair.comparison.is_less(pair.left, pair.right) == _wants_less(wording, answer)


def _question(pair: Pair, wording: Wording, answer: str) -> Question:
    """The question whose answer is `answer`; a symmetric pair is turned round where that takes it."""
    comparison = pair.comparison
    turned = comparison.symmetric and not _wants_less(wording, answer)
    left, right = (pair.right, pair.left) if turned else (pair.left, pair.right)
    relation = comparison.relation[0 if wording.yes_when_less else 1]
    return Question(
        qid=f"pq-{hashlib.sha256(f'{wording.kind}|{left}|{right}'.encode()).hexdigest()[:16]}",
        split=pair.split,
        kind=wording.kind,
        term=capitalised(left),
        description=comparison.left.noun,
        question=capitalised(wording.text.format(left, right)),
        answer=answer,
        facts=(comparison.left.fact(left), comparison.right.fact(right)),
        decomposition=(comparison.left.question(left), comparison.right.question(right), f"Is #1 {relation} #2?"),
        entities=(left, right),
    )


def _hash(*parts: str) -> float:
    """A number in [0, 1) that depends on nothing but `parts`."""
    return int.from_bytes(hashlib.sha256("|".join(parts).encode()).digest()[:8]) / 2**64


_Entry = tuple[int, int, float, int]  # how often both entities were asked about, the more frequent one, a seeded tie-break, place in the pool


class _Draw:
    """A draw in progress: how often each entity and each (kind, answer) came up, and heaps of the pairs still to be had."""

    def __init__(self, *, split: str, seed: int, kinds: frozenset[str]) -> None:
        self._seed = seed
        self._kinds = kinds
        self._pool = [pair for pair in pairs() if pair.split == split]
        self._asked: Counter[str] = Counter()
        self._tally: Counter[tuple[str, str]] = Counter()
        self._heaps: dict[tuple[int, bool], list[_Entry]] = {}
        for place, pair in enumerate(self._pool):
            tie = _hash(str(seed), *sorted((pair.left, pair.right)))
            self._heaps.setdefault(self._heap_key(pair.comparison, pair.comparison.is_less(pair.left, pair.right)), []).append((0, 0, tie, place))
        for heap in self._heaps.values():
            heapq.heapify(heap)

    def next(self) -> Question | None:
        """The next question, or None when every further one would unbalance its kind or there is no pair left."""
        options = [option for comparison in COMPARISONS if (option := self._option(comparison))]
        if not options:
            return None
        rarer = "yes" if self._tally["", "yes"] <= self._tally["", "no"] else "no"
        _, wording, answer, key = min(options, key=lambda option: (option[2] != rarer, option[0]))
        pair = self._pool[heapq.heappop(self._heaps[key])[3]]
        self._asked.update((pair.left, pair.right))
        self._tally.update([(wording.kind, answer), ("", answer)])
        return _question(pair, wording, answer)

    def _option(self, comparison: Comparison) -> tuple[_Entry, Wording, str, tuple[int, bool]] | None:
        """The comparison's next wording and answer with the least asked pair that allows them: the rarer answer first, then the rarer wording."""
        for wording, answer in self._choices(comparison):
            key = self._heap_key(comparison, _wants_less(wording, answer))
            if (top := self._top(key)) is not None:
                return top, wording, answer, key
        return None

    def _choices(self, comparison: Comparison) -> list[tuple[Wording, str]]:
        """Wordings and answers that keep their kind balanced within one, the answer and then the wording that came up least first."""
        tally = self._tally
        allowed = [
            (
                tally["", answer] - tally["", other],
                tally[wording.kind, answer] + tally[wording.kind, other],
                _hash(str(self._seed), wording.kind),
                wording,
                answer,
            )
            for wording in comparison.wordings
            if wording.kind in self._kinds
            for answer, other in (("yes", "no"), ("no", "yes"))
            if tally[wording.kind, answer] <= tally[wording.kind, other]
        ]
        return [(wording, answer) for *_, wording, answer in sorted(allowed, key=lambda choice: choice[:3])]

    def _top(self, key: tuple[int, bool]) -> _Entry | None:
        """The least asked pair of a heap, brought up to date: counts only grow, so a stale entry sinks when it comes up."""
        heap = self._heaps.get(key, [])
        while heap:
            entry = heap[0]
            pair = self._pool[entry[3]]
            counts = (self._asked[pair.left], self._asked[pair.right])
            fresh = (sum(counts), max(counts), entry[2], entry[3])
            if fresh == entry:
                return entry
            heapq.heapreplace(heap, fresh)
        return None

    @staticmethod
    def _heap_key(comparison: Comparison, less: bool) -> tuple[int, bool]:
        """Pairs of a symmetric comparison serve both truths, others only their own."""
        return COMPARISONS.index(comparison), less or comparison.symmetric
