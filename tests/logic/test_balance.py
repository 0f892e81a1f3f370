"""Class shares: restored by every way of rebalancing, tested for bias, and held by the gate."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.failures import UnbalancedCorpus
from tasks.contracts.rows import Curated
from tasks.logic.balance import FilterStep, check_balance, keep_rates, occurrences, rebalance, trained_classes
from tests.logic.rows_of import curated, questions

POOL = questions(120)
WAYS = ("up_sample", "down_sample", "class_weight", "verdict_weight")


def steps(*counts: tuple[float, float]) -> list[FilterStep]:
    return [FilterStep(step=f"step {number}", yes=yes, no=no) for number, (yes, no) in enumerate(counts)]


def corpus(yes: int, no: int, **changes: Any) -> list[Curated]:
    rows = [curated(row, **changes) for row in POOL]
    return [row for row in rows if row.answer == "yes"][:yes] + [row for row in rows if row.answer == "no"][:no]


@st.composite
def corpora(draw: st.DrawFn) -> list[Curated]:
    """Questions with one to three reasonings each, some of them trusted less, and a few questions held out for pairs."""
    questions_of = corpus(draw(st.integers(1, 30)), draw(st.integers(1, 30)))
    rows = [
        curated(row, sample=sample, weight=weight)
        for row in questions_of
        for sample, weight in enumerate(draw(st.lists(st.sampled_from([0.5, 1.0]), min_size=1, max_size=3)))
    ]
    return rows + [curated(row, role="pair") for row in corpus(33, 33) if row.qid not in {each.qid for each in questions_of}][:4]


@settings(deadline=None)
@given(corpora(), st.floats(0.1, 0.9), st.sampled_from(WAYS), st.integers(0, 3))
def test_the_share_of_yes_is_the_sources_again(rows: list[Curated], target: float, how: Any, seed: int) -> None:
    made = rebalance(rows, how=how, target_yes_share=target, seed=seed)
    direct, reasoned = trained_classes(made)
    assert abs(direct.yes_share - target) <= max(0.02, 1 / (direct.yes + direct.no))
    if how.endswith("weight"):
        assert abs(reasoned.yes_share - target) <= 0.02
    assert [row for row in made if row.role == "pair"] == [row for row in rows if row.role == "pair"]
    assert rebalance(rows, how=how, target_yes_share=target, seed=seed) == made


@settings(deadline=None)
@given(corpora(), st.floats(0.1, 0.9))
def test_up_sampling_repeats_whole_questions_and_loses_none(rows: list[Curated], target: float) -> None:
    made = rebalance(rows, how="up_sample", target_yes_share=target, seed=0)
    assert made[: len(rows)] == rows
    before, after = Counter(row.qid for row in rows), Counter(row.qid for row in made)
    times = {qid: after[qid] / before[qid] for qid in before}
    assert all(each.is_integer() and each >= 1 for each in times.values())
    assert Counter(row.qid for row in occurrences(made)) == times


@settings(deadline=None)
@given(corpora(), st.floats(0.1, 0.9))
def test_down_sampling_leaves_whole_questions_out_and_repeats_none(rows: list[Curated], target: float) -> None:
    made = rebalance(rows, how="down_sample", target_yes_share=target, seed=0)
    left = {row.qid for row in made}
    assert made == [row for row in rows if row.qid in left]
    assert {row.answer for row in made if row.role == "sft"} == {"yes", "no"}


@pytest.mark.parametrize("how", WAYS[2:])
def test_weights_keep_their_mean_and_stay_with_their_class(how: Any) -> None:
    rows = corpus(5, 15)
    made = rebalance(rows, how=how, target_yes_share=0.5, seed=0)
    assert sum(row.weight * row.verdict_factor for row in made) == pytest.approx(20)
    assert {(row.answer, round(row.direct_weight, 6)) for row in made} == {("yes", 2.0), ("no", round(2 / 3, 6))}
    assert {row.weight for row in made} == {1.0} if how == "verdict_weight" else {row.verdict_factor for row in made} == {1.0}


def test_a_class_with_more_reasonings_does_not_count_for_more() -> None:
    rows = [curated(row, sample=sample) for row in corpus(10, 10) for sample in range(3 if row.answer == "no" else 1)]
    assert [round(step.yes_share, 2) for step in trained_classes(rows)] == [0.5, 0.25]
    with pytest.raises(UnbalancedCorpus, match="Track B, weighted: 10 yes, 30 no"):
        check_balance(steps((10, 10)), trained_classes(rows), max_shift=0.02, allowed=False)
    made = rebalance(rows, how="class_weight", target_yes_share=0.5, seed=0)
    assert check_balance(steps((10, 10)), trained_classes(made), max_shift=0.0001, allowed=False) == ""


@pytest.mark.parametrize("how", WAYS)
def test_a_class_that_is_gone_cannot_be_restored_and_the_gate_tells(how: Any) -> None:
    rows = corpus(0, 9)
    assert rebalance(rows, how=how, target_yes_share=0.5, seed=0) == rows
    with pytest.raises(UnbalancedCorpus):
        check_balance(steps((9, 9)), trained_classes(rows), max_shift=1.0, allowed=False)


def test_the_gate_tells_every_step_or_says_so_instead_where_it_is_allowed() -> None:
    passed, trained = steps((91, 109), (39, 98)), [FilterStep(step="Track A, weighted", yes=39, no=98)]
    told = r"from 45\.5% to 28\.5%.*step 0: 91 yes, 109 no, 45\.5%; step 1: 39 yes, 98 no, 28\.5%; Track A, weighted: 39 yes"
    with pytest.raises(UnbalancedCorpus, match=told) as raised:
        check_balance(passed, trained, max_shift=0.02, allowed=False)
    assert check_balance(passed, trained, max_shift=0.02, allowed=True) == str(raised.value)
    assert check_balance(passed, trained, max_shift=0.2, allowed=False) == ""


def test_one_question_of_a_few_is_no_shift() -> None:
    assert check_balance(steps((3, 3)), steps((3, 2)), max_shift=0.02, allowed=False) == ""
    with pytest.raises(UnbalancedCorpus):
        check_balance(steps((3, 3)), steps((3, 1)), max_shift=0.02, allowed=False)


def test_keep_rates_show_the_original_projects_bias() -> None:
    asked, kept = keep_rates(steps((91, 109), (91, 109), (39, 98)))
    assert (asked.yes, asked.no, asked.p_value) == (1.0, 1.0, 1.0)
    assert (kept.yes, kept.no, kept.test) == (pytest.approx(0.4286, abs=1e-4), pytest.approx(0.8991, abs=1e-4), "chi-square")
    # By hand: 200 (39 x 11 - 52 x 98)^2, less 100 for Yates, over 91 x 109 x 137 x 63 = 48.4, which chance exceeds 3.4 times in 10^12.
    assert kept.p_value == pytest.approx(3.4e-12, rel=0.1)


def test_few_expected_counts_call_for_fishers_test() -> None:
    (rate,) = keep_rates(steps((10, 10), (10, 6)))
    assert (rate.test, rate.p_value) == ("Fisher", pytest.approx(2 * 210 / 4845))  # 2 C(10, 4) / C(20, 4)


@given(st.integers(1, 50), st.integers(1, 50), st.data())
def test_any_counts_have_a_p_value(yes: int, no: int, data: st.DataObject) -> None:
    left = data.draw(st.tuples(st.integers(0, yes), st.integers(0, no)))
    (rate,) = keep_rates(steps((yes, no), left))
    assert 0.0 <= rate.p_value <= 1.0
    assert (rate.yes, rate.no) == (left[0] / yes, left[1] / no)
