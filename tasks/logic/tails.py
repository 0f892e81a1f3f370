"""How far a round's chosen texts have narrowed: tails that a self-guided loop loses before its accuracy shows it (ALGORITHMS 6.7; Ding et al. 2411.00750)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tasks.contracts.failures import DataError
from tasks.contracts.rounds import Attempt, Gauged, Tails
from tasks.contracts.rows import Pair

_BINS = 5
_UNLIKELY = 0.9  # quantile of the first alignment's perplexities above which a text was unlikely before the loop
Numbers = npt.NDArray[np.float64]


def no_tails() -> Tails:
    """Of the start, which chose nothing, and of a round that was given up: all nan."""
    return Tails(**{field.name: math.nan for field in fields(Tails)})


def tails(pairs: Sequence[Pair], *, attempts: Sequence[Attempt], source: Sequence[Attempt], gauged: Sequence[Gauged]) -> Tails:
    """Figures of a round from its fresh `pairs` (without replayed ones), its `attempts`, and its texts as gauged under Track B.

    `source` are the start student's samples of the same train questions: they say once and for all rounds how hard a question is. A chosen text counts as
    often as it stands in `pairs`. Figures of what there is none of are nan. Raises DataError when a question of the round has no sample in `source`.
    """
    bins = difficulty_bins(source)
    questions = list(dict.fromkeys(each.qid for each in attempts))
    if unknown := [qid for qid in [*questions, *(pair.qid for pair in pairs)] if qid not in bins]:
        raise DataError(f"{len(unknown)} questions of the round have no sample of the start student, e.g. {unknown[0]}; each round must ask the same questions")
    asked, chosen = (_histogram(bins, qids) for qids in (questions, [pair.qid for pair in pairs]))
    found = Counter(each.qid for each in attempts if each.valid and each.verdict == each.answer)
    perplexity, before = (_perplexities(gauged, role) for role in ("chosen", "source"))
    lengths = np.array([each.tokens for each in gauged if each.role == "chosen"], dtype=np.float64)
    return Tails(
        divergence=divergence(chosen, asked),
        hard_retention=_hard_retention(chosen, asked),
        coverage=len(found) / len(questions) if questions else math.nan,
        inequality=gini([found[qid] for qid in questions]),
        length_p10=_quantile(lengths, 0.1),
        length_p50=_quantile(lengths, 0.5),
        length_p90=_quantile(lengths, 0.9),
        perplexity_p50=_quantile(perplexity, 0.5),
        perplexity_p95=_quantile(perplexity, 0.95),
        unlikely=_share_above(perplexity, _quantile(before, _UNLIKELY)),
        distinct_2=distinct_2([pair.chosen for pair in pairs]),
    )


def difficulty_bins(source: Sequence[Attempt]) -> dict[str, int]:
    """Bin of each question by the share of right samples: 0 (under a fifth right, hardest) to 4 (four fifths or more).

    Fixed fifths and not quintiles: the few rates that 4, 8 or 16 samples can take tie so much that quintiles of them are no fifths. And no bin for "never
    right" alone: the start's own samples cannot choose such a question, so in the first round it would be lost by construction.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for each in source:
        right[each.qid].append(each.verdict == each.answer)
    return {qid: min(_BINS - 1, _BINS * sum(tries) // len(tries)) for qid, tries in right.items()}  # in whole numbers: 0.6 of 5 is 3


def divergence(chosen: Sequence[int], asked: Sequence[int]) -> float:
    """Jensen-Shannon divergence of two histograms in bits, 0 (same shares) to 1 (nothing in common); nan where one is empty (Lin 1991)."""
    from scipy.spatial.distance import jensenshannon

    if not sum(chosen) or not sum(asked):
        return math.nan
    # Over one common total the shares of equal histograms are the same floats; else rounding may leave a root of less than nothing.
    ours, theirs = [count * sum(asked) for count in chosen], [count * sum(chosen) for count in asked]
    return 0.0 if ours == theirs else float(jensenshannon(ours, theirs, base=2)) ** 2


def gini(counts: Sequence[int]) -> float:
    """Gini coefficient of counts: 0 = all equal, (n - 1) / n = one has all; nan where there is nothing to share (Gini 1912)."""
    n, total = len(counts), sum(counts)
    if not total:
        return math.nan
    weighted = sum(rank * count for rank, count in enumerate(sorted(counts), start=1))
    return (2 * weighted - (n + 1) * total) / (n * total)


def distinct_2(texts: Sequence[str]) -> float:
    """Different pairs of neighbouring words over all such pairs, lower-cased, none across two texts; nan where there is no pair (Li et al. 2016)."""
    pairs = [pair for text in texts for pair in pairwise(text.lower().split())]
    return len(set(pairs)) / len(pairs) if pairs else math.nan


def _histogram(bins: Mapping[str, int], qids: Sequence[str]) -> list[int]:
    counts = Counter(bins[qid] for qid in qids)
    return [counts[number] for number in range(_BINS)]


def _hard_retention(chosen: Sequence[int], asked: Sequence[int]) -> float:
    """Of the hardest bin that holds a question at all."""
    if not sum(chosen) or not sum(asked):
        return math.nan
    hardest = next(number for number, count in enumerate(asked) if count)
    return (chosen[hardest] * sum(asked)) / (asked[hardest] * sum(chosen))


def _perplexities(gauged: Sequence[Gauged], role: str) -> Numbers:
    per_token = np.array([each.track_b / each.tokens for each in gauged if each.role == role], dtype=np.float64)
    return np.exp(-per_token)


def _quantile(values: Numbers, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else math.nan


def _share_above(values: Numbers, bound: float) -> float:
    known = len(values) > 0 and not math.isnan(bound) and not np.isnan(values).any()
    return float((values > bound).mean()) if known else math.nan
