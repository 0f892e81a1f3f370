"""The gate of the self-guided loop: what a round's student shows on dev, and whether that may replace the last accepted one (ALGORITHMS 5.5).

Every figure that falls outside its bound is named in a sentence with both, because a loop that runs unattended must be able to say why it went back.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tasks.contracts.failures import DataError
from tasks.contracts.recipes import Gate
from tasks.contracts.rounds import Attempt, Gauged, Round
from tasks.contracts.rows import Prediction
from tasks.logic.scores import changes, is_right, score
from tasks.logic.statistics import ALPHA, mcnemar

_ROUNDING = 1e-9  # 0.95 - 0.01 is not 0.94 in binary; one question of a thousand is a million times as much
_NO_CHOSEN = "no fresh pair was trained on, so there is no chosen log-ratio to look at"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One student on dev, beside its parent. Shares in [0, 1], lengths in tokens, log-ratios in nats a token; the field names are those of `Round`."""

    accuracy: float
    yes_rate: float
    unparsed: float
    length: float  # mean of its answers
    hard_accuracy: float  # on the hardest third; nan where that is empty
    gain: float  # of accuracy over the parent
    gain_p: float  # exact McNemar, two-sided
    chosen_log_ratio: float  # nan where the round has no fresh chosen text, -inf where one has no finite figure
    drift: float  # nan where it drew no text, inf where one has no finite figure


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of the gate. `said` names figure and bound in a plain sentence without a full stop."""

    name: str  # of its threshold in recipe.loop.gate
    value: float
    bound: float
    passed: bool
    said: str


def standing(read: Sequence[Prediction], parent: Sequence[Prediction], *, hardest: Collection[str], gauged: Sequence[Gauged]) -> Standing:
    """Figures of a student from its answers and its parent's to the same dev questions under one arm; the start is beside itself.

    The chosen log-ratio is the mean over texts of (candidate - accepted) / tokens: a pair counts once in the loss, so its text counts once here, however long.
    The drift is summed over texts before it is divided by their tokens: over the student's own samples that estimates the Kullback-Leibler divergence a
    token. Raises DataError when questions, gold answers or arms differ, or when a question of `hardest` was not read.
    """
    change = Counter(changes("a round's student against its parent on dev", read, [parent]).values())
    cell, before = score(read), score(parent)
    if cell.arm != before.arm:
        raise DataError(f"a round's student answered under the arm {cell.arm}, its parent under {before.arm}; predict both under recipe.loop.explore.arm")
    right = {row.qid: is_right(row) for row in read}
    if missing := sorted(set(hardest) - right.keys()):
        raise DataError(f"{len(missing)} of the hardest questions were not read, e.g. {missing[0]}; every round must answer the same dev questions")
    return Standing(
        accuracy=cell.accuracy,
        yes_rate=cell.yes_rate,
        unparsed=cell.unparsed / cell.n,
        length=sum(row.tokens for row in read) / cell.n,
        hard_accuracy=sum(right[qid] for qid in hardest) / len(hardest) if hardest else math.nan,
        gain=(change[1] - change[-1]) / cell.n,
        gain_p=mcnemar(change[1], change[-1]),
        chosen_log_ratio=_chosen_log_ratio([each for each in gauged if each.role == "chosen"]),
        drift=_drift([each for each in gauged if each.role == "own"]),
    )


def hardest_third(attempts: Sequence[Attempt], read: Sequence[Prediction]) -> frozenset[str]:
    """Ids of the third (rounded up) of the questions in `read` on which the start student is right least often.

    `attempts` are its samples (those of other questions do not matter), `read` its greedy answers. Ties: a wrong greedy answer first, then by a hash of the
    id, so that neither the order of the file nor the class decides. Raises DataError when a question has no sample.
    """
    tries: dict[str, list[bool]] = defaultdict(list)
    for each in attempts:
        tries[each.qid].append(each.verdict == each.answer)
    if missing := [row.qid for row in read if row.qid not in tries]:
        raise DataError(f"{len(missing)} dev questions have no sample of the start student, e.g. {missing[0]}; sample all of dev to know which are hard")
    hardest_first = sorted(
        read, key=lambda row: (sum(tries[row.qid]) / len(tries[row.qid]), is_right(row), hashlib.sha256(f"hardest:{row.qid}".encode()).digest())
    )
    return frozenset(row.qid for row in hardest_first[: math.ceil(len(read) / 3)])


def gate(found: Standing, *, parent: Standing, start: Standing, best: float, gold_yes: float, recipe: Gate) -> list[Check]:
    """Every condition, passed or not, in the order of the recipe; the student is accepted where all are passed.

    `best` is the highest accuracy of the parent and those it descends from, `gold_yes` the share of yes among dev's labels. A parent that is itself outside
    a bound on the share of yes or of texts without a verdict is the bound: its students may mend that, and not make it worse. What was not measured fails and
    says so, except the log-ratio of fresh chosen texts in a round without any.
    """
    return [
        _gain(found, best=best, recipe=recipe),
        _fall(found, recipe=recipe),
        _yes_shift(found, parent=parent, gold_yes=gold_yes, recipe=recipe),
        _unparsed(found, parent=parent, recipe=recipe),
        _length_change(found, start=start, recipe=recipe),
        _chosen(found, recipe=recipe),
        _hard_loss(found, parent=parent, recipe=recipe),
        _drifted(found, recipe=recipe),
    ]


def significant(each: Round) -> bool:
    """Whether an accepted round's student is better than its parent by more than chance."""
    return each.verdict == "accepted" and each.gain > 0 and each.gain_p < ALPHA


