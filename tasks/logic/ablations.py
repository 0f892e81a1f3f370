"""Drafts taken away or changed, one thing at a time, to see what the aligned model makes of them (ALGORITHMS 8.1).

Every function changes what the rewrite prompt shows and nothing else: same questions, same order, same gold.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, pairwise

from tasks.contracts.failures import DataError
from tasks.contracts.readings import kind_of
from tasks.contracts.rows import Arm, Drafted, Verdict
from tasks.logic.answers import turn
from tasks.logic.benchmarks import Benchmark

NEIGHBOURS = 8  # drafts of like length that are shuffled among themselves: fewer match length better, more give shuffles that differ
LENGTH_SLACK = 0.25  # share of the longer draft by which two drafts of like length may differ
FILLER = "This line is here to fill the space and it tells the reader nothing about the matter at hand."


@dataclass(frozen=True, kw_only=True)
class Ablated:
    """The rows of one arm with their changed drafts, the arm whose prompt shows them, and how many could not be changed as intended, by reason."""

    rows: list[Drafted]
    prompt: Arm
    unmatched: dict[str, int]


def ablated(rows: Sequence[Drafted], *, arm: str, benchmark: Benchmark, seed: int) -> Ablated:
    """`rows` as `arm` shows them. An arm that leaves the draft alone gives them back; numbered shuffles each draw from a seed of their own."""
    match kind_of(arm):
        case Arm.SHUFFLED_DRAFT:
            made, unmatched = shuffled(rows, seed=f"{seed}|{arm}")
            return Ablated(rows=made, prompt=Arm.REWRITE, unmatched=unmatched)
        case Arm.NEUTRAL_DRAFT:
            return Ablated(rows=[_redrafted(row, neutral(row.draft)) for row in rows], prompt=Arm.REWRITE, unmatched={})
        case Arm.DRAFT_QUESTIONS:
            made = [_redrafted(row, _asking(row.draft_questions, benchmark), questions=row.draft_questions) for row in rows]
            return Ablated(rows=made, prompt=Arm.REWRITE, unmatched=_counts({"draft without a question": sum(not row.draft for row in made)}))
        case Arm.DRAFT_VERDICT:
            made = [_redrafted(row, _guessing(row.draft_verdict, benchmark), verdict=row.draft_verdict) for row in rows]
            return Ablated(rows=made, prompt=Arm.REWRITE, unmatched=_counts({"draft without a verdict": sum(not row.draft for row in made)}))
        case own:
            return Ablated(rows=list(rows), prompt=own, unmatched={})


def neutral(draft: str) -> str:
    """As many words as `draft` has in its own turn, that say nothing and hold neither a question nor a verdict."""
    return " ".join(islice(cycle(FILLER.split()), _words(draft)))


def shuffled(rows: Sequence[Drafted], *, seed: int | str) -> tuple[list[Drafted], dict[str, int]]:
    """Every question with the draft of another one, of the same verdict and of like length; and what could not be matched, by reason.

    A derangement: each draft is used once, none stays with its question. A verdict that only one draft has cannot be matched; a question may get words
    equal to its own where drafts repeat one another, because turning those away would make a shuffled draft tell what its own one says. Raises
    DataError for fewer than two questions.
    """
    if len(rows) < 2:
        raise DataError(f"drafts cannot be shuffled over {len(rows)} questions; set recipe.ablate.questions to at least 2, or 0 for all")
    rng = random.Random(seed)
    donors = [0] * len(rows)
    for group in _groups(rows):
        for block in _blocks(sorted(group, key=lambda place: (_words(rows[place].draft), rng.random())), rng=rng):
            for place, donor in _cycle(block, rng=rng).items():
                donors[place] = donor
    pairs = [(row, rows[donor]) for row, donor in zip(rows, donors, strict=True)]
    reasons: Counter[str] = Counter()
    for row, other in pairs:
        lengths = sorted((_words(row.draft), _words(other.draft)))
        reasons["other verdict"] += row.draft_verdict != other.draft_verdict
        reasons["other length"] += lengths[1] - lengths[0] > LENGTH_SLACK * lengths[1]
        reasons["same text"] += row.draft == other.draft
    made = [replace(row, draft=other.draft, draft_verdict=other.draft_verdict, draft_questions=other.draft_questions) for row, other in pairs]
    return made, _counts(reasons)


def _groups(rows: Sequence[Drafted]) -> list[list[int]]:
    """Places by draft verdict, each group of two or more; verdicts that occur once are put together, a single one of these into the largest group."""
    by_verdict: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_verdict[row.draft_verdict].append(place)
    groups = [group for group in by_verdict.values() if len(group) > 1]
    alone = [group[0] for group in by_verdict.values() if len(group) == 1]
    if len(alone) > 1:
        groups.append(alone)
    elif alone:
        max(groups, key=len).extend(alone)
    return groups


def _blocks(places: Sequence[int], *, rng: random.Random) -> list[Sequence[int]]:
    """Runs of up to NEIGHBOURS places, never of one; the first is of random length, so that shuffles do not all cut at the same places."""
    cuts = [0, *range(rng.randint(2, NEIGHBOURS), len(places) - 1, NEIGHBOURS), len(places)]
    return [places[start:end] for start, end in pairwise(cuts)]


def _cycle(block: Sequence[int], *, rng: random.Random) -> dict[int, int]:
    """A random cyclic order: every place takes from the next one, so none keeps its own."""
    order = rng.sample(block, len(block))
    return dict(zip(order, [*order[1:], order[0]], strict=True))


def _asking(questions: Sequence[str], benchmark: Benchmark) -> str:
    """Clarifying questions as a draft has them; "" where there are none."""
    return " ".join([benchmark.draft_prefix, *questions]) if questions else ""


def _guessing(verdict: str, benchmark: Benchmark) -> str:
    """A verdict as a draft has it; "" where it has none."""
    return "" if verdict == Verdict.UNPARSED else benchmark.direct_completion(verdict)


def _redrafted(row: Drafted, draft: str, *, verdict: str = Verdict.UNPARSED.value, questions: tuple[str, ...] = ()) -> Drafted:
    return replace(row, draft=draft, draft_verdict=verdict, draft_questions=questions)


def _words(draft: str) -> int:
    return len(turn(draft).split())


def _counts(reasons: Counter[str] | dict[str, int]) -> dict[str, int]:
    """Reasons that occurred."""
    return {reason: count for reason, count in reasons.items() if count}
