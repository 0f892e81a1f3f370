"""Scores and comparisons from prediction rows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Prediction
from tasks.logic.scores import Finding, class_shares, compare, compare_mean, compare_pooled, finding, holm, score
from tasks.logic.statistics import Interval

VERDICTS = st.sampled_from(["yes", "no", "unparsed"])
ANSWERS = st.lists(st.tuples(st.sampled_from(["yes", "no"]), VERDICTS), min_size=1, max_size=60)


def predictions(pairs, *, model="track_b", arm="reasoning", prefix="q"):
    return [
        Prediction(
            qid=f"{prefix}{index}",
            split="dev",
            kind="",
            model=model,
            arm=arm,
            question="Could it?",
            answer=gold,
            verdict=verdict,
            text=verdict,
            tokens=3,
            cut=False,
            margin=math.nan,
            reason="" if verdict != "unparsed" else "no final answer",
        )
        for index, (gold, verdict) in enumerate(pairs)
    ]


def outcomes(gained, lost, both):
    """(new, old) predictions with these pair counts."""
    kinds = [("yes", "yes", "no")] * gained + [("no", "yes", "no")] * lost + [("yes", "yes", "yes")] * both
    new = predictions([(gold, verdict) for gold, verdict, _ in kinds])
    old = predictions([(gold, verdict) for gold, _, verdict in kinds], model="track_a", arm="direct")
    return new, old


def test_score_counts_an_unparsed_answer_as_wrong_and_apart():
    cell = score(predictions([("yes", "yes"), ("yes", "unparsed"), ("no", "no"), ("no", "yes"), ("yes", "no")]))
    assert (cell.model, cell.arm, cell.split, cell.n) == ("track_b", "reasoning", "dev", 5)
    assert cell.accuracy == pytest.approx(2 / 5)
    assert cell.unparsed == 1
    assert cell.yes_rate == pytest.approx(2 / 5)
    assert cell.balanced_accuracy == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert cell.majority_accuracy == pytest.approx(3 / 5)
    assert cell.ci_low < cell.accuracy < cell.ci_high


def test_always_no_has_the_majority_accuracy_and_half_the_balanced_one():
    cell = score(predictions([("no", "no")] * 354 + [("yes", "no")] * 333))
    assert cell.accuracy == cell.majority_accuracy == pytest.approx(0.5153, abs=1e-4)
    assert cell.balanced_accuracy == 0.5
    assert cell.yes_rate == 0.0


@given(ANSWERS)
def test_score_is_a_share_and_does_not_depend_on_order(pairs):
    rows = predictions(pairs)
    cell = score(rows)
    assert 0 <= cell.ci_low <= cell.accuracy <= cell.ci_high <= 1
    assert cell.accuracy * cell.n == pytest.approx(sum(gold == verdict for gold, verdict in pairs))
    assert cell.yes_rate + cell.unparsed / cell.n <= 1 + 1e-12
    assert cell.majority_accuracy >= 0.5
    assert score(rows[::-1]) == cell


def test_score_refuses_what_it_cannot_count():
    rows = predictions([("yes", "yes"), ("no", "no")])
    with pytest.raises(DataError, match="no predictions"):
        score([])
    with pytest.raises(DataError, match="mix"):
        score([*rows, *predictions([("yes", "yes")], model="track_a", prefix="z")])
    with pytest.raises(DataError, match="more than once"):
        score([*rows, rows[0]])
    with pytest.raises(DataError, match="unlabelled"):
        score(predictions([("", "yes")]))


def test_class_shares():
    assert class_shares(["yes", "no", "no", "no"]) == {"yes": 0.25, "no": 0.75}
    assert class_shares([]) == {"yes": 0.0, "no": 0.0}
    with pytest.raises(DataError, match="maybe"):
        class_shares(["maybe"])


def test_comparison_of_known_counts():
    new, old = outcomes(gained=30, lost=15, both=155)
    found = compare("track_b_vs_track_a", new, list(reversed(old)), resamples=2000, seed=1)
    assert found.n == 200
    assert found.difference == pytest.approx(0.075)
    assert found.p_value == found.p_holm == pytest.approx(0.0357, abs=5e-5)
    assert 0 < found.ci_low < 0.075 < found.ci_high
    assert found.verdict is Finding.PASS
    assert compare("same", new, new, resamples=100, seed=1).verdict is Finding.UNDERPOWERED


def test_comparison_mirrors_when_sides_are_swapped():
    new, old = outcomes(gained=40, lost=5, both=55)
    forth = compare("forth", new, old, resamples=4000, seed=2)
    back = compare("back", old, new, resamples=4000, seed=2)
    assert back.difference == -forth.difference
    assert back.p_value == forth.p_value
    assert back.minimal_detectable == forth.minimal_detectable
    assert (forth.verdict, back.verdict) == (Finding.PASS, Finding.FAIL)
    assert (back.ci_low, back.ci_high) == pytest.approx((-forth.ci_high, -forth.ci_low), abs=0.02)


def test_comparison_refuses_other_questions_or_other_labels():
    new, old = outcomes(gained=3, lost=1, both=6)
    with pytest.raises(DataError, match="not asked the same questions"):
        compare("x", new, old[:-1], resamples=10, seed=0)
    with pytest.raises(DataError, match="different gold answers"):
        compare("x", predictions([("yes", "yes")]), predictions([("no", "yes")]), resamples=10, seed=0)


def test_holm_can_take_a_pass_away():
    new, old = outcomes(gained=30, lost=15, both=155)
    alone = compare("first", new, old, resamples=1000, seed=1)
    family = holm([alone, compare("second", new, old, resamples=1000, seed=1)])
    assert [each.name for each in family] == ["first", "second"]
    assert [each.p_holm for each in family] == pytest.approx([2 * alone.p_value] * 2)
    assert {each.verdict for each in family} == {Finding.UNDERPOWERED}


def test_pooled_comparison_adds_up_the_seeds():
    runs = []
    for number, (gained, lost) in enumerate([(30, 5), (28, 6), (25, 9)]):
        new, old = outcomes(gained=gained, lost=lost, both=200 - gained - lost)
        new, old = ([type(row)(**{**vars(row), "qid": f"{number}-{row.qid}"}) for row in side] for side in (new, old))
        runs.append((new, [old]))
    found = compare_pooled("aligned_vs_track_b", runs, resamples=1000, seed=0, claim=-0.03)
    assert found.n == 600
    assert found.difference == pytest.approx(63 / 600)
    assert found.verdict is Finding.PASS


def test_seeds_that_read_the_same_questions_are_no_further_questions():
    new, old = outcomes(gained=30, lost=15, both=155)
    once, thrice = compare("x", new, old, resamples=4000, seed=0), compare_pooled("x", [(new, [old])] * 3, resamples=4000, seed=0)
    assert (thrice.n, thrice.difference) == (once.n, pytest.approx(once.difference))
    assert thrice.p_value == pytest.approx(once.p_value, abs=0.01)
    assert thrice.minimal_detectable == pytest.approx(once.minimal_detectable)
    flat = compare_pooled("x", [(new, [old]), ([*old[:30], *new[30:]], [old])], resamples=4000, seed=0)  # the other seed gained nothing of what this one did
    assert flat.difference == pytest.approx((30 - 15 - 15) / 400)
    assert flat.p_value > 0.5


def test_runs_that_overlap_in_part_have_an_interval_around_their_difference():
    new, old = outcomes(gained=90, lost=10, both=100)  # the first half gains, the second does not
    half = [(new[:100], [old[:100]])] * 3
    found = compare_pooled("x", [*half, *[(new, [old])] * 3], resamples=4000, seed=0)
    assert found.n == 200
    assert found.difference == pytest.approx(80 / 200)  # and not the mean over readings, in which the first half stands twice
    alone = compare("x", new, old, resamples=4000, seed=0)
    assert found.ci_low == pytest.approx(alone.ci_low, abs=0.03)
    assert found.ci_low < found.difference < found.ci_high


def test_against_several_readings_a_question_counts_by_their_mean():
    new, old = outcomes(gained=60, lost=10, both=130)
    alone, twice = (compare_mean("x", new, olds, resamples=4000, seed=0) for olds in ([old], [old, old]))
    plain = compare("x", new, old, resamples=4000, seed=0)
    for each in (alone, twice):
        assert (each.n, each.difference, each.minimal_detectable) == (plain.n, pytest.approx(plain.difference), pytest.approx(plain.minimal_detectable))
        assert (each.ci_low, each.ci_high) == pytest.approx((plain.ci_low, plain.ci_high), abs=0.02)
        assert each.verdict == plain.verdict == Finding.PASS
    mixed = compare_mean("x", new, [old, new], resamples=500, seed=0)
    assert mixed.difference == pytest.approx(plain.difference / 2)
    assert mixed.ci_low <= 0 < mixed.ci_high  # it may as well have been twice the reading that shows nothing
    with pytest.raises(DataError, match="reading 2: the two models were not asked the same questions"):
        compare_mean("x", new, [old, old[:-1]], resamples=10, seed=0)


@pytest.mark.parametrize(
    ("difference", "interval", "p_holm", "claim", "expected"),
    [
        (0.05, (0.01, 0.09), 0.01, 0.0, "pass"),
        (0.05, (0.01, 0.09), 0.06, 0.0, "underpowered"),  # the interval alone does not decide
        (0.05, (-0.01, 0.11), 0.01, 0.0, "underpowered"),  # nor a p value alone, which takes runs as they are
        (-0.05, (-0.09, -0.01), 0.01, 0.0, "fail"),
        (-0.01, (-0.05, 0.03), 0.60, 0.0, "underpowered"),
        (0.12, (0.06, 0.18), 0.001, 0.10, "pass"),
        (0.08, (0.03, 0.13), 0.001, 0.10, "underpowered"),  # a real gain, the promised one neither reached nor excluded
        (0.03, (0.00, 0.06), 0.04, 0.10, "fail"),  # the interval excludes the promised gain
        (0.00, (-0.02, 0.02), 1.0, -0.03, "pass"),  # not worse by 3 points
        (-0.02, (-0.05, 0.01), 0.3, -0.03, "underpowered"),
        (-0.08, (-0.12, -0.04), 0.001, -0.03, "fail"),
    ],
)
def test_findings(difference, interval, p_holm, claim, expected):
    assert finding(difference=difference, interval=Interval(*interval), p_holm=p_holm, claim=claim) == expected