def _gain(found: Standing, *, best: float, recipe: Gate) -> Check:
    bound = best + recipe.min_gain
    value, limit = _apart(100 * found.accuracy, 100 * bound)
    allowed = _points(abs(recipe.min_gain))
    if recipe.min_gain < 0:
        within, beyond = f"no more than {allowed} below the best before it", f"more than {allowed} below the best before it"
    elif recipe.min_gain > 0:
        within, beyond = f"at least {allowed} above the best before it", f"not {allowed} above the best before it"
    else:
        within, beyond = "not below the best before it", "below the best before it"
    ends = f"{100 * best:.{_decimals(limit)}f} %"
    return _at_least(
        "min_gain", found.accuracy, bound, within=f"dev accuracy {value} % is {within}, {ends}", beyond=f"dev accuracy {value} % is {beyond}, {ends}"
    )


def _fall(found: Standing, *, recipe: Gate) -> Check:
    if found.gain >= 0:
        return Check(name="worse_p", value=found.gain_p, bound=recipe.worse_p, passed=True, said="dev accuracy did not fall against the student before it")
    value = math.nan if math.isnan(found.gain) else found.gain_p
    fell = f"dev accuracy fell by {_points(-found.gain)} against the student before it"
    p, limit = _apart(value, recipe.worse_p, least=3)
    chance = f"p {'< 0.001' if value < 0.001 else f'= {p}'}, at least {limit} wanted"
    return _at_least("worse_p", value, recipe.worse_p, within=f"{fell}, which may be chance ({chance})", beyond=f"{fell}, which is hardly chance ({chance})")


def _yes_shift(found: Standing, *, parent: Standing, gold_yes: float, recipe: Gate) -> Check:
    shift, bound, whose = abs(found.yes_rate - gold_yes), *_or_parents(recipe.max_yes_shift, abs(parent.yes_rate - gold_yes))
    away, limit = _apart(100 * shift, 100 * bound)
    said = f"it says yes to {100 * found.yes_rate:.1f} % of dev, {away} points from gold's {100 * gold_yes:.1f} %"
    return _at_most("max_yes_shift", shift, bound, within=f"{said}; {limit}{whose} are allowed", beyond=f"{said}; no more than {limit}{whose} are allowed")


def _unparsed(found: Standing, *, parent: Standing, recipe: Gate) -> Check:
    bound, whose = _or_parents(recipe.max_unparsed, parent.unparsed)
    share, limit = _apart(100 * found.unparsed, 100 * bound)
    said = f"{share} % of its dev answers have no verdict"
    return _at_most("max_unparsed", found.unparsed, bound, within=f"{said}; {limit} %{whose} may", beyond=f"{said}; no more than {limit} %{whose} may")


def _or_parents(bound: float, parents: float) -> tuple[float, str]:
    """The recipe's bound, or the parent's figure where that is more, and how a sentence says so."""
    return (parents, ", its parent's,") if parents > bound + _ROUNDING else (bound, "")


