"""From predictions to the cells of the result table, and from two sets of predictions to a comparison with a verdict."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Prediction, Score, Verdict
from tasks.logic.statistics import ALPHA, Interval, mcnemar, minimal_detectable_difference, paired_bootstrap, pooled_bootstrap, sign_flip, unseen_share, wilson
from tasks.logic.statistics import holm as holm_adjusted

YES_NO = (Verdict.YES.value, Verdict.NO.value)


class Finding(StrEnum):
    """What a comparison can say about its claim."""

    PASS = "pass"
    FAIL = "fail"
    UNDERPOWERED = "underpowered"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same questions; differences are shares, new minus old. See `finding` for `verdict`."""

    name: str
    n: int  # questions that both answered, over all runs
    right: float  # share of them that the new side got right; the old side's is this minus the difference
    difference: float
    ci_low: float
    ci_high: float
    p_value: float  # two-sided: exact McNemar, or sign flips where a side is the mean of several readings
    p_holm: float  # adjusted over its family; equals p_value until `holm` has seen the family
    minimal_detectable: float
    claim: float
    verdict: Finding


def score(predictions: Sequence[Prediction], *, classes: Sequence[str] = YES_NO) -> Score:
    """Score one model under one arm on one split; a text without a verdict is counted, and is wrong unless it was made to count as something.

    `yes_rate` is the share of `classes[0]` among all answers, balanced accuracy the mean recall over the classes that gold contains.
    Raises DataError when there is nothing to score, when models, arms or splits are mixed, when a question occurs twice or has no label.
    """
    if not predictions:
        raise DataError("there are no predictions to score; was the split empty, or did every answer belong to another arm?")
    cells = {(row.model, row.arm, row.split) for row in predictions}
    if len(cells) > 1:
        raise DataError(f"one score is for one model, arm and split; these predictions mix {sorted(cells)}")
    for qid, row in _by_question(predictions).items():
        if row.answer not in classes:
            raise DataError(f"question {qid} has the gold answer {row.answer!r}, not one of {', '.join(classes)}; unlabelled questions cannot be scored")
    n = len(predictions)
    gold = Counter(row.answer for row in predictions)
    right = Counter(row.answer for row in predictions if is_right(row))
    interval = wilson(right.total(), n)
    return Score(
        model=predictions[0].model,
        arm=predictions[0].arm,
        split=predictions[0].split,
        n=n,
        accuracy=right.total() / n,
        ci_low=interval.low,
        ci_high=interval.high,
        yes_rate=sum(row.verdict == classes[0] for row in predictions) / n,
        unparsed=sum(row.reason != "" or row.verdict not in classes for row in predictions),
        balanced_accuracy=sum(right[name] / count for name, count in gold.items()) / len(gold),
        majority_accuracy=max(gold.values()) / n,
    )


def is_right(prediction: Prediction) -> bool:
    """Whether the verdict is the gold answer; no verdict is wrong."""
    return prediction.verdict == prediction.answer


def class_shares(answers: Iterable[str], *, classes: Sequence[str] = YES_NO) -> dict[str, float]:
    """Share of each class among `answers` (0.0 each when there are none). Raises DataError for an answer outside `classes`."""
    counts = Counter(answers)
    if strange := sorted(set(counts) - set(classes)):
        raise DataError(f"answers outside {', '.join(classes)}: {', '.join(map(repr, strange))}")
    return {name: counts[name] / counts.total() if counts else 0.0 for name in classes}


def compare(name: str, new: Sequence[Prediction], old: Sequence[Prediction], *, resamples: int, seed: int, claim: float = 0.0) -> Comparison:
    """Compare two models question by question: exact McNemar, paired bootstrap, minimal detectable difference.

    `claim` is the difference that was promised; negative = "not worse by that much". Raises DataError when the questions or gold answers differ.
    """
    change = changes(name, new, [old])
    right_old = {row.qid: is_right(row) for row in old}
    interval = paired_bootstrap([is_right(row) for row in new], [right_old[row.qid] for row in new], resamples=resamples, seed=seed)
    return _comparison(name, list(change.values()), interval, right=_share_right(new), p_value=_mcnemar(change.values()), claim=claim)


def compare_mean(name: str, new: Sequence[Prediction], olds: Sequence[Sequence[Prediction]], *, resamples: int, seed: int, claim: float = 0.0) -> Comparison:
    """Compare a reading with the mean of several readings of the same questions, such as shuffles; a question's change lies in [-1, 1].

    The interval resamples questions and readings, the p value flips signs over questions. Raises DataError as `compare` does.
    """
    interval = pooled_bootstrap([changes(f"{name}, reading {number}", new, [old]) for number, old in enumerate(olds, start=1)], resamples=resamples, seed=seed)
    change = list(changes(name, new, olds).values())
    return _comparison(name, change, interval, right=_share_right(new), p_value=sign_flip(change, resamples=resamples, seed=seed), claim=claim)


