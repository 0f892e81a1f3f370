"""Preference pairs from the student's own samples: format-matched, length-matched, the chosen classes balanced (ALGORITHMS 5.3).

Both sides share one skeleton. The rejected side is always an own sample with a wrong verdict; the chosen side is an own sample with the
right verdict whose stated facts are the teacher's, else the teacher's chain: a right verdict from wrong facts is no example to follow.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.contracts.recipes import PairRecipe
from tasks.contracts.rows import Arm, Completion, Curated, Drafted, Pair, Taught, Verdict
from tasks.logic.benchmarks import Benchmark

TOO_LONG = "too long to train on"


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Pairs, and how many candidates each rule turned away."""

    pairs: list[Pair]
    turned_away: dict[str, int]


def pair_questions(curated: Sequence[Curated]) -> list[Curated]:
    """One row for each question that pairs are sampled on: those held out of SFT, or all where none was held out.

    Where nobody asked the teacher there are neither facts to hold an own sample to nor a chain to choose instead, so such questions are left out.
    """
    reasoned = [row for row in curated if row.provenance != "unasked"]
    held = [row for row in reasoned if row.role == "pair"] or reasoned
    return list({row.qid: row for row in reversed(held)}.values())[::-1]


def build_pairs(curated: Sequence[Curated], completions: Sequence[Completion], *, recipe: PairRecipe, benchmark: Benchmark, seed: int) -> Paired:
    """Pairs of all questions and arms, at most `recipe.per_question` a question and arm."""
    rows = {row.qid: row for row in reversed(curated)}
    samples: dict[tuple[str, str], list[Completion]] = defaultdict(list)
    for completion in completions:
        samples[completion.qid, completion.arm].append(completion)
    away: Counter[str] = Counter()
    pairs: list[Pair] = []
    for (qid, arm), own in samples.items():
        pairs += _question_pairs(rows[qid], Arm(arm), own, recipe=recipe, benchmark=benchmark, away=away)
    balanced = balance_chosen(pairs, seed=seed)
    away["dropped to balance the chosen classes"] = len(pairs) - len(balanced)
    return Paired(pairs=balanced, turned_away=dict(away))


def balance_chosen(pairs: Sequence[Pair], *, seed: int) -> list[Pair]:
    """As many pairs choosing yes as no in each arm; the surplus is dropped at random, the order kept."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        groups[pair.arm, pair.answer].append(index)
    rng = random.Random(seed)
    kept: set[int] = set()
    for arm in sorted({pair.arm for pair in pairs}):
        size = min(len(groups[arm, answer]) for answer in ("yes", "no"))
        for answer in ("yes", "no"):
            kept.update(rng.sample(groups[arm, answer], size))
    return [pair for index, pair in enumerate(pairs) if index in kept]


def without_drafts(pairs: Sequence[Pair], curated: Sequence[Curated], *, benchmark: Benchmark) -> list[Pair]:
    """The very same pairs, in their order and with their suspicion, the draft taken out of every rewrite prompt."""
    rows = {row.qid: row for row in curated}
    return [replace(pair, arm=Arm.NO_DRAFT, prompt=benchmark.prompt(Arm.NO_DRAFT, rows[pair.qid])) if pair.arm == Arm.REWRITE else pair for pair in pairs]


def with_disagreement(pairs: Sequence[Pair], taught: Sequence[Taught]) -> list[Pair]:
    """Pairs with their suspicion score in [0, 1]: rank-average of the teacher's own disagreement (weight 0.5) and the reference's sign (0.2), ALGORITHMS 3.2.

    The third part, the policy's first-sight margin (0.3), is known only while training and is added there.
    """
    votes: dict[str, list[bool]] = defaultdict(list)
    for row in taught:
        if not row.hinted and row.verdict != Verdict.UNPARSED:
            votes[row.qid].append(row.verdict == row.answer)
    teacher = [1.0 - sum(votes[pair.qid]) / len(votes[pair.qid]) if votes[pair.qid] else 1.0 for pair in pairs]
    reference = [max(0.0, _per_word(pair.reference_rejected, pair.rejected) - _per_word(pair.reference_chosen, pair.chosen)) for pair in pairs]
    scores = [(0.5 * t + 0.2 * r) / 0.7 for t, r in zip(_ranks(teacher), _ranks(reference), strict=True)]
    return [replace(pair, disagreement=score) for pair, score in zip(pairs, scores, strict=True)]


def _question_pairs(row: Curated, arm: Arm, own: Sequence[Completion], *, recipe: PairRecipe, benchmark: Benchmark, away: Counter[str]) -> list[Pair]:
    wrong: list[str] = []
    right: list[str] = []
    for completion in own:
        verdict = benchmark.parse(completion.text, cut=completion.cut)
        if verdict is Verdict.UNPARSED:
            away["own sample without a verdict"] += 1
        else:
            (right if verdict == row.answer else wrong).append(completion.text)
    teacher = benchmark.completion(asked=row.asked, answered=row.answered, reasoning=row.reasoning, answer=row.answer)
    faithful = [text for text in right if same_facts(text, row, benchmark)]
    chosen, source = (faithful[0], "own") if faithful else (teacher, "teacher")
    prompt = benchmark.prompt(arm, row)
    pairs: list[Pair] = []
    for rejected in dict.fromkeys(wrong):
        fault = pair_fault(prompt, chosen, rejected, max_length_ratio=recipe.max_length_ratio)
        if fault:
            away[fault] += 1
        elif len(pairs) < recipe.per_question:
            pairs.append(own_pair(row, arm, prompt, chosen=chosen, rejected=rejected, source=source))
    return pairs


def pair_fault(prompt: str, chosen: str, rejected: str, *, max_length_ratio: float) -> str:
    """Why two texts make no pair, "" where they do."""
    lengths = sorted((len(chosen.split()), len(rejected.split())))
    if lengths[1] > max_length_ratio * max(lengths[0], 1):
        return "lengths too far apart"
    if rejected in prompt:
        return "rejected text stands in the prompt"
    return "chosen equals rejected" if _normal(chosen) == _normal(rejected) else ""


def same_facts(text: str, row: Curated, benchmark: Benchmark) -> bool:
    """Whether a chain states all of the teacher's answers to the clarifying questions."""
    stated = {_normal(answer) for answer in benchmark.parse_skeleton(text).answered}
    return bool(row.answered) and {_normal(answer) for answer in row.answered} <= stated


def own_pair(row: Drafted, arm: Arm, prompt: str, *, chosen: str, rejected: str, source: str) -> Pair:
    """A pair whose rejected side is an own sample; nothing has read it yet."""
    return Pair(
        qid=row.qid,
        arm=arm,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        answer=row.answer,
        chosen_source=source,
        rejected_source="own",
        kind="draft_right" if row.draft_verdict == row.answer else "draft_wrong",
        disagreement=0.0,
        reference_chosen=0.0,
        reference_rejected=0.0,
        reference="",
    )


def _normal(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def _per_word(log_prob: float, text: str) -> float:
    return log_prob / max(len(text.split()), 1)


def _ranks(values: Sequence[float]) -> list[float]:
    """Mid-ranks scaled to [0, 1]; all 0.5 where everything ties."""
    order = sorted(values)
    first: Mapping[float, int] = {value: index for index, value in reversed(list(enumerate(order)))}
    counts = Counter(values)
    last = max(len(values) - 1, 1)
    return [0.5 if counts[value] == len(values) else (first[value] + (counts[value] - 1) / 2) / last for value in values]
