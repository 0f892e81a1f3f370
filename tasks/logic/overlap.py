"""Questions that stand in two places: under the same id, in the same text, in mostly the same words, or nearly the same characters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.contracts.rows import Question
from tasks.logic.sampling import normalised

WORDS = 5  # length of a word n-gram: questions have ten words, so the 8-grams of web-scale audits would see only copies
CHARACTERS = 5  # length of a character n-gram
ALIKE = 0.8  # containment, and Jaccard similarity, from which two questions count as one
_PERMUTATIONS = 128
_CANDIDATE = 0.5  # far below ALIKE: candidates are checked exactly, so hashing may only err by proposing too many


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two questions of different ids that are too much alike. `containment` is of the smaller one's word 5-grams, `jaccard` over character 5-grams."""

    left: str
    right: str
    same_text: bool
    containment: float
    jaccard: float


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How many questions of `right` have a counterpart in `left`, by four measures; the same question counts under each of them."""

    left: str
    right: str
    left_size: int
    right_size: int
    same_id: int
    same_text: int
    contained: int
    near: int

    @property
    def most(self) -> int:
        """The count by the measure that finds most."""
        return max(self.same_id, self.same_text, self.contained, self.near)


@dataclass(frozen=True, kw_only=True)
class Crossing(Match):
    """A match between two parts, with the texts: `left` stands in `left_part`. `left_out` is the one that the pipeline does not read, "" for none."""

    left_out: str
    left_part: str
    right_part: str
    left_text: str
    right_text: str


def word_grams(text: str) -> frozenset[str]:
    """Word 5-grams of a normalised text; a shorter text is one gram of its own."""
    words = text.split()
    return frozenset(" ".join(words[start : start + WORDS]) for start in range(max(1, len(words) - WORDS + 1)))


def character_grams(text: str) -> frozenset[str]:
    """Character 5-grams of a normalised text; a shorter text is one gram of its own."""
    return frozenset(text[start : start + CHARACTERS] for start in range(max(1, len(text) - CHARACTERS + 1)))


def find_matches(questions: Mapping[str, str]) -> list[Match]:
    """All pairs of `questions` (text by id) with the same normalised text, containment or Jaccard similarity of at least `ALIKE`, most alike first."""
    texts = {qid: normalised(text) for qid, text in questions.items()}
    words = {qid: word_grams(text) for qid, text in texts.items()}
    characters = {qid: character_grams(text) for qid, text in texts.items()}
    order = {qid: rank for rank, qid in enumerate(questions)}
    matches = []
    for left, right in sorted(_containing(words) | _hashed_alike(characters), key=lambda pair: (order[pair[0]], order[pair[1]])):
        match = Match(
            left=left,
            right=right,
            same_text=texts[left] == texts[right],
            containment=containment(words[left], words[right]),
            jaccard=jaccard(characters[left], characters[right]),
        )
        if match.same_text or match.containment >= ALIKE or match.jaccard >= ALIKE:
            matches.append(match)
    return sorted(matches, key=lambda each: (-each.jaccard, -each.containment))


def containment(left: frozenset[str], right: frozenset[str]) -> float:
    """Share of the smaller set that lies in the other, 0 to 1 (Broder 1997)."""
    return len(left & right) / min(len(left), len(right))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Common share of both sets together, 0 to 1."""
    return len(left & right) / len(left | right)


def overlaps(parts: Mapping[str, Sequence[Question]], pairs: Iterable[tuple[str, str]], matches: Sequence[Match]) -> list[Overlap]:
    """One line for each of `pairs`, names of `parts`."""
    ids = {name: {question.qid for question in questions} for name, questions in parts.items()}
    measures = {
        "same_id": _counterparts(()),
        "same_text": _counterparts(match for match in matches if match.same_text),
        "contained": _counterparts(match for match in matches if match.containment >= ALIKE),
        "near": _counterparts(match for match in matches if match.jaccard >= ALIKE),
    }
    return [
        Overlap(
            left=left,
            right=right,
            left_size=len(ids[left]),
            right_size=len(ids[right]),
            **{name: sum(not ids[left].isdisjoint({qid, *others[qid]}) for qid in ids[right]) for name, others in measures.items()},
        )
        for left, right in pairs
    ]


def crossings(parts: Mapping[str, Sequence[Question]], matches: Sequence[Match], *, read: Container[str]) -> list[Crossing]:
    """The matches whose two questions lie in different ones of `parts`, which share no id; the earlier part is on the left. `read` are the ids in use."""
    homes = {question.qid: (rank, name, question.question) for rank, (name, questions) in enumerate(parts.items()) for question in questions}
    found = []
    for match in matches:
        if match.left not in homes or match.right not in homes or homes[match.left][0] == homes[match.right][0]:
            continue
        left, right = sorted((match.left, match.right), key=lambda qid: homes[qid][0])
        found.append(
            Crossing(
                left=left,
                right=right,
                same_text=match.same_text,
                containment=match.containment,
                jaccard=match.jaccard,
                left_out=next((qid for qid in (left, right) if qid not in read), ""),
                left_part=homes[left][1],
                right_part=homes[right][1],
                left_text=homes[left][2],
                right_text=homes[right][2],
            )
        )
    return found


def _counterparts(matches: Iterable[Match]) -> defaultdict[str, set[str]]:
    others: defaultdict[str, set[str]] = defaultdict(set)
    for match in matches:
        others[match.left].add(match.right)
        others[match.right].add(match.left)
    return others


def _containing(grams: Mapping[str, frozenset[str]]) -> set[tuple[str, str]]:
    """Every pair of which one may hold `ALIKE` of the other's grams.

    It must then hold one of the other's rarest (1 - ALIKE) n + 1 grams, so only these are looked up (prefix filtering, Chaudhuri et al. 2006).
    """
    index: defaultdict[str, list[str]] = defaultdict(list)
    for qid, own in grams.items():
        for gram in own:
            index[gram].append(qid)
    order = {qid: rank for rank, qid in enumerate(grams)}
    pairs = set()
    for qid, own in grams.items():
        rarest = sorted(own, key=lambda gram: (len(index[gram]), gram))[: len(own) - math.ceil(ALIKE * len(own)) + 1]
        pairs |= {_ordered(qid, other, order) for gram in rarest for other in index[gram] if other != qid}
    return pairs


def _hashed_alike(grams: Mapping[str, frozenset[str]]) -> set[tuple[str, str]]:
    """Pairs that share a band of their MinHash signatures (Broder 1997; Indyk and Motwani 1998)."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=_CANDIDATE, num_perm=_PERMUTATIONS)
    encoded = [[gram.encode() for gram in sorted(own)] for own in grams.values()]
    signatures = dict(zip(grams, MinHash.bulk(encoded, num_perm=_PERMUTATIONS), strict=True))
    for qid, signature in signatures.items():
        index.insert(qid, signature)
    order = {qid: rank for rank, qid in enumerate(grams)}
    return {_ordered(qid, str(other), order) for qid, signature in signatures.items() for other in index.query(signature) if other != qid}


def _ordered(one: str, other: str, order: Mapping[str, int]) -> tuple[str, str]:
    return (one, other) if order[one] < order[other] else (other, one)
