"""Thresholds of yes/no margins: chosen on some questions and applied to others, and how far a margin can be trusted.

A margin is log P(yes) - log P(no) in nats; an answer is yes where it is above the threshold. `gold` says which answers are yes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.contracts.failures import DataError

NEAR_BEST = 0.005  # accuracy that the adaptive arm gives up for fewer tokens
_BINS = 10


class Fold(NamedTuple):
    """Questions to decide, and the questions on which their thresholds are chosen."""

    asked: frozenset[str]
    known: frozenset[str]


def folds(asked: Iterable[str], known: Iterable[str]) -> list[Fold]:
    """Who is decided by whom: questions that are not known by all known ones, the others by the half of the known ones that they are not in.

    The halves are every other known question in the order of a hash of its id: not by chance, and no question sets its own threshold.
    Raises DataError when nothing is left to choose on.
    """
    asked, known = frozenset(asked), frozenset(known)
    order = sorted(known, key=lambda qid: hashlib.sha256(qid.encode("utf-8", "surrogatepass")).digest())
    even, odd = frozenset(order[::2]), frozenset(order[1::2])
    parts = [Fold(asked - known, known), Fold(asked & even, odd), Fold(asked & odd, even)]
    if any(part.asked and not part.known for part in parts):
        raise DataError(
            "there are no dev questions to choose a threshold on; read at least two of them, or turn recipe.grade.calibrate and the adaptive arm off"
        )
    return [part for part in parts if part.asked]


def one_standard_error_threshold(margins: Sequence[float], gold: Sequence[bool]) -> float:
    """The threshold closest to 0 whose accuracy is within one standard error of the best (the rule of Breiman et al. 1984 for choosing the simpler tree).

    Candidates are 0 and the midpoints between neighbouring margins. The best one itself would be chosen by noise: chosen on 200 StrategyQA
    questions it cost students that lean to no side 0.6 points of accuracy on others, on average, and this one nothing; who leans is still moved.
    """
    values = np.unique(np.asarray(margins, dtype=np.float64))
    candidates = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2])
    right = _right_at(candidates, np.asarray(margins, dtype=np.float64), np.asarray(gold, dtype=bool))
    best = int(right.max())
    near = candidates[right >= best - math.sqrt(best * (1 - best / len(margins)))]
    return float(min(near, key=lambda each: (abs(each), each)))


def _right_at(thresholds: npt.NDArray[np.float64], margins: npt.NDArray[np.float64], gold: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Right answers at each threshold: yes answers above it and no answers not above it."""
    yes, no = np.sort(margins[gold]), np.sort(margins[~gold])
    found: npt.NDArray[np.int64] = len(yes) - np.searchsorted(yes, thresholds, side="right") + np.searchsorted(no, thresholds, side="right")
    return found


def enough_distance(distances: Sequence[float], fast_right: Sequence[bool], slow_right: Sequence[bool]) -> float:
    """From which distance to the threshold on the fast answer is trusted and the slow one not asked for; inf = never.

    The smallest distance, so the fewest slow answers, with which at most `NEAR_BEST` of the accuracy is lost that the best distance reaches on these
    questions. Candidates are 0 (always trusted), midpoints between neighbouring distances, and inf.
    """
    order = np.argsort(np.asarray(distances, dtype=np.float64), kind="stable")
    apart = np.asarray(distances, dtype=np.float64)[order]
    gain = np.asarray(slow_right, dtype=np.int64)[order] - np.asarray(fast_right, dtype=np.int64)[order]
    right = np.concatenate([[0], gain.cumsum()])  # beside the fast answers alone, when the first i ask for the slow answer
    limits = np.concatenate([[0.0], (apart[1:] + apart[:-1]) / 2, [math.inf]])
    possible = np.concatenate([[True], apart[1:] > apart[:-1], [True]])  # equal distances cannot be told apart
    reachable = right[possible]
    near = reachable >= reachable.max() - NEAR_BEST * len(apart)
    return float(limits[possible][near][0])


def matthews(said: Sequence[bool], gold: Sequence[bool]) -> float:
    """Matthews correlation of two classes (Matthews 1975), -1 to 1; 0 where either side is all one class."""
    one, other = np.asarray(said, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    spread = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread > 0 else 0.0


class Bin(NamedTuple):
    """Answers whose stated probability of yes lies in one tenth of 0..1: its mean, the share that is yes, and how many they are."""

    stated: float
    observed: float
    n: int


def reliability(margins: Sequence[float], gold: Sequence[bool]) -> list[Bin]:
    """P(yes) = sigmoid(margin) in ten bins of equal width, lowest first; empty bins are left out."""
    stated = 0.5 * (1 + np.tanh(np.asarray(margins, dtype=np.float64) / 2))
    place = np.minimum((stated * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    told = np.bincount(place, weights=stated, minlength=_BINS)
    found = np.bincount(place, weights=np.asarray(gold, dtype=np.float64), minlength=_BINS)
    return [Bin(float(told[at] / n), float(found[at] / n), int(n)) for at, n in enumerate(counts) if n]


def calibration_error(margins: Sequence[float], gold: Sequence[bool]) -> float:
    """Expected calibration error (Naeini et al. 2015) of P(yes) = sigmoid(margin) over its ten bins: mean |stated - observed share of yes|."""
    return sum(each.n * abs(each.stated - each.observed) for each in reliability(margins, gold)) / len(margins)
