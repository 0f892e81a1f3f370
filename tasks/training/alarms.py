"""Signs that preference training goes wrong in ways its loss does not show (ALGORITHMS 1.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

DISPLACED = -0.1  # nats a token: the chosen text itself has become less likely (Razin et al., arXiv 2410.08847)
FALLS = 3  # epochs in a row in which it became less likely
SURE = 0.95  # reward accuracy from which a dev accuracy that does not move means over-optimisation
ALIKE = 0.3  # largest difference of two lengths, as a share of the longer
ALIKE_SHARE = 0.8  # of the pairs should be that much alike
CORRELATED = 0.5  # between log-gap and length difference: the gap is then mostly length
FEWEST = 20  # pairs from which a correlation says something


@dataclass(frozen=True, kw_only=True)
class EpochFigures:
    """Means over one epoch: log-ratio of the chosen completion in nats a token, reward accuracy; and dev answers right after it."""

    chosen_shift: float
    reward_accuracy: float
    correct: int


def alarms(epochs: Sequence[EpochFigures], *, start_correct: int | None, lengths: Sequence[tuple[int, int]], gaps: Sequence[float]) -> list[str]:
    """What a person should look at, in words; empty where all is well.

    `lengths` are (chosen, rejected) completion tokens of each pair, `gaps` its latest log-gap in nats; `start_correct` are the dev answers right
    before the first step, None where no dev questions were read.
    """
    found = []
    shifts = [each.chosen_shift for each in epochs]
    if shifts and shifts[-1] < DISPLACED:
        found.append(f"the chosen completions became less likely ({shifts[-1]:+.2f} nats a token): raise recipe.align.nll_weight or lower the learning rate")
    elif _falls(shifts) >= FALLS:
        found.append(f"the chosen completions became less likely in {_falls(shifts)} epochs in a row: look at recipe.align.nll_weight")
    if start_correct is not None and epochs and epochs[-1].reward_accuracy > SURE and max(each.correct for each in epochs) <= start_correct:
        found.append(
            f"reward accuracy reached {epochs[-1].reward_accuracy:.0%} and no epoch answers dev better than the start: over-optimisation, stop earlier"
        )
    alike = sum(abs(chosen - rejected) <= ALIKE * max(chosen, rejected, 1) for chosen, rejected in lengths)
    if lengths and alike < ALIKE_SHARE * len(lengths):
        found.append(f"only {alike} of {len(lengths)} pairs have sides of like length: lower recipe.pair.max_length_ratio")
    correlation = _correlation(gaps, [chosen - rejected for chosen, rejected in lengths])
    if abs(correlation) > CORRELATED:
        found.append(f"log-gap and length difference correlate ({correlation:+.2f}): the student may be learning length")
    return found


def _falls(values: Sequence[float]) -> int:
    """How many times in a row the values fell, at the end."""
    falls = 0
    for before, after in pairwise(values):
        falls = falls + 1 if after < before else 0
    return falls


def _correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Pearson's; 0 where either side is constant or there are too few pairs."""
    if len(left) < FEWEST or len(set(left)) == 1 or len(set(right)) == 1:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])
