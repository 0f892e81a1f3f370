"""Thresholds chosen on some questions for others, and figures of margins."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.logic.calibration import NEAR_BEST, calibration_error, enough_distance, folds, matthews, one_standard_error_threshold, reliability

QIDS = st.sets(st.text(min_size=1, max_size=4), min_size=2, max_size=30)
MARGINS = st.lists(st.tuples(st.floats(-20, 20).map(lambda value: round(value, 1)), st.booleans()), min_size=1, max_size=60)
BOTH = st.lists(st.tuples(st.floats(0, 9).map(lambda value: round(value, 1)), st.booleans(), st.booleans()), min_size=1, max_size=400)


def right_at(threshold: float, rows: list[tuple[float, bool]]) -> int:
    return sum((margin > threshold) == gold for margin, gold in rows)


@given(MARGINS)
def test_a_threshold_is_no_farther_from_zero_than_the_best_one_beyond_noise_asks_for(rows):
    margins, gold = zip(*rows, strict=True)
    chosen = one_standard_error_threshold(margins, gold)
    others = [0.0, *((low + high) / 2 for low, high in pairwise(sorted(set(margins))))]
    best = max(right_at(each, rows) for each in others)
    noise = math.sqrt(best * (len(rows) - best) / len(rows))
    assert right_at(chosen, rows) >= best - noise - 1e-9
    assert all(right_at(each, rows) < best - noise + 1e-9 for each in others if abs(each) < abs(chosen))


def test_a_biased_model_gets_its_midpoint_and_an_unbiased_one_stays():
    assert one_standard_error_threshold([-3.0, -2.0, -1.0, -0.5], [False, False, True, True]) == -1.5
    assert one_standard_error_threshold([-2.0, 0.5], [False, True]) == 0.0


def test_noise_alone_moves_no_threshold():
    margins, gold = [-1.0, -0.4, 0.3, 1.2] * 25, [False, True, True, False] * 14 + [False, False, True, True] * 11
    assert max(right_at(each, list(zip(margins, gold, strict=True))) for each in (-0.7, 0.75)) == 3 + right_at(0.0, list(zip(margins, gold, strict=True)))
    assert one_standard_error_threshold(margins, gold) == 0.0


def accuracy(limit: float, rows: list[tuple[float, bool, bool]]) -> float:
    return sum(fast if distance >= limit else slow for distance, fast, slow in rows) / len(rows)


@given(BOTH)
def test_the_smallest_distance_that_is_near_the_best_is_taken(rows):
    chosen = enough_distance(*zip(*rows, strict=True))
    values = sorted({distance for distance, _, _ in rows})
    others = [0.0, *((low + high) / 2 for low, high in pairwise(values)), math.inf]
    best = max(accuracy(each, rows) for each in others)
    assert accuracy(chosen, rows) >= best - NEAR_BEST - 1e-9
    assert all(accuracy(each, rows) < best - NEAR_BEST + 1e-9 for each in others if each < chosen)
    assert accuracy(chosen, rows) >= max(accuracy(0.0, rows), accuracy(math.inf, rows)) - NEAR_BEST - 1e-9  # either arm alone, at most that much better


def test_reasoning_is_asked_for_only_where_it_helps():
    near_wrong = [(0.1, False, True), (0.2, False, True), (3.0, True, False), (4.0, True, True)]
    assert enough_distance(*zip(*near_wrong, strict=True)) == pytest.approx(1.6)
    assert enough_distance([0.1, 3.0], [True, True], [True, True]) == 0.0
    assert enough_distance([0.1, 3.0], [False, False], [True, True]) == math.inf


@given(QIDS, QIDS)
def test_folds_decide_every_question_once_and_never_by_itself(asked, known):
    made = folds(asked, known)
    assert sorted(qid for fold in made for qid in fold.asked) == sorted(asked)
    assert all(fold.known and not fold.asked & fold.known for fold in made)
    assert all(fold.known <= known for fold in made)


@given(QIDS)
def test_folds_of_dev_by_dev_use_all_of_it(qids):
    one, other = folds(qids, qids)
    assert (one.asked, one.known) == (other.known, other.asked)
    assert abs(len(one.asked) - len(one.known)) <= 1


def test_a_threshold_cannot_be_chosen_on_nothing():
    with pytest.raises(DataError, match="no dev questions"):
        folds(["a"], ["a"])
    with pytest.raises(DataError, match="no dev questions"):
        folds(["a"], [])


def test_calibration_error_of_known_margins():
    sure, torn = math.log(0.85 / 0.15), 0.0
    assert calibration_error([sure] * 20, [True] * 17 + [False] * 3) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error([sure] * 20, [False] * 20) == pytest.approx(0.85)
    assert calibration_error([sure] * 10 + [torn] * 10, [True] * 10 + [False] * 10) == pytest.approx((0.15 + 0.5) / 2)
    assert calibration_error([1e6, -1e6], [True, False]) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_matthews_lies_between_minus_one_and_one_and_turns_with_the_answers(pairs):
    said, gold = zip(*pairs, strict=True)
    found = matthews(said, gold)
    assert -1 - 1e-9 <= found <= 1 + 1e-9
    assert matthews([not each for each in said], gold) == pytest.approx(-found)
    both, only_said, only_gold = (sum(pair == kind for pair in pairs) for kind in ((True, True), (True, False), (False, True)))
    neither = len(pairs) - both - only_said - only_gold
    below = (both + only_said) * (both + only_gold) * (neither + only_said) * (neither + only_gold)
    assert found == pytest.approx((both * neither - only_said * only_gold) / math.sqrt(below) if below else 0.0)


@given(st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=1, max_size=60))
def test_every_answer_lies_in_one_bin_of_the_reliability_curve(answers):
    margins, gold = zip(*answers, strict=True)
    bins = reliability(margins, gold)
    assert sum(each.n for each in bins) == len(answers)
    assert sum(each.observed * each.n for each in bins) == pytest.approx(sum(gold))
    assert [each.stated for each in bins] == sorted({each.stated for each in bins})
    assert len(bins) <= 10