def compare_pooled(
    name: str, runs: Sequence[tuple[Sequence[Prediction], Sequence[Sequence[Prediction]]]], *, resamples: int, seed: int, claim: float = 0.0
) -> Comparison:
    """Compare two models over several runs, each a reading of the new model and one of the old (or several, which count by their mean).

    A question counts once, by its mean change over the runs that read it: seeds that read the same questions are no further evidence about questions. The
    interval resamples runs and questions; the p value takes the runs as they are, and is McNemar's where no question was read twice, as in folds.
    """
    by_run = [changes(f"{name}, run {number}", new, olds) for number, (new, olds) in enumerate(runs, start=1)]
    interval = pooled_bootstrap(by_run, resamples=resamples, seed=seed)
    readings: dict[str, list[float]] = defaultdict(list)
    for change in by_run:
        for qid, value in change.items():
            readings[qid].append(value)
    means = [sum(values) / len(values) for values in readings.values()]
    once = all(len(olds) == 1 for _, olds in runs) and all(len(values) == 1 for values in readings.values())
    p_value = _mcnemar(means) if once else sign_flip(means, resamples=resamples, seed=seed)
    return _comparison(name, means, interval, right=_mean_right([new for new, _ in runs]), p_value=p_value, claim=claim)


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Fill `p_holm` over the whole family and judge each comparison again, in the order given."""
    adjusted = holm_adjusted([each.p_value for each in comparisons])
    return [_judged(replace(each, p_holm=p)) for each, p in zip(comparisons, adjusted, strict=True)]


def finding(*, difference: float, interval: Interval, p_holm: float, claim: float) -> Finding:
    """What the data say about "the difference is at least `claim`".

    With a claim of 0 or more (superiority), *pass* is a difference of at least `claim` that is significant after Holm (p_holm < 0.05) and whose interval
    is wholly above 0 (over several runs the p value takes the runs as they are, the interval does not); *fail* is an interval wholly below the claim, or
    a significant loss. With a negative claim (not worse by that much), *pass* is an interval wholly above the
    claim and *fail* one wholly below. Everything else is *underpowered*: these data decide neither way, and `minimal_detectable` says what they could.
    """
    significant = p_holm < ALPHA
    if claim >= 0:
        passed = significant and interval.low > 0 and difference >= claim
        failed = interval.high < claim or (significant and difference < 0)
    else:
        passed, failed = interval.low > claim, interval.high < claim
    return Finding.PASS if passed else Finding.FAIL if failed else Finding.UNDERPOWERED


def changes(name: str, new: Sequence[Prediction], olds: Sequence[Sequence[Prediction]]) -> dict[str, float]:
    """New minus the mean of the olds in [-1, 1] by question, in the order of `new`. Raises DataError when questions or gold answers differ or repeat."""
    after, before = _by_question(new), [_by_question(old) for old in olds]
    for side in before:
        if not after or after.keys() != side.keys():
            odd = sorted(after.keys() ^ side.keys())
            raise DataError(f"{name}: the two models were not asked the same questions ({len(after)} and {len(side)}; {len(odd)} differ, e.g. {odd[:3]})")
        if relabelled := [qid for qid in after if after[qid].answer != side[qid].answer]:
            raise DataError(f"{name}: {len(relabelled)} questions have different gold answers on the two sides, e.g. {relabelled[0]}")
    return {qid: is_right(row) - sum(is_right(side[qid]) for side in before) / len(before) for qid, row in after.items()}


def _comparison(name: str, change: Sequence[float], interval: Interval, *, right: float, p_value: float, claim: float) -> Comparison:
    n = len(change)
    difference = sum(change) / n
    unseen = unseen_share(n)  # no resample holds a kind of pair that was not seen: 20 equal answers would have an interval without width
    lost, gained = any(value < 0 for value in change), any(value > 0 for value in change)
    return _judged(
        Comparison(
            name=name,
            n=n,
            right=right,
            difference=difference,
            ci_low=min(interval.low, difference - unseen * (not lost)),
            ci_high=max(interval.high, difference + unseen * (not gained)),
            p_value=p_value,
            p_holm=p_value,
            minimal_detectable=minimal_detectable_difference(n, sum(value * value for value in change) / n),
            claim=claim,
            verdict=Finding.UNDERPOWERED,
        )
    )


def _share_right(rows: Sequence[Prediction]) -> float:
    return sum(map(is_right, rows)) / len(rows)


def _mean_right(runs: Sequence[Sequence[Prediction]]) -> float:
    """Each question counts once, by its mean over the runs."""
    by_question: dict[str, list[bool]] = defaultdict(list)
    for row in (row for rows in runs for row in rows):
        by_question[row.qid].append(is_right(row))
    return sum(sum(each) / len(each) for each in by_question.values()) / len(by_question)


def _mcnemar(values: Iterable[float]) -> float:
    signs = Counter(values)
    return mcnemar(signs[1], signs[-1])


def _judged(each: Comparison) -> Comparison:
    verdict = finding(difference=each.difference, interval=Interval(each.ci_low, each.ci_high), p_holm=each.p_holm, claim=each.claim)
    return replace(each, verdict=verdict)


def _by_question(predictions: Sequence[Prediction]) -> Mapping[str, Prediction]:
    rows = {row.qid: row for row in predictions}
    if len(rows) < len(predictions):
        twice = next(qid for qid, count in Counter(row.qid for row in predictions).items() if count > 1)
        raise DataError(f"question {twice} is answered more than once; give one prediction per question")
    return rows