def _length_change(found: Standing, *, start: Standing, recipe: Gate) -> Check:
    relative = found.length / start.length - 1 if start.length else math.nan
    change, limit = _apart(100 * abs(relative), 100 * recipe.max_length_change)
    said = f"its mean answer of {found.length:.1f} tokens is {change} % {'longer' if relative > 0 else 'shorter'} than the start's {start.length:.1f}"
    return _at_most(
        "max_length_change",
        abs(relative),
        recipe.max_length_change,
        within=f"{said}; {limit} % is allowed",
        beyond=f"{said}; no more than {limit} % is allowed",
    )


def _chosen(found: Standing, *, recipe: Gate) -> Check:
    value, bound = found.chosen_log_ratio, recipe.min_chosen_log_ratio
    if math.isnan(value):
        return Check(name="min_chosen_log_ratio", value=value, bound=bound, passed=True, said=_NO_CHOSEN)
    shown, limit = _apart(value, bound, least=3)
    said = f"the chosen texts' log-ratio {shown} nats a token is"
    return _at_least(
        "min_chosen_log_ratio", value, bound, within=f"{said} at least {limit}", beyond=f"{said} below {limit}: the texts that it was to prefer got rarer"
    )


def _hard_loss(found: Standing, *, parent: Standing, recipe: Gate) -> Check:
    bound = parent.hard_accuracy - recipe.max_hard_loss
    value, limit = _apart(100 * found.hard_accuracy, 100 * bound)
    said = f"accuracy on the hardest third, {value} %, is"
    allowed = f"than {_points(recipe.max_hard_loss)} below its parent's {100 * parent.hard_accuracy:.{_decimals(limit)}f} %"
    return _at_least("max_hard_loss", found.hard_accuracy, bound, within=f"{said} no more {allowed}", beyond=f"{said} more {allowed}")


def _drifted(found: Standing, *, recipe: Gate) -> Check:
    shown, limit = _apart(found.drift, recipe.max_drift, least=3)
    said = f"its drift from Track B, {shown} nats a token, is"
    return _at_most("max_drift", found.drift, recipe.max_drift, within=f"{said} no more than {limit}", beyond=f"{said} above {limit}")


def _at_least(name: str, value: float, bound: float, *, within: str, beyond: str) -> Check:
    return _judged(name, value, bound, passed=value >= bound - _ROUNDING, within=within, beyond=beyond)


def _at_most(name: str, value: float, bound: float, *, within: str, beyond: str) -> Check:
    return _judged(name, value, bound, passed=value <= bound + _ROUNDING, within=within, beyond=beyond)


def _judged(name: str, value: float, bound: float, *, passed: bool, within: str, beyond: str) -> Check:
    if not (math.isfinite(value) and math.isfinite(bound)):
        return Check(name=name, value=value, bound=bound, passed=False, said=f"{_MEASURED[name]} could not be measured, so nothing speaks for this student")
    return Check(name=name, value=value, bound=bound, passed=passed, said=within if passed else beyond)


_MEASURED = {
    "min_gain": "dev accuracy",
    "worse_p": "the fall of dev accuracy",
    "max_yes_shift": "the share of yes on dev",
    "max_unparsed": "the share of dev answers without a verdict",
    "max_length_change": "the change of length from the start",
    "min_chosen_log_ratio": "the chosen texts' log-ratio",
    "max_hard_loss": "accuracy on the hardest third",
    "max_drift": "the drift from Track B",
}


def _chosen_log_ratio(chosen: Sequence[Gauged]) -> float:
    if not chosen:
        return math.nan
    mean = sum((each.candidate - each.accepted) / each.tokens for each in chosen) / len(chosen)
    return mean if math.isfinite(mean) else -math.inf


def _drift(own: Sequence[Gauged]) -> float:
    if not own:
        return math.nan
    mean = sum(each.candidate - each.track_b for each in own) / sum(each.tokens for each in own)
    return mean if math.isfinite(mean) else math.inf


def _points(difference: float) -> str:
    """0.01 -> "1.0 point", 0.03 -> "3.0 points"."""
    text = f"{100 * difference:.1f}"
    return f"{text} point" if text == "1.0" else f"{text} points"


def _apart(value: float, bound: float, *, least: int = 1) -> tuple[str, str]:
    """Both in the fewest decimals that tell them apart, so that no sentence says that 25.0 is more than 25.0."""
    for decimals in range(least, 7):
        pair = f"{value:.{decimals}f}", f"{bound:.{decimals}f}"
        if pair[0] != pair[1] or abs(value - bound) <= _ROUNDING:
            break
    return pair[0].replace("-", "−"), pair[1].replace("-", "−")


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])
