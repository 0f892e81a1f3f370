"""Statistics against published values, other implementations and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa as reference_kappa
from statsmodels.stats.proportion import proportion_confint

from tasks.contracts.failures import DataError
from tasks.logic.statistics import cohens_kappa, holm, mcnemar, minimal_detectable_difference, paired_bootstrap, pooled_bootstrap, sign_flip, wilson

P_VALUES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8)


def test_wilson_of_the_seed_result():
    assert wilson(408, 687) == pytest.approx((0.557, 0.630), abs=5e-4)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_statsmodels_and_stays_within_bounds(case):
    correct, n = case
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    assert (low, high) == pytest.approx(proportion_confint(correct, n, method="wilson"), abs=1e-9)


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_share(correct, n):
    with pytest.raises(DataError, match="at least one question"):
        wilson(correct, n)


def test_mcnemar_known_value():
    assert mcnemar(30, 15) == pytest.approx(0.0357, abs=5e-5)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(6, 0) == pytest.approx(2 * 0.5**6)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_symmetric_and_agrees_with_statsmodels(gained, lost):
    assert mcnemar(gained, lost) == mcnemar(lost, gained)
    if gained + lost:
        expected = reference_mcnemar([[0, lost], [gained, 0]], exact=True).pvalue
        assert mcnemar(gained, lost) == pytest.approx(min(1.0, expected), abs=1e-9)


def test_mcnemar_keeps_its_level_when_nothing_changed():
    random = np.random.default_rng(5)
    pairs = random.random((600, 120, 2)) < 0.65
    change = pairs[:, :, 0].astype(int) - pairs[:, :, 1]
    rejections = [mcnemar(int((row > 0).sum()), int((row < 0).sum())) <= 0.05 for row in change]
    assert np.mean(rejections) <= 0.05


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 5))
def test_sign_flips_of_counts_are_mcnemars_test(gained, lost, ties):
    changes = [1.0] * gained + [-1.0] * lost + [0.0] * ties
    if changes:
        assert sign_flip(changes, resamples=2**12, seed=0) == pytest.approx(mcnemar(gained, lost))


def test_sign_flips_keep_their_level_against_the_mean_of_five_readings_and_find_a_difference():
    random = np.random.default_rng(8)

    def p_values(gain, times):
        hard = random.random((times, 150))  # by question, for all six readings of it
        right = (0.5 * hard[..., None] + 0.5 * random.random((times, 150, 6))) < np.array([0.6 + gain, *[0.6] * 5])
        changes = right[..., 0] - right[..., 1:].mean(axis=-1)
        return np.array([sign_flip(list(each), resamples=999, seed=number) for number, each in enumerate(changes)])

    assert np.mean(p_values(0.0, 400) < 0.05) <= 0.075  # two standard errors above 5 %
    assert np.mean(p_values(0.1, 50) < 0.05) > 0.7


def test_sign_flips_need_a_question():
    with pytest.raises(DataError, match="at least one question"):
        sign_flip([], resamples=10, seed=0)


def test_bootstrap_interval_covers_the_truth():
    random = np.random.default_rng(11)
    old = random.random((400, 200)) < 0.60
    new = np.where(random.random((400, 200)) < 0.25, random.random((400, 200)) < 0.80, old)  # true gain: .25 * (.80 - .60)
    intervals = [paired_bootstrap(list(a), list(b), resamples=1000, seed=seed) for seed, (a, b) in enumerate(zip(new, old, strict=True))]
    covered = np.mean([low <= 0.05 <= high for low, high in intervals])
    assert 0.91 <= covered <= 0.98


def test_bootstrap_agrees_with_drawing_the_questions_one_by_one():
    random = np.random.default_rng(3)
    new, old = random.random(150) < 0.8, random.random(150) < 0.6
    draws = random.integers(0, 150, size=(20_000, 150))
    by_hand = np.quantile((new.astype(int) - old)[draws].mean(axis=1), [0.025, 0.975])
    assert paired_bootstrap(list(new), list(old), resamples=20_000, seed=1) == pytest.approx(by_hand, abs=0.011)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_bootstrap_is_seeded_bounded_and_antisymmetric_in_its_difference(pairs, seed):
    new, old = [a for a, _ in pairs], [b for _, b in pairs]
    interval = paired_bootstrap(new, old, resamples=200, seed=seed)
    assert interval == paired_bootstrap(new, old, resamples=200, seed=seed)
    assert -1 <= interval.low <= interval.high <= 1
    if new == old:
        assert interval == (0.0, 0.0)


def test_bootstrap_refuses_unequal_sides():
    with pytest.raises(DataError, match="2 against 1"):
        paired_bootstrap([True, False], [True], resamples=10, seed=0)


def test_pooling_one_run_is_the_plain_bootstrap():
    random = np.random.default_rng(4)
    new, old = random.random(300) < 0.8, random.random(300) < 0.7
    run = {str(i): int(a) - int(b) for i, (a, b) in enumerate(zip(new, old, strict=True))}
    pooled = pooled_bootstrap([run], resamples=8000, seed=0)
    assert pooled == pytest.approx(paired_bootstrap(list(new), list(old), resamples=8000, seed=0), abs=0.01)


def test_pooling_narrows_with_new_questions_but_not_with_the_same_ones_again():
    random = np.random.default_rng(6)
    changes = [random.choice([-1, 0, 1], p=[0.1, 0.7, 0.2], size=100) for _ in range(4)]
    fresh = [{f"{run}-{i}": int(v) for i, v in enumerate(change)} for run, change in enumerate(changes)]
    again = [dict(enumerate_as_text(changes[0])) for _ in range(4)]

    def width(runs):
        low, high = pooled_bootstrap(runs, resamples=3000, seed=0)
        return high - low

    single = width(again[:1])
    assert width(again) == pytest.approx(single, rel=0.1)
    assert width(fresh) < 0.9 * single


def test_pooling_refuses_an_empty_run():
    with pytest.raises(DataError, match="at least one run"):
        pooled_bootstrap([{"q": 1}, {}], resamples=10, seed=0)


@settings(max_examples=25, deadline=None)  # statsmodels collects garbage at every call
@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_what_stepping_down_the_sorted_p_values_rejects(p_values, alpha):
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - rank) > alpha:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_a_family_of_none_has_no_p_values():
    assert holm([]) == []


def test_holm_of_a_family_worked_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 x .01; 2 x .03; max(1 x .04, .06)


PUBLISHED = {
    229: (5.8, 7.1, 8.2, 9.2, 10.1, 11.7),
    490: (4.0, 4.9, 5.7, 6.3, 6.9, 8.0),
    687: (3.4, 4.1, 4.8, 5.3, 5.8, 6.8),
    2290: (1.9, 2.3, 2.6, 2.9, 3.2, 3.7),
}


@pytest.mark.parametrize("n", PUBLISHED)
def test_minimal_detectable_difference_table(n):
    points = [100 * minimal_detectable_difference(n, psi) for psi in (0.10, 0.15, 0.20, 0.25, 0.30, 0.40)]
    assert points == pytest.approx(PUBLISHED[n], abs=0.06)


@given(st.integers(10, 5000), st.floats(0.0, 1.0))
def test_minimal_detectable_difference_solves_its_equation(n, psi):
    found = minimal_detectable_difference(n, psi)
    assert 0 < found <= 1
    share = max(psi, found)
    assert n == pytest.approx(((1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(max(share - found**2, 0.0))) / found) ** 2, rel=1e-3)


def test_a_handful_of_questions_can_show_nothing():
    assert minimal_detectable_difference(1, 0.0) == 1.0


def test_the_detectable_difference_is_found_with_the_promised_power():
    psi, n = 0.25, 400
    gain = minimal_detectable_difference(n, psi)
    drawn = np.random.default_rng(8).multinomial(n, [(psi + gain) / 2, (psi - gain) / 2, 1 - psi], size=800)
    power = np.mean([mcnemar(int(gained), int(lost)) < 0.05 for gained, lost, _ in drawn])
    assert 0.72 <= power <= 0.86  # the exact test gives away a little of the asymptotic 0.80


def enumerate_as_text(values):
    return ((str(index), int(value)) for index, value in enumerate(values))


TABLE = st.lists(st.integers(1, 60), min_size=4, max_size=4).map(lambda counts: [counts[:2], counts[2:]])


@given(TABLE)
def test_kappa_agrees_with_statsmodels(table):
    made, reference = cohens_kappa(table), reference_kappa(table)
    assert made.value == pytest.approx(reference.kappa, abs=1e-12)
    assert made.interval == pytest.approx((reference.kappa_low, reference.kappa_upp), abs=1e-9)


@pytest.mark.parametrize(("table", "kappa"), [([[5, 0], [0, 7]], 1.0), ([[0, 0], [1, 2]], 0.0), ([[9, 0], [0, 0]], 0.0), ([[0, 4], [4, 0]], -1.0)])
def test_kappa_of_tables_with_empty_cells(table, kappa):
    made = cohens_kappa(table)
    assert made.value == pytest.approx(kappa)
    assert made.interval == pytest.approx((kappa, kappa))


def test_an_empty_table_has_no_kappa():
    with pytest.raises(DataError, match="no question in common"):
        cohens_kappa([[0, 0], [0, 0]])
