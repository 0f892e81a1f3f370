from __future__ import annotations

import math

from tasks.contracts.profiles import load_profile
from tasks.contracts.readings import readings
from tasks.contracts.recipes import Grade
from tasks.contracts.rows import Arm
from tasks.logic.asking import arm_requests, exams, predictions
from tasks.logic.claims import pooled_table
from tasks.logic.evaluation import baseline_predictions, grade_predictions, pool_comparisons
from tests.contracts.test_profiles import PROFILES
from tests.logic.rows_of import BENCHMARK, completion, drafted, prediction, questions

DEMO = load_profile("demo", folder=PROFILES, overrides={"recipe.grade.bootstrap": 200}).recipe
GRADE: Grade = DEMO.grade


def answers(model: str, arm: str, *, right: int, n: int = 40):
    return [prediction(row, model=model, arm=arm, verdict=row.answer if index < right else "unparsed") for index, row in enumerate(questions(n, split="dev"))]


def test_headline_arms_are_compared_on_the_questions_both_were_read_on() -> None:
    rows = [*answers("track_a", "direct", right=10), *answers("track_b", "reasoning", right=40), *answers("aligned", "reasoning", right=20, n=20)]
    made = {each.name: each for each in grade_predictions(rows, recipe=GRADE, seed=0).comparisons}
    assert (made["track_b_vs_track_a"].difference, made["track_b_vs_track_a"].n, made["track_b_vs_track_a"].verdict) == (0.75, 40, "pass")
    assert (made["aligned_vs_track_b"].difference, made["aligned_vs_track_b"].n) == (0.0, 20)
    assert "track_b_vs_facts_only" not in made


def test_a_baseline_without_a_model_is_scored_like_one() -> None:
    asked = questions(10, split="dev")
    rows = baseline_predictions(asked, [row.answer for row in asked], model="entity_prior")
    (cell,) = grade_predictions(rows, recipe=GRADE, seed=0).scores
    assert (cell.model, cell.arm, cell.accuracy, cell.unparsed) == ("entity_prior", "direct", 1.0, 0)


def test_seeds_are_pooled() -> None:
    heads = {"track_a": "direct", "track_b": "reasoning"}
    runs = [(heads, "dev", [*answers("track_a", "direct", right=right), *answers("track_b", "reasoning", right=30)]) for right in (10, 20)]
    (pooled,) = pool_comparisons(runs, resamples=200, seed=0)
    assert [round(each.difference, 3) for each in pooled.runs] == [0.5, 0.25]
    assert (round(pooled.together.difference, 3), pooled.together.n) == (0.375, 40)  # both seeds read the same 40 questions
    assert "| track_b_vs_track_a | **all** | 40 | +37.5 |" in pooled_table([pooled])


def test_every_model_is_read_under_its_headline_arm_in_full() -> None:
    read = {
        (each.model, each.split): each.arms
        for each in readings(GRADE.model_copy(update={"aligned_questions": 7, "controls": ("entity_disjoint",)}), DEMO.ablate)
    }
    assert read["track_b", "dev"]["reasoning"] == read["track_a", "dev"]["direct"] == 0
    assert read["aligned", "dev"]["reasoning"] == 7
    assert read["track_b", "entity_disjoint"] == {"reasoning": 0}


def test_the_direct_arm_scores_choices_and_the_others_generate() -> None:
    rows = [drafted(row) for row in questions(2)]
    direct = arm_requests(rows, arm=Arm.DIRECT, benchmark=BENCHMARK)
    assert all(request.yes_choices and request.prefix == "Answer:" for request in direct)
    sampled = arm_requests(rows, arm=Arm.REWRITE, benchmark=BENCHMARK, samples=3)
    assert [request.sample for request in sampled] == [0, 1, 2, 0, 1, 2]
    assert not any(request.yes_choices for request in sampled)
    assert [exam.answer for exam in exams(rows, arm=Arm.REASONING, benchmark=BENCHMARK)] == [row.answer for row in rows]


def test_a_reply_without_a_verdict_says_why() -> None:
    rows = [drafted(row) for row in questions(3)]
    texts = [("Final answer: Yes", False), ("Final answer: Yes", True), ("Who knows", False)]
    made = predictions(rows, [completion(row, text, cut=cut) for row, (text, cut) in zip(rows, texts, strict=True)], model="m", benchmark=BENCHMARK)
    assert [(row.verdict, row.reason) for row in made] == [("yes", ""), ("unparsed", "stopped by the token limit"), ("unparsed", "no verdict in the text")]
    assert all(math.isnan(row.margin) for row in made)
