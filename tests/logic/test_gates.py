"""The gate turns back each planted regression for its own reason and no other, and lets an equal or better student pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from fractions import Fraction
from itertools import cycle, islice
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.contracts.recipes import Gate
from tasks.contracts.rounds import Attempt, Gauged, Round
from tasks.contracts.rows import Prediction
from tasks.logic.gates import Standing, gate, hardest_third, significant, standing
from tests.logic.report.sample_rounds import sample_rounds

RECIPE = Gate(
    min_gain=-0.01, worse_p=0.1, max_yes_shift=0.05, max_unparsed=0.01, max_length_change=0.25, min_chosen_log_ratio=-0.05, max_hard_loss=0.03, max_drift=0.2,
    drift_questions=4,
)  # fmt: skip
N = 240
NAMES = {field.name for field in fields(Standing)}
FLIP = {"yes": "no", "no": "yes"}


def dev(*, wrong: Sequence[int] = (), says: dict[int, str] | None = None, tokens: int = 60, arm: str = "reasoning", n: int = N) -> list[Prediction]:
    """Answers to `n` questions, half of them yes; those numbered in `wrong` are the other class."""
    rows = []
    for number in range(n):
        gold = "yes" if number % 2 else "no"
        verdict = (says or {}).get(number, FLIP[gold] if number in set(wrong) else gold)
        rows.append(
            Prediction(
                qid=f"q{number}", split="dev", kind="", model="m", arm=arm, question="?", answer=gold, verdict=verdict, text="", tokens=tokens, cut=False,
                margin=math.nan, reason="no verdict" if verdict == "unparsed" else "",
            )
        )  # fmt: skip
    return rows


def gauged(*, chosen: float = 0.02, drift: float = 0.05, tokens: Sequence[int] = (40, 80)) -> list[Gauged]:
    """Texts whose log-ratios a token are as asked."""
    of_chosen = [Gauged(qid=f"c{n}", role="chosen", text="t", tokens=n, candidate=chosen * n - 9, accepted=-9.0, track_b=math.nan) for n in tokens]
    own = [Gauged(qid=f"o{n}", role="own", text="t", tokens=n, candidate=drift * n - 9, accepted=math.nan, track_b=-9.0) for n in tokens]
    return of_chosen + own


PARENT_WRONG = range(40)  # as many of either class; the hardest third are the first 80
HARDEST = frozenset(f"q{number}" for number in range(80))
PARENT_ROWS = dev(wrong=PARENT_WRONG)
PARENT = standing(PARENT_ROWS, PARENT_ROWS, hardest=HARDEST, gauged=gauged())


def failed(read: Sequence[Prediction], texts: Sequence[Gauged] | None = None, **changed: Any) -> dict[str, str]:
    """What the gate says against a student, by threshold."""
    found = standing(read, PARENT_ROWS, hardest=HARDEST, gauged=gauged() if texts is None else texts)
    values = {"parent": PARENT, "start": PARENT, "best": PARENT.accuracy, "gold_yes": 0.5, "recipe": RECIPE, **changed}
    return {check.name: check.said for check in gate(found, **values) if not check.passed}


def test_the_same_student_again_passes_every_check() -> None:
    checks = gate(PARENT, parent=PARENT, start=PARENT, best=PARENT.accuracy, gold_yes=0.5, recipe=RECIPE)
    assert [check.name for check in checks] == [name for name in Gate.model_fields if name != "drift_questions"]
    assert all(check.passed for check in checks)
    assert PARENT.gain == 0
    assert PARENT.gain_p == 1


def test_a_better_student_passes() -> None:
    assert failed(dev(wrong=range(20))) == {}


def test_labels_flipped_in_a_round_are_a_fall_of_accuracy() -> None:
    said = failed(dev(wrong=[*range(40), *range(120, 160)]))  # the new errors lie outside the hardest third
    assert said.keys() == {"min_gain", "worse_p"}  # one fact, seen against the best and against the parent
    assert said["min_gain"] == "dev accuracy 66.7 % is more than 1.0 point below the best before it, 83.3 %"
    assert said["worse_p"] == "dev accuracy fell by 16.7 points against the student before it, which is hardly chance (p < 0.001, at least 0.100 wanted)"


def test_a_small_fall_below_a_best_long_ago_is_named_for_that_alone() -> None:
    said = failed(PARENT_ROWS, best=PARENT.accuracy + 0.02)
    assert said == {"min_gain": "dev accuracy 83.3 % is more than 1.0 point below the best before it, 85.3 %"}


def test_a_real_fall_within_the_allowance_is_named_for_its_p() -> None:
    generous = RECIPE.model_copy(update={"min_gain": -0.5})
    assert failed(dev(wrong=[*range(40), *range(120, 160)]), recipe=generous).keys() == {"worse_p"}


def test_answers_three_times_as_long_are_named_for_their_length() -> None:
    said = failed(dev(wrong=PARENT_WRONG, tokens=180))
    assert said == {"max_length_change": "its mean answer of 180.0 tokens is 200.0 % longer than the start's 60.0; no more than 25.0 % is allowed"}


def test_length_is_held_against_the_start_and_not_the_parent() -> None:
    assert failed(dev(wrong=PARENT_WRONG, tokens=70), start=replace(PARENT, length=50.0)).keys() == {"max_length_change"}


def test_collapse_to_no_is_named_for_the_yes_rate() -> None:
    said = failed(dev(says=dict.fromkeys(range(N), "no")))
    assert "max_yes_shift" in said
    assert said["max_yes_shift"] == "it says yes to 0.0 % of dev, 50.0 points from gold's 50.0 %; no more than 5.0 are allowed"


def test_a_lean_to_no_that_costs_no_accuracy_is_named_for_the_yes_rate_alone() -> None:
    lean = dev(says=dict.fromkeys(range(1, 40, 2), "no") | dict.fromkeys(range(0, 40, 2), "no"))  # rights the no questions, loses none more
    assert failed(lean).keys() == {"max_yes_shift"}


def test_a_start_that_leans_may_be_mended_and_not_made_worse() -> None:
    leaning = replace(PARENT, yes_rate=0.85, unparsed=0.05)
    half = dev(says=dict.fromkeys(range(0, 40, 2), "yes") | dict.fromkeys(range(4), "unparsed"))
    assert {"max_yes_shift", "max_unparsed"} <= failed(half).keys()
    assert failed(half, parent=leaning) == {}
    worse = dev(says=dict.fromkeys(range(0, 180, 2), "yes") | dict.fromkeys(range(181, 209, 2), "unparsed"))
    said = failed(worse, parent=replace(leaning, yes_rate=0.6))
    assert said["max_yes_shift"] == "it says yes to 81.7 % of dev, 31.7 points from gold's 50.0 %; no more than 10.0, its parent's, are allowed"
    assert said["max_unparsed"] == "5.8 % of its dev answers have no verdict; no more than 5.0 %, its parent's, may"


def test_lost_verdicts_are_named() -> None:
    said = failed(dev(wrong=range(4, 34), says=dict.fromkeys(range(4), "unparsed")))
    assert said == {"max_unparsed": "1.7 % of its dev answers have no verdict; no more than 1.0 % may"}


def test_rarer_chosen_texts_are_named() -> None:
    said = failed(PARENT_ROWS, gauged(chosen=-0.12))
    assert said == {
        "min_chosen_log_ratio": "the chosen texts' log-ratio −0.120 nats a token is below −0.050: the texts that it was to prefer got rarer"
    }  # fmt: skip


def test_hard_questions_lost_for_easy_ones_are_named() -> None:
    parent = dev(wrong=[*range(30), *range(120, 150)])
    before = standing(parent, parent, hardest=HARDEST, gauged=gauged())
    found = standing(dev(wrong=[*range(40), *range(120, 140)]), parent, hardest=HARDEST, gauged=gauged())
    checks = gate(found, parent=before, start=before, best=before.accuracy, gold_yes=0.5, recipe=RECIPE)
    assert [check.said for check in checks if not check.passed] == ["accuracy on the hardest third, 50.0 %, is more than 3.0 points below its parent's 62.5 %"]


def test_every_share_on_its_bound_is_inside() -> None:
    """Bounds as the profiles write them, figures as counts give them: 0.44 is 0.05 from 0.49 and 1.25 times 58.4 is 73."""
    for count in range(60, 440):
        found = replace(PARENT, yes_rate=count / 1000, hard_accuracy=count / 1000, length=1.25 * count / 10, unparsed=0.01, chosen_log_ratio=-0.05, drift=0.2)
        others = {"parent": replace(PARENT, hard_accuracy=(count + 30) / 1000), "start": replace(PARENT, length=count / 10), "gold_yes": (count + 50) / 1000}
        assert [check.said for check in gate(found, best=PARENT.accuracy, recipe=RECIPE, **others) if not check.passed] == []


def test_drift_is_named() -> None:
    assert failed(PARENT_ROWS, gauged(drift=0.31)) == {"max_drift": "its drift from Track B, 0.310 nats a token, is above 0.200"}


def test_without_fresh_pairs_there_is_no_chosen_log_ratio_and_the_check_says_so() -> None:
    found = standing(PARENT_ROWS, PARENT_ROWS, hardest=HARDEST, gauged=[each for each in gauged() if each.role == "own"])
    check = next(
        each for each in gate(found, parent=PARENT, start=PARENT, best=0.5, gold_yes=0.5, recipe=RECIPE) if each.name == "min_chosen_log_ratio"
    )  # fmt: skip
    assert check.passed
    assert "no fresh pair" in check.said


@pytest.mark.parametrize("role", ["chosen", "own"])
def test_a_text_that_nobody_could_score_fails_in_words(role: str) -> None:
    texts = [replace(each, candidate=math.nan) if each.role == role else each for each in gauged()]
    said = failed(PARENT_ROWS, texts)
    assert len(said) == 1
    assert "could not be measured" in next(iter(said.values()))


def test_a_drift_that_was_not_measured_fails() -> None:
    assert failed(PARENT_ROWS, [each for each in gauged() if each.role == "chosen"]).keys() == {"max_drift"}


@given(st.sampled_from(sorted(NAMES)))
def test_no_missing_figure_passes_unsaid(name: str) -> None:
    checks = gate(replace(PARENT, **{name: math.nan}), parent=PARENT, start=PARENT, best=PARENT.accuracy, gold_yes=0.5, recipe=RECIPE)
    if name == "gain_p":  # what did not fall needs no test of the fall
        assert all(check.passed for check in checks)
    else:
        told = [check.said for check in checks if "could not be measured" in check.said or "no fresh pair" in check.said]
        assert len(told) == 1
        assert all(check.passed for check in checks) == (name == "chosen_log_ratio")


@given(st.integers(1, 2000), st.data(), st.integers(-50, 50).map(lambda number: number / 1000))
def test_accuracy_is_compared_as_counts_are(n: int, data: st.DataObject, min_gain: float) -> None:
    right, best = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    found = replace(PARENT, accuracy=right / n)
    check = gate(found, parent=PARENT, start=PARENT, best=best / n, gold_yes=0.5, recipe=RECIPE.model_copy(update={"min_gain": min_gain}))[0]
    assert check.passed == (Fraction(right, n) >= Fraction(best, n) + Fraction(str(min_gain)))


def test_an_accuracy_exactly_on_its_bound_is_inside_and_one_question_less_is_not() -> None:
    for best in range(50, 1001, 7):
        for thousandths in (-50, -10, -3, 0):
            recipe = RECIPE.model_copy(update={"min_gain": thousandths / 1000})
            found = [replace(PARENT, accuracy=(best + thousandths - less) / 1000) for less in (0, 1)]
            checks = [gate(each, parent=PARENT, start=PARENT, best=best / 1000, gold_yes=0.5, recipe=recipe)[0] for each in found]
            assert [check.passed for check in checks] == [True, False]


@given(st.integers(1, 2000), st.data(), st.integers(0, 100).map(lambda number: number / 1000))
def test_a_yes_rate_on_the_bound_is_inside(n: int, data: st.DataObject, most: float) -> None:
    said, gold = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    recipe = RECIPE.model_copy(update={"max_yes_shift": most})
    parent = replace(PARENT, yes_rate=gold / n)
    check = gate(replace(PARENT, yes_rate=said / n), parent=parent, start=PARENT, best=0.0, gold_yes=gold / n, recipe=recipe)[2]
    assert check.passed == (abs(Fraction(said, n) - Fraction(gold, n)) <= Fraction(str(most)))


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_failed_check_never_shows_its_figure_equal_to_its_bound(accuracy: float, best: float) -> None:
    assume(abs(accuracy - best) > 1e-5)
    recipe = RECIPE.model_copy(update={"min_gain": 0.0})
    check = gate(replace(PARENT, accuracy=accuracy), parent=PARENT, start=PARENT, best=best, gold_yes=0.5, recipe=recipe)[0]
    shown, bound = check.said.removeprefix("dev accuracy ").split(" % is ")[0], check.said.split("before it, ")[1].removesuffix(" %")
    assert (float(shown) < float(bound)) == (not check.passed)


@given(st.permutations(range(N)), st.sets(st.integers(0, N - 1)), st.sets(st.integers(0, N - 1)))
def test_a_standing_knows_no_order(order: list[int], wrong: set[int], wrong_before: set[int]) -> None:
    read, parent = dev(wrong=sorted(wrong)), dev(wrong=sorted(wrong_before))
    found = standing(read, parent, hardest=HARDEST, gauged=gauged())
    assert standing([read[index] for index in order], parent, hardest=HARDEST, gauged=gauged()) == found
    assert found.gain == pytest.approx((len(wrong_before) - len(wrong)) / N)
    assert found.accuracy - found.gain == pytest.approx(1 - len(wrong_before) / N)


def test_log_ratios_are_a_text_each_and_drift_a_token_each() -> None:
    texts = [
        Gauged(qid="a", role="chosen", text="t", tokens=10, candidate=-10.0, accepted=-11.0, track_b=math.nan),
        Gauged(qid="b", role="chosen", text="t", tokens=90, candidate=-90.0, accepted=-63.0, track_b=math.nan),
        Gauged(qid="c", role="own", text="t", tokens=10, candidate=-10.0, accepted=math.nan, track_b=-11.0),
        Gauged(qid="d", role="own", text="t", tokens=90, candidate=-90.0, accepted=math.nan, track_b=-117.0),
    ]
    found = standing(PARENT_ROWS, PARENT_ROWS, hardest=HARDEST, gauged=texts)
    assert found.chosen_log_ratio == pytest.approx((0.1 - 0.3) / 2)
    assert found.drift == pytest.approx((1 + 27) / 100)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (dev(n=N - 1), "not asked the same questions"),
        ([*dev(), dev()[0]], "q0"),
        ([replace(row, answer="yes") for row in dev()], "different gold answers"),
        (dev(arm="direct"), "arm direct"),
    ],
)
def test_sides_that_do_not_belong_together_are_refused(read: list[Prediction], message: str) -> None:
    with pytest.raises(DataError, match=message):
        standing(read, PARENT_ROWS, hardest=HARDEST, gauged=gauged())


def test_a_hard_question_that_was_not_read_is_refused() -> None:
    with pytest.raises(DataError, match="answer the same dev questions"):
        standing(PARENT_ROWS, PARENT_ROWS, hardest={"q0", "elsewhere"}, gauged=gauged())


def tries(number: int, right: int, of: int = 8) -> list[Attempt]:
    """Samples of question `number`, of which the first `right` are right."""
    gold = "yes" if number % 2 else "no"
    return [
        Attempt(
            qid=f"q{number}", split="dev", sample=sample, text="", tokens=1, cut=False, answer=gold, verdict=gold if sample < right else FLIP[gold], after=1.0,
            elsewhere=0.0, valid=True,
        )
        for sample in range(of)
    ]  # fmt: skip


def test_the_hardest_third_are_those_with_the_fewest_right_samples_then_a_wrong_greedy_answer() -> None:
    rights = [0, 8, 3, 3, 8, 8, 8]
    attempts = [attempt for number, right in enumerate(rights) for attempt in tries(number, right)]
    assert hardest_third(attempts, dev(n=7, wrong=[3, 6])) == {"q0", "q2", "q3"}
    assert hardest_third(attempts, dev(n=4, wrong=[3])) == {"q0", "q3"}
    assert hardest_third(attempts, dev(n=4, wrong=[2])) == {"q0", "q2"}


@given(st.lists(st.integers(0, 8), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_hardest_third_is_a_third_rounded_up_whatever_the_order(rights: list[int], shuffle: Any) -> None:
    attempts = [attempt for number, right in enumerate(rights) for attempt in tries(number, right)]
    read = dev(n=len(rights))
    found = hardest_third(attempts, read)
    assert len(found) == math.ceil(len(rights) / 3)
    assert max(rights[int(qid[1:])] for qid in found) <= min((right for number, right in enumerate(rights) if f"q{number}" not in found), default=8)
    shuffle.shuffle(attempts)
    shuffle.shuffle(read)
    assert hardest_third(attempts, read) == found


def test_ties_are_not_broken_by_class() -> None:
    """All alike: the third holds both classes, though the ids alternate between them."""
    read = dev(n=60)
    found = hardest_third([attempt for number in range(60) for attempt in tries(number, 4)], read)
    assert {row.answer for row in read if row.qid in found} == {"yes", "no"}


def test_questions_without_a_sample_are_refused() -> None:
    with pytest.raises(DataError, match="1 dev questions have no sample"):
        hardest_third(tries(0, 3), dev(n=2))


def test_only_an_accepted_gain_beyond_chance_is_significant() -> None:
    rows: list[Round] = [
        replace(each, gain=gain, gain_p=p)
        for each in sample_rounds()
        for gain, p in islice(cycle([(0.05, 0.01), (0.05, 0.05), (-0.05, 0.01), (math.nan, math.nan)]), 4)
    ]
    assert {(each.verdict, each.gain, each.gain_p) for each in rows if significant(each)} == {("accepted", 0.05, 0.01)}
