"""Training text of every track. A track is data: which arms it trains and on what; one trainer serves them all."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from tasks.contracts.readings import Track
from tasks.contracts.rows import Arm, Curated, Example, Taught
from tasks.logic.balance import occurrences
from tasks.logic.benchmarks import Benchmark


class TrainingLength(NamedTuple):
    """How long to train instead of the recipe's epochs; both None = the epochs."""

    steps: int | None
    tokens: int | None


def training_length(track: Track, matched: Mapping[str, Any]) -> TrainingLength:
    """Steps or tokens of the run that `track` is matched to; `matched` is that run's summary, empty where nothing is matched."""
    match track:
        case Track.TRACK_A_MATCHED:
            return TrainingLength(steps=int(matched["steps"]), tokens=None)
        case Track.FACTS_ONLY:
            return TrainingLength(steps=None, tokens=int(matched["tokens"]))
        case _:
            return TrainingLength(steps=None, tokens=None)


def sft_examples(
    curated: Sequence[Curated], *, track: Track, benchmark: Benchmark, reasoning: Literal["completion", "prompt"], direct_weight: float, seed: int
) -> list[Example]:
    """Examples of one track, from the questions whose role is "sft".

    Track A and its matched twin: one direct example a question. Track B: the reasoning of every curated reply as the completion (or in the
    prompt, as the original project had it), with a direct example beside it where `direct_weight` > 0. facts_only: Track A plus each gold fact
    once as plain text. shuffled_rationale: Track B's text with another question's reasoning under the question's own verdict. A question that
    rebalancing repeats has its examples as often. One that nobody asked the teacher about has its direct example in every track, in Track B
    with the weight of the others' direct examples, so that all see the same questions and gold labels.
    """
    rows = [row for row in curated if row.role == "sft"]
    reasoned = [row for row in rows if row.provenance != "unasked"]
    alone = direct_weight if track is Track.TRACK_B and direct_weight else 1.0
    bare = [replace(_direct(row, benchmark, weight=alone * row.weight), verdict_factor=row.verdict_factor) for row in rows if row.provenance == "unasked"]
    match track:
        case Track.TRACK_A | Track.TRACK_A_MATCHED:
            return [_direct(row, benchmark, weight=row.direct_weight) for row in occurrences(rows)]
        case Track.FACTS_ONLY:
            facts = list(dict.fromkeys(fact for row in rows for fact in row.facts))
            return [_direct(row, benchmark, weight=row.direct_weight) for row in occurrences(rows)] + [_fact(fact) for fact in facts]
        case Track.TRACK_B:
            direct = [_direct(row, benchmark, weight=direct_weight * row.direct_weight) for row in occurrences(reasoned)] if direct_weight else []
            return [_reasoned(row, benchmark, reasoning=reasoning) for row in reasoned] + direct + bare
        case Track.SHUFFLED_RATIONALE:
            return [_reasoned(row, benchmark, reasoning=reasoning) for row in shuffled_rationales(reasoned, seed=seed)] + bare


def counterfactual_examples(curated: Sequence[Curated], taught: Sequence[Taught], *, benchmark: Benchmark, weight: float) -> list[Example]:
    """Replies that argued for the other verdict, as text whose verdict alone is learned: a student must follow its reasoning (SCOTT, Wang et al. 2023).

    A question of the role "sft" gives as many as it has curated rows, or as many different ones as its teacher wrote unhinted, where that is fewer.
    """
    rows = Counter(row.qid for row in curated if row.role == "sft")
    argued: dict[str, dict[str, Taught]] = {qid: {} for qid in rows}
    for reply in taught:
        if reply.qid in rows and reply.verdict in benchmark.classes and reply.verdict != reply.answer and reply.reasoning and not reply.hinted:
            argued[reply.qid].setdefault(reply.reasoning, reply)
    chosen = [reply for qid, replies in argued.items() for reply in list(replies.values())[: rows[qid]]]
    return [_counterfactual(reply, benchmark, weight=weight) for reply in chosen]


def reasoning_example(row: Curated, benchmark: Benchmark, *, arm: Arm) -> Example:
    """The whole skeleton as the completion of the prompt that evaluation will use."""
    completion = benchmark.completion(asked=row.asked, answered=row.answered, reasoning=row.reasoning, answer=row.answer)
    return Example(
        qid=row.qid,
        arm=arm,
        prompt=benchmark.prompt(arm, row),
        completion=completion,
        answer=row.answer,
        weight=row.weight,
        verdict_factor=row.verdict_factor,
        reasoning_factor=1.0,
    )


def shuffled_rationales(rows: Sequence[Curated], *, seed: int) -> list[Curated]:
    """Each row with the questions, answers and reasoning of another question; nobody keeps their own where there are two questions or more."""
    order = sorted(range(len(rows)), key=lambda index: rows[index].qid)
    random.Random(seed).shuffle(order)
    donors = {index: _donor(order, place, rows) for place, index in enumerate(order)}
    return [
        replace(row, asked=donor.asked, answered=donor.answered, reasoning=donor.reasoning)
        for row, donor in ((row, rows[donors[index]]) for index, row in enumerate(rows))
    ]


def _donor(order: Sequence[int], place: int, rows: Sequence[Curated]) -> int:
    """The next row in the shuffled cycle that belongs to another question."""
    own = rows[order[place]].qid
    cycle = [*order[place + 1 :], *order[:place]]
    return next((index for index in cycle if rows[index].qid != own), order[place])


def _counterfactual(reply: Taught, benchmark: Benchmark, *, weight: float) -> Example:
    return Example(
        qid=reply.qid,
        arm=Arm.COUNTERFACTUAL,
        prompt=benchmark.prompt(Arm.COUNTERFACTUAL, reply),
        completion=benchmark.completion(asked=reply.asked, answered=reply.answered, reasoning=reply.reasoning, answer=reply.verdict),
        answer=reply.verdict,
        weight=weight,
        verdict_factor=1.0,
        reasoning_factor=0.0,
    )


def _reasoned(row: Curated, benchmark: Benchmark, *, reasoning: Literal["completion", "prompt"]) -> Example:
    if reasoning == "completion":
        return reasoning_example(row, benchmark, arm=Arm.REASONING)
    said = benchmark.completion(asked=row.asked, answered=row.answered, reasoning=row.reasoning, answer=row.answer)
    given = benchmark.given_prompt(row.question, said)
    return replace(_direct(row, benchmark, weight=row.weight), prompt=given, verdict_factor=row.verdict_factor)


def _direct(row: Curated, benchmark: Benchmark, *, weight: float) -> Example:
    prompt = benchmark.prompt(Arm.DIRECT, row)
    completion = benchmark.direct_completion(row.answer)
    return Example(
        qid=row.qid,
        arm=Arm.DIRECT,
        prompt=prompt,
        completion=completion,
        answer=row.answer,
        weight=weight,
        verdict_factor=1.0,
        reasoning_factor=1.0,
    )


def _fact(fact: str) -> Example:
    return Example(qid="", arm=Arm.FACTS, prompt="", completion=fact, answer="", weight=1.0, verdict_factor=1.0, reasoning_factor=1.0)
