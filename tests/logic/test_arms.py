"""Arms made of other answers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.profiles import load_profile
from tasks.contracts.readings import Chains, readings
from tasks.contracts.recipes import Grade
from tasks.contracts.rows import Arm, Completion, Prediction, Question
from tasks.logic.arms import adaptive, adaptive_cost, calibrated, reading_costs, self_consistency, soft, soft_requests
from tasks.logic.asking import exams, settled
from tasks.logic.evaluation import grade_predictions
from tasks.logic.scores import is_right, score
from tests.contracts.test_profiles import PROFILES
from tests.logic.rows_of import BENCHMARK, drafted, prediction, questions

DEMO = load_profile("demo", folder=PROFILES, overrides={"recipe.grade.bootstrap": 50, "recipe.grade.controls": []}).recipe
GRADE: Grade = DEMO.grade
TEXTS = {"yes": "So it is.\nFinal answer: Yes", "no": "It is not.\nFinal answer: No", "unparsed": "Who knows"}
(ROW,) = [drafted(row) for row in questions(1)]


def chains(*verdicts: str) -> list[Completion]:
    """One chain of ROW a verdict, of 10, 11, ... tokens."""
    return [
        Completion(qid=ROW.qid, arm="reasoning", sample=number, text=f"{number}. {TEXTS[said]}", tokens=10 + number, cut=False, margin=math.nan)
        for number, said in enumerate(verdicts)
    ]


def voted(*verdicts: str) -> Prediction:
    (made,) = self_consistency([ROW], chains(*verdicts), model="m", benchmark=BENCHMARK)
    return made


def test_the_majority_of_the_chains_decides_and_the_text_is_the_first_that_says_so() -> None:
    made = voted("no", "yes", "yes", "unparsed", "yes")
    assert (made.verdict, made.arm, made.tokens, made.margin) == ("yes", "self_consistency", 60, pytest.approx(2 / 5))
    assert made.text == "1. " + TEXTS["yes"]
    assert made.reason == ""


def test_chains_without_a_verdict_have_no_vote_and_a_tie_goes_to_the_first_that_has_one() -> None:
    assert voted("unparsed", "unparsed", "no").verdict == "no"
    assert voted("unparsed", "no", "yes").verdict == "no"
    assert voted("unparsed", "yes", "no").verdict == "yes"
    silent = voted("unparsed", "unparsed")
    assert (silent.verdict, silent.margin, silent.reason) == ("unparsed", 0.0, "no verdict in any of 2 chains")
    assert score([silent]).unparsed == 1
    cut = replace(chains("yes")[0], cut=True)
    assert self_consistency([ROW], [cut, *chains("no")], model="m", benchmark=BENCHMARK)[0].verdict == "no"


@given(st.lists(st.sampled_from(["yes", "no", "unparsed"]), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_the_order_of_the_chains_matters_only_in_a_tie(verdicts, random):
    made = voted(*verdicts)
    turned = voted(*random.sample(verdicts, len(verdicts)))
    assert made.margin == turned.margin
    assert made.verdict == turned.verdict or made.margin == 0
    assert (made.verdict == "yes") >= (made.margin > 0)
    assert (made.verdict == "unparsed") == (set(verdicts) == {"unparsed"})


def test_what_follows_a_chain_is_asked_after_the_chain_without_its_verdict() -> None:
    drawn = [*chains("yes", "unparsed"), replace(chains("no")[0], text="Final answer: No\nQuestion: And why?")]
    asked = soft_requests([ROW], drawn, benchmark=BENCHMARK)
    assert [each.prefix for each in asked] == ["0. So it is.\nFinal answer:", "1. Who knows\nFinal answer:", "Final answer:"]
    assert {each.prompt for each in asked} == {BENCHMARK.prompt(Arm.REASONING, ROW)}
    assert all(each.yes_choices == BENCHMARK.yes_choices and each.no_choices == BENCHMARK.no_choices for each in asked)


def judged(margins: list[float]) -> list[Completion]:
    return [
        Completion(qid=ROW.qid, arm="soft", sample=number, text=f"{number}. Final answer: {'Yes' if margin > 0 else 'No'}", tokens=0, cut=False, margin=margin)
        for number, margin in enumerate(margins)
    ]


@given(st.lists(st.floats(-60, 60), min_size=1, max_size=8))
def test_soft_is_the_mean_of_the_probabilities_and_its_margin_their_log_odds(margins):
    (made,) = soft([ROW], chains(*["yes"] * len(margins)), judged(margins), model="m", benchmark=BENCHMARK)
    mean = sum(1 / (1 + math.exp(-each)) for each in margins) / len(margins)
    assert 1 / (1 + math.exp(-made.margin)) == pytest.approx(mean, abs=1e-12)
    assert math.isfinite(made.margin)
    assert made.verdict == ("yes" if made.margin > 0 else "no")
    assert made.tokens == sum(10 + number for number in range(len(margins)))


def test_one_sure_chain_outweighs_two_that_lean_the_other_way() -> None:
    (made,) = soft([ROW], chains("no", "no", "yes"), judged([-0.1, -0.1, 8.0]), model="m", benchmark=BENCHMARK)
    assert (made.verdict, made.text, made.arm) == ("yes", "2. Final answer: Yes", "soft")


def direct(row: Question, margin: float, *, split: str = "dev") -> Prediction:
    said = "yes" if margin > 0 else "no"
    return replace(prediction(row, model="m", arm="direct", verdict=said, split=split), margin=margin, tokens=0)


def reasoned(row: Question, right: bool, *, split: str = "dev") -> Prediction:
    other = "no" if row.answer == "yes" else "yes"
    return replace(prediction(row, model="m", arm="reasoning", verdict=row.answer if right else other, split=split), tokens=50)


ASKED = questions(60)
READ = st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=4, max_size=40)


def reading(values: list[tuple[float, bool]], *, first: int = 0, split: str = "dev") -> list[Prediction]:
    rows = ASKED[first : first + len(values)]
    fast = [direct(row, margin, split=split) for row, (margin, _) in zip(rows, values, strict=True)]
    return [*fast, *(reasoned(row, right, split=split) for row, (_, right) in zip(rows, values, strict=True))]


@settings(deadline=None)
@given(READ, st.booleans())
def test_an_adaptive_answer_is_the_direct_or_the_reasoned_one_and_pays_for_both_where_it_reasoned(values, calibrate):
    read = reading(values)
    made = adaptive(read, read, questions=0, calibrate=calibrate)
    assert [row.qid for row in made.predictions] == [row.qid for row in ASKED[: len(values)]]
    slow = {row.qid: row for row in read if row.arm == "reasoning"}
    for row in made.predictions:
        assert row.arm == "adaptive"
        assert row.tokens == (50 if math.isnan(row.margin) else 0)
        assert not math.isnan(row.margin) or row.verdict == slow[row.qid].verdict
    assert made.reasoned == sum(math.isnan(row.margin) for row in made.predictions) / len(values)
    cost = adaptive_cost(made, {"direct": {"ms_per_question": 2.0}, "reasoning": {"ms_per_question": 10.0}})
    assert cost["tokens_per_question"] == pytest.approx(50 * made.reasoned)
    assert cost["ms_per_question"] == pytest.approx(2 + 10 * made.reasoned)


@settings(deadline=None)
@given(READ, st.integers(0, 3))
def test_no_question_has_a_part_in_its_own_threshold(values, turned):
    """Another gold answer to one dev question leaves its own adaptive and calibrated verdict as they are."""
    read = reading(values)
    qid = ASKED[turned].qid
    other = {"yes": "no", "no": "yes"}
    changed = [replace(row, answer=other[row.answer]) if row.qid == qid else row for row in read]
    for calibrate in (True, False):
        verdicts = [
            next(row.verdict for row in adaptive(rows, rows, questions=0, calibrate=calibrate).predictions if row.qid == qid) for rows in (read, changed)
        ]
        assert verdicts[0] == verdicts[1]
    fast = [[row for row in rows if row.arm == "direct"] for rows in (read, changed)]
    assert len({next(row.verdict for row in calibrated(rows, rows)[0] if row.qid == qid) for rows in fast}) == 1


@settings(deadline=None)
@given(READ)
def test_on_another_split_one_threshold_chosen_on_all_of_dev_is_never_worse_there_than_zero(values):
    dev = [row for row in reading(values) if row.arm == "direct"]
    same_margins = [replace(row, qid=f"test-{row.qid}", split="test") for row in dev]
    moved, thresholds = calibrated(same_margins, dev)
    assert len(thresholds) == 1
    assert sum(map(is_right, moved)) >= sum(map(is_right, same_margins))
    assert all((row.margin > 0) == (row.verdict == "yes") for row in moved)


def test_a_clear_margin_is_trusted_and_a_near_one_reasons() -> None:
    near, clear = ([replace(row, answer=gold) for row in some] for gold, some in (("no", ASKED[:10]), ("yes", ASKED[10:20])))
    dev = [*(direct(row, 0.1) for row in near), *(direct(row, 4.0) for row in clear)]  # says yes always, reasoning no always
    dev += [prediction(row, model="m", arm="reasoning", verdict="no") for row in (*near, *clear)]
    test = reading([(0.2, True), (5.0, True)], first=40, split="test")
    made = adaptive(test, dev, questions=0, calibrate=False)
    assert made.distances == [pytest.approx(2.05)]
    assert [math.isnan(row.margin) for row in made.predictions] == [True, False]
    assert len(adaptive(test, dev, questions=1, calibrate=False).predictions) == 1


def test_costs_are_shared_by_the_arms_that_share_chains() -> None:
    made = [*(direct(row, 1.0) for row in ASKED[:10]), *(reasoned(row, True) for row in ASKED[:5])]
    made += [replace(prediction(row, model="m", arm=arm, verdict="yes"), tokens=300) for arm in ("self_consistency", "soft") for row in ASKED[:4]]
    seconds = {"greedy": {"direct": 0.1, "reasoning": 1.0}, "chains": {"reasoning": 2.0}, "after chains": {"soft": 0.4}}
    found = reading_costs(made, seconds=seconds)
    assert {arm: cost["ms_per_question"] for arm, cost in found.items()} == pytest.approx(
        {"direct": 10.0, "reasoning": 200.0, "self_consistency": 500.0, "soft": 600.0}
    )
    assert {arm: cost["tokens_per_question"] for arm, cost in found.items()} == {"direct": 0, "reasoning": 50, "self_consistency": 300, "soft": 300}


def test_texts_without_a_verdict_count_as_no_only_where_the_recipe_says_so_and_are_counted_either_way() -> None:
    mute = replace(prediction(replace(ROW, answer="no"), model="m", arm="reasoning", verdict="unparsed"), reason="no verdict in the text")
    (wrong,), (taken_for_no,) = settled([mute], unparsed="wrong"), settled([mute], unparsed="as_no")
    assert (wrong.verdict, taken_for_no.verdict, taken_for_no.reason) == ("unparsed", "no", "no verdict in the text")
    assert [(score([row]).accuracy, score([row]).unparsed) for row in (wrong, taken_for_no)] == [(0.0, 1), (1.0, 1)]


def test_grading_shows_plain_and_calibrated_figures_of_every_direct_arm_with_margins() -> None:
    biased = [direct(row, (1.0 if row.answer == "yes" else -1.0) - 3.0) for row in ASKED]
    prior = [replace(prediction(row, model="entity_prior", arm="direct", verdict="yes"), tokens=0) for row in ASKED]
    graded = grade_predictions([*biased, *prior], recipe=GRADE.model_copy(update={"calibrate": True, "split": "dev"}), seed=0)
    cells = {(cell.model, cell.arm): cell.accuracy for cell in graded.scores}
    assert cells["m", "calibrated"] == 1.0 > cells["m", "direct"]
    assert ("entity_prior", "calibrated") not in cells
    (found,) = graded.calibration.values()
    assert (found.thresholds, found.chosen_on) == ([-3.0, -3.0], 60)
    assert (found.plain.mcc, found.calibrated.mcc) == (0.0, pytest.approx(1.0))
    assert found.plain.ece > found.calibrated.ece
    assert grade_predictions(biased, recipe=GRADE.model_copy(update={"calibrate": False}), seed=0).calibration == {}


def asked_for(**changes: object) -> dict[tuple[str, str], dict[str, int]]:
    return {(each.model, each.split): each.arms for each in readings(GRADE.model_copy(update={"side_arms": (), "controls": (), **changes}), DEMO.ablate)}


def test_dev_is_read_for_thresholds_only_where_they_are_needed() -> None:
    heads = GRADE.headline.model_copy(update={"track_b": "adaptive"})
    assert not {place for place in asked_for(split="test") if place[1] == "dev"}
    plain = asked_for(split="test", calibrate=True)
    assert {place: arms for place, arms in plain.items() if place[1] == "dev"} == {
        (model, "dev"): {"direct": 0} for model in ("zero_shot", "track_a", "track_a_matched")
    }
    both = asked_for(split="test", headline=heads)
    assert both["track_b", "test"] == {"adaptive": 0, "direct": 0, "reasoning": 0}
    assert both["track_b", "dev"] == {"direct": 0, "reasoning": 0}
    side = asked_for(split="test", calibrate=True, side_arms=("adaptive",), arm_questions=30)
    assert side["track_b", "test"] == {"reasoning": 0, "adaptive": 30, "direct": 30}
    assert side["track_b", "dev"] == {"direct": 0, "reasoning": 30}
    assert next(iter(side))[1] == "dev"
    assert {place[1] for place in asked_for(split="dev", calibrate=True, headline=heads)} == {"dev"}


def test_chains_are_drawn_for_sampled_arms_alone_and_the_adaptive_arm_asks_the_student_nothing() -> None:
    found = {each.model: each for each in readings(GRADE.model_copy(update={"side_arms": ("soft", "adaptive"), "controls": (), "samples": 5}), DEMO.ablate)}
    assert found["track_b"].chains == Chains(5, GRADE.temperature)
    assert found["zero_shot"].chains is None
    assert found["track_b"].adaptive == GRADE.arm_questions
    assert set(found["track_b"].asked) == {"reasoning", "direct", "soft"}
    assert found["track_a"].adaptive is None


def test_an_arm_made_of_chains_is_examined_by_one_of_them() -> None:
    (exam,) = exams([ROW], arm=Arm.SELF_CONSISTENCY, benchmark=BENCHMARK)
    assert (exam.arm, exam.yes_choices) == ("reasoning", ())
