"""Small-sample statistics of paired yes/no results: intervals, exact tests, bootstraps and what a sample could have shown.

All differences are shares in [-1, 1] (0.03 = 3 percentage points), always new minus old. A pair is *discordant* when exactly one
of the two models is right; `gained` counts those only the new one has right, `lost` those only the old one has right.

scipy.stats and statsmodels are imported where they are used: they take over two seconds, which no run should wait for before it has said a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.contracts.failures import DataError

CONFIDENCE = 0.95
ALPHA = 0.05
_CHUNK = 500  # resamples drawn at once: 500 x 2,000 questions of int64 are 8 MB


class Interval(NamedTuple):
    """A confidence interval, bounds in the unit of what it is for."""

    low: float
    high: float


def wilson(correct: int, n: int) -> Interval:
    """95 % Wilson score interval of a share (Wilson 1927). Raises DataError when `n` is 0 or `correct` is outside 0..n."""
    from scipy.stats import binomtest

    if n <= 0 or not 0 <= correct <= n:
        raise DataError(f"no interval for {correct} right of {n}: score at least one question")
    bounds = binomtest(correct, n).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return Interval(float(bounds.low), float(bounds.high))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p value of the exact McNemar test (McNemar 1947): discordant pairs are fair coin tosses if nothing changed."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def sign_flip(changes: Sequence[float], *, resamples: int, seed: int) -> float:
    """Two-sided p value of the paired permutation test (Fisher 1935): each question's change could as well have had the other sign if nothing changed.

    For changes that are no counts, such as new minus the mean of several old readings. Exact where 2^(questions that changed) is not more than
    `resamples`. Raises DataError where there is no question.
    """
    from scipy.stats import permutation_test

    if not changes:
        raise DataError("a paired comparison needs at least one question")
    moved = [change for change in changes if change]  # no change stays none under either sign
    if len(moved) < 2:
        return 1.0
    found = permutation_test(
        (np.asarray(moved, dtype=np.float64),),
        lambda values, axis: np.mean(values, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_CHUNK,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


class Kappa(NamedTuple):
    """Agreement beyond chance, 1 = always, 0 = as often as chance, with its 95 % interval."""

    value: float
    interval: Interval


def cohens_kappa(table: Sequence[Sequence[int]]) -> Kappa:
    """Cohen's kappa (1960) of a square table of counts, with the large-sample interval of Fleiss, Cohen and Everitt (1969).

    0 with no width where one side always gives one answer: agreement is then what chance gives. Raises DataError for an empty table.
    """
    from scipy.stats import norm

    counts = np.asarray(table, dtype=np.float64)
    n = counts.sum()
    if not n:
        raise DataError("no kappa for an empty table: the two sides answered no question in common")
    share = counts / n
    rows, columns = share.sum(axis=1), share.sum(axis=0)
    if (rows == 1).any() or (columns == 1).any():
        return Kappa(0.0, Interval(0.0, 0.0))
    seen, chance = float(np.trace(share)), float(rows @ columns)
    kappa = (seen - chance) / (1 - chance)
    on = np.diag(share) @ (1 - (rows + columns) * (1 - kappa)) ** 2
    off = (1 - kappa) ** 2 * ((share - np.diag(np.diag(share))) * (columns[:, None] + rows[None, :]) ** 2).sum()
    variance = (on + off - (kappa - chance * (1 - kappa)) ** 2) / ((1 - chance) ** 2 * n)
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(max(0.0, float(variance)))
    return Kappa(kappa, Interval(kappa - half, kappa + half))


def paired_bootstrap(new: Sequence[bool], old: Sequence[bool], *, resamples: int, seed: int) -> Interval:
    """95 % percentile bootstrap of accuracy(new) - accuracy(old) over the same questions, in the same order.

    Drawing questions with replacement and counting the three kinds of pair is one multinomial draw, so the cost does not depend on n.
    Raises DataError when the two differ in length or are empty.
    """
    if len(new) != len(old) or not new:
        raise DataError(f"a paired comparison needs the same questions on both sides: {len(new)} against {len(old)}")
    n = len(new)
    change = np.asarray(new, dtype=np.int64) - np.asarray(old, dtype=np.int64)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    drawn = np.random.default_rng(seed).multinomial(n, [gained / n, lost / n, (n - gained - lost) / n], size=resamples)
    return _percentiles((drawn[:, 0] - drawn[:, 1]) / n)


def pooled_bootstrap(runs: Sequence[Mapping[str, float]], *, resamples: int, seed: int) -> Interval:
    """95 % bootstrap of the mean difference over several runs, resampling runs and questions independently (Owen 2007, "pigeonhole").

    Each run maps a question id to new - old in [-1, 1]. Questions that runs share are resampled together, and a question counts once, by its mean over
    the runs that read it: what is hard for every seed is not several independent findings. The interval errs on the wide side: noise that belongs to
    one run and one question alone is drawn twice. Raises DataError when there is no run or an empty one.
    """
    if not runs or not all(runs):
        raise DataError("a pooled comparison needs at least one run and at least one question in each")
    qids = sorted({qid for run in runs for qid in run})
    change = np.array([[run.get(qid, 0) for qid in qids] for run in runs], dtype=np.float64)
    present = np.array([[qid in run for qid in qids] for run in runs], dtype=np.float64)
    generator = np.random.default_rng(seed)
    draws: list[npt.NDArray[np.float64]] = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        questions = generator.multinomial(len(qids), np.full(len(qids), 1 / len(qids)), size=size)
        seeds = generator.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=size)
        read = seeds @ present  # readings of each question [size, questions]
        means = np.divide(seeds @ change, read, out=np.zeros_like(read), where=read > 0)
        count = (questions * (read > 0)).sum(axis=1)
        draws.append((questions * means).sum(axis=1)[count > 0] / count[count > 0])  # a draw without a single answer is no draw
    return _percentiles(np.concatenate(draws))


def mean_bootstrap(values: Sequence[float], *, resamples: int, seed: int) -> Interval:
    """95 % bootstrap of the mean of paired differences, its percentiles widened for small samples ("expanded percentile", Hesterberg 2015, arXiv 1411.5279).

    Plain percentiles of n values are too narrow by sqrt((n - 1) / n), and by the normal law where Student's belongs. Raises DataError below two values.
    """
    from scipy.stats import bootstrap, norm
    from scipy.stats import t as student_t

    n = len(values)
    if n < 2:
        raise DataError(f"an interval needs at least two values, not {n}; ask more questions")
    tail = float(norm.cdf(math.sqrt(n / (n - 1)) * student_t.ppf((1 - CONFIDENCE) / 2, n - 1)))
    found = bootstrap((np.asarray(values, dtype=np.float64),), np.mean, confidence_level=1 - 2 * tail, n_resamples=resamples, method="percentile", rng=seed)
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (Holm 1979), in the order given: comparable with alpha over the whole family."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def unseen_share(n: int) -> float:
    """Upper 95 % bound (two-sided, Clopper and Pearson 1934) of the share of a kind that none of `n` questions showed: 0.17 of 20, 0.015 of 240."""
    return 1.0 - math.pow((1 - CONFIDENCE) / 2, 1 / n)


def minimal_detectable_difference(n: int, discordant_share: float, *, alpha: float = ALPHA, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided paired test on `n` questions finds with probability `power` (Miettinen 1968).

    Solves n = (z_a sqrt(psi) + z_b sqrt(psi - D^2))^2 / D^2 for D, psi being the share of discordant pairs. A difference of D cannot come with less
    than D discordant pairs, so psi is at least D: without that floor two models that agree everywhere would seem to prove anything.
    psi is the mean square of the changes, whose variance is then psi - D^2: so it may also come from changes that are no counts.
    Returns at most 1.0, which says that `n` is too small to show anything. Raises DataError when `n` is 0 or the share is outside 0..1.
    """
    from scipy.stats import norm

    if n <= 0 or not 0 <= discordant_share <= 1:
        raise DataError(f"no detectable difference for {n} questions with a discordant share of {discordant_share}")
    z_alpha, z_beta = float(norm.ppf(1 - alpha / 2)), float(norm.ppf(power))
    inner = n + z_beta**2 - z_alpha**2
    if inner < 0:
        return 1.0
    slope = (z_alpha * math.sqrt(n) + z_beta * math.sqrt(inner)) / (n + z_beta**2)  # D = slope * sqrt(psi)
    return min(1.0, max(slope * math.sqrt(discordant_share), slope**2))


def _percentiles(draws: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))
