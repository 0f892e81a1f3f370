"""Preference pairs of one round of the self-guided loop: a student's own right against its own wrong chains, and some of the first alignment's again.

On top of the rules of `pairs` (ALGORITHMS 5.3): a chosen own sample must have passed validation, and pairs whose sides are nearly the same words are left
out, because all that they teach is the verdict token.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from tasks.contracts.recipes import PairRecipe
from tasks.contracts.rounds import Attempt
from tasks.contracts.rows import Arm, Curated, Drafted, Pair, Verdict
from tasks.logic.benchmarks import Benchmark
from tasks.logic.pairs import Paired, balance_chosen, own_pair, pair_fault, same_facts

MIDDLING = (0.125, 0.875)  # pass rates, bounds included, of questions that teach most: outside, all samples but one say the same
TextKey = tuple[str, str, str, str, str]


def round_pairs(
    attempts: Sequence[Attempt],
    *,
    drafted: Sequence[Drafted],
    curated: Sequence[Curated],
    arm: Arm,
    recipe: PairRecipe,
    max_similarity: float,
    benchmark: Benchmark,
    seed: int,
) -> Paired:
    """Fresh pairs, at most `recipe.per_question` a question, as many that choose yes as no."""
    rows = {row.qid: row for row in drafted}
    taught: dict[str, list[Curated]] = defaultdict(list)
    for row in curated:
        taught[row.qid].append(row)
    own: dict[str, list[Attempt]] = defaultdict(list)
    for each in attempts:
        own[each.qid].append(each)
    away: Counter[str] = Counter()
    pairs: list[Pair] = []
    for qid, tries in own.items():
        chosen = _to_follow(tries, taught[qid], benchmark)
        wrong = [each.text for each in tries if each.verdict not in (each.answer, Verdict.UNPARSED)]
        if chosen and wrong:
            pairs += _question_pairs(rows[qid], arm, chosen, wrong, recipe=recipe, max_similarity=max_similarity, benchmark=benchmark, away=away)
        else:
            away["questions without a wrong sample" if chosen else "questions without a chain to follow"] += 1
    balanced = _balanced(pairs, {qid: _pass_rate(tries) for qid, tries in own.items()}, seed=seed)
    away["dropped to balance the chosen classes"] = len(pairs) - len(balanced)
    return Paired(pairs=balanced, turned_away=dict(+away))


def with_replay(fresh: Sequence[Pair], first: Sequence[Pair], *, arm: Arm, share: float, seed: int) -> list[Pair]:
    """Fresh pairs, then so many of the first alignment's of this arm that they are `share` of all, both classes in turn; fewer where there are not so many."""
    known = {text_key(pair) for pair in fresh}
    pool = [pair for pair in first if pair.arm == arm and text_key(pair) not in known]
    random.Random(seed).shuffle(pool)
    turns: Counter[str] = Counter()
    ranked = []
    for pair in pool:
        ranked.append((turns[pair.answer], pair))
        turns[pair.answer] += 1
    ranked.sort(key=lambda each: each[0])
    wanted = len(pool) if share == 1 else round(len(fresh) * share / (1 - share))
    return [*fresh, *(pair for _, pair in ranked[: wanted if fresh else 0])]


def fresh_pairs(pairs: Sequence[Pair], first: Sequence[Pair]) -> list[Pair]:
    """A round's pairs without those of the first alignment, whatever the reference that read them since."""
    known = {text_key(pair) for pair in first}
    return [pair for pair in pairs if text_key(pair) not in known]


def that_fit(read: Sequence[Pair], first: Sequence[Pair], *, arm: Arm, share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Fresh pairs and all pairs where some were too long to be read: the chosen classes balanced again, replayed pairs cut to their share."""
    fresh, known = balance_chosen(fresh_pairs(read, first), seed=seed), {text_key(pair) for pair in first}
    return fresh, with_replay(fresh, [pair for pair in read if text_key(pair) in known], arm=arm, share=share, seed=seed)


def paired(pairs: Sequence[Pair], fresh: Sequence[Pair], *, turned_away: Mapping[str, int], questions: int) -> dict[str, object]:
    """The figures of a round's pairs; "yield" is fresh pairs a question explored."""
    return {
        "fresh": len(fresh),
        "replayed": len(pairs) - len(fresh),
        "by_class": dict(Counter(pair.answer for pair in pairs)),
        "by_source": dict(Counter(pair.chosen_source for pair in fresh)),
        "turned_away": dict(turned_away),
        "questions": questions,
        "yield": len(fresh) / questions if questions else 0.0,
    }


def text_key(pair: Pair) -> TextKey:
    """What makes a pair the pair that it is, apart from what any student thinks of it."""
    return pair.qid, pair.arm, pair.prompt, pair.chosen, pair.rejected


def _to_follow(tries: Sequence[Attempt], taught: Sequence[Curated], benchmark: Benchmark) -> list[tuple[str, str]]:
    """Texts to choose with their source, best first: own valid right samples, those with the teacher's facts before others; without any, the teacher's."""
    right = dict.fromkeys(each.text for each in tries if each.valid and each.verdict == each.answer)
    own = sorted(right, key=lambda text: not any(same_facts(text, row, benchmark) for row in taught))
    if own:
        return [(text, "own") for text in own]
    return [
        (benchmark.completion(asked=row.asked, answered=row.answered, reasoning=row.reasoning, answer=row.answer), "teacher")
        for row in taught
        if row.reasoning and row.verdict == row.answer
    ]


def _question_pairs(
    row: Drafted,
    arm: Arm,
    chosen: Sequence[tuple[str, str]],
    wrong: Sequence[str],
    *,
    recipe: PairRecipe,
    max_similarity: float,
    benchmark: Benchmark,
    away: Counter[str],
) -> list[Pair]:
    """For each different wrong text the best text to follow that fits it; where none does, the best one's fault is counted."""
    prompt = benchmark.prompt(arm, row)
    pairs: list[Pair] = []
    for rejected in dict.fromkeys(wrong):
        if len(pairs) == recipe.per_question:
            break
        faults = []
        for text, source in chosen:
            fault = pair_fault(prompt, text, rejected, max_length_ratio=recipe.max_length_ratio) or _too_alike(text, rejected, most=max_similarity)
            if not fault:
                pairs.append(own_pair(row, arm, prompt, chosen=text, rejected=rejected, source=source))
                break
            faults.append(fault)
        else:
            away[faults[0]] += 1
    return pairs


def _too_alike(chosen: str, rejected: str, *, most: float) -> str:
    alike = SequenceMatcher(None, chosen.split(), rejected.split(), autojunk=False).ratio()
    return "sides too much alike" if alike > most else ""


def _pass_rate(tries: Sequence[Attempt]) -> float:
    return sum(each.verdict == each.answer for each in tries) / len(tries)


def _balanced(pairs: Sequence[Pair], rates: Mapping[str, float], *, seed: int) -> list[Pair]:
    """As many pairs choosing yes as no, in order; of the larger class those of questions that nearly all samples get right, or wrong, go first."""
    rng = random.Random(seed)
    size = min(sum(pair.answer == answer for pair in pairs) for answer in ("yes", "no"))
    kept: set[int] = set()
    for answer in ("yes", "no"):
        places = [place for place, pair in enumerate(pairs) if pair.answer == answer]
        rng.shuffle(places)
        places.sort(key=lambda place: not MIDDLING[0] <= rates[pairs[place].qid] <= MIDDLING[1])
        kept.update(places[:size])
    return [pair for place, pair in enumerate(pairs) if place in kept]
