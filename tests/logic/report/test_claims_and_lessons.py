"""Words follow verdicts: a failed or undecided experiment never reads as a success, and what stands in the way of a claim is said."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from tasks.contracts.profiles import load_profile
from tasks.contracts.recipes import Recipe
from tasks.logic.balance import FilterStep
from tasks.logic.report.claims import attribution_statement, cards, draft_statement, judge_statement
from tasks.logic.report.experiments import draft_summary
from tasks.logic.report.lessons import lessons, sayable
from tasks.logic.report.methods import methodology
from tasks.logic.report.summary import ModelScores
from tasks.logic.scores import Comparison, Finding, score
from tests.logic.report.sample_experiments import attribution, draft_record, full_summary, judge
from tests.logic.report.sample_run import EXPERIMENTS, PROFILES, predictions, sample_summary

VERDICTS = ["pass", "fail", "underpowered"]


def recipe(**changes: Any) -> Recipe:
    return load_profile("demo", folder=PROFILES, overrides=changes).recipe


def draft(verdict: str, *, confounded: bool = False) -> dict[str, Any]:
    record, scores = draft_record(verdict, confounded=confounded)
    made = draft_summary(record, scores, split="dev")
    assert made is not None
    return made


def comparison(
    name: str, verdict: str, *, difference: float = 0.02, claim: float = 0.0, p_holm: float = 0.4, detectable: float = 0.08, n: int = 200
) -> Comparison:
    return Comparison(
        name=name, n=n, right=0.6, difference=difference, ci_low=difference - 0.05, ci_high=difference + 0.05, p_value=p_holm, p_holm=p_holm,
        minimal_detectable=detectable, claim=claim, verdict=Finding(verdict),
    )  # fmt: skip


def text_of(summary: dict[str, Any], **changes: Any) -> str:
    return " ".join(lessons(summary, recipe(**changes)))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_only_a_pass_says_that_something_was_gained(verdict: str) -> None:
    claims = {"The student gains by asking": draft_statement(draft(verdict)).claim}
    claims |= {"The answer rests on the draft, and more than before preference training": attribution_statement(attribution(verdict)).claim}
    claims |= {"Preference training made the questions better": judge_statement(judge(verdict)).claim}
    for success, said in claims.items():
        assert (said == success) is (verdict == "pass")
        assert (" not " in said) is (verdict == "fail")
        assert ("ndecided" in said) is (verdict == "underpowered")


def test_a_confounded_gain_and_an_unusable_judge_are_no_success() -> None:
    assert "not yet learning by asking" in draft_statement(draft("pass", confounded=True)).claim
    assert draft_statement(draft("fail", confounded=True)).claim == "The student does not gain by asking"
    statement = judge_statement(judge("pass", usable=False))
    assert (statement.verdict, "contradicts itself" in statement.claim) == ("underpowered", True)
    said = text_of(full_summary(draft=draft("pass", confounded=True), judge=judge("pass", usable=False)))
    assert "The draft experiment is confounded" in said
    assert "ask another judge" in said


@pytest.mark.parametrize("verdict", VERDICTS)
def test_undecided_claims_may_not_be_told_either_way(verdict: str) -> None:
    compared = [comparison("track_b_vs_track_a", verdict), comparison("aligned_vs_track_b", verdict, claim=-0.03)]
    said = sayable(sample_summary(comparisons=compared, draft=draft(verdict), attribution=attribution(verdict), judge=judge(verdict)))
    assert len(said) == 5
    assert [one.may for one in said] == [verdict != "underpowered"] * 5
    assert all(("Neither a gain nor its absence may be claimed" in one.text) is (verdict == "underpowered") for one in said)


def test_a_card_stands_on_the_fairest_comparison_and_carries_its_figures() -> None:
    shown = {card.anchor: card for card in cards(full_summary())}
    deciding = next(each for each in full_summary()["draft"]["comparisons"] if each["name"] == "full_draft_vs_aligned_no_draft")
    assert shown["draft"].figure == f"{100 * deciding['difference']:+.1f} points"
    assert (shown["draft"].verdict, shown["draft"].n) == ("pass", 240)
    assert shown["judge"].figure == "+10.0 points net"
    assert "1.34 times" in shown["attribution"].interval
    assert [card.anchor for card in cards(sample_summary())] == ["comparisons", "comparisons"]
    assert cards(sample_summary(comparisons=[])) == []


@pytest.mark.parametrize(
    ("verdict", "difference", "p_holm", "told"),
    [
        ("pass", 0.06, 0.001, None),
        ("pass", 0.0, 1.0, "did not gain accuracy over Track B"),
        ("fail", -0.09, 0.001, "Preference training cost accuracy"),
        ("underpowered", 0.02, 0.6, "did not clearly gain"),
    ],
)
def test_whether_the_aligned_model_gained_is_said_plainly(verdict: str, difference: float, p_holm: float, told: str | None) -> None:
    said = text_of(sample_summary(comparisons=[comparison("aligned_vs_track_b", verdict, difference=difference, p_holm=p_holm, claim=-0.03)]))
    assert (told is None or told in said) is True
    assert ("gain" in said) is (told is not None and "gain" in told)


def test_a_model_that_changed_nothing_or_says_one_thing_only_is_no_success() -> None:
    same = replace(comparison("aligned_vs_track_b", "pass", difference=0.0, p_holm=1.0, claim=-0.03), ci_low=0.0, ci_high=0.0)
    made = sample_summary(comparisons=[same])
    assert [card.sentence for card in cards(made)] == ["The aligned model and Track B are right on the same questions."]
    assert "changed nothing that was measured" in text_of(made)
    rows = predictions("track_b", "reasoning", 0.5, yes_only=True)
    stuck = sample_summary(models={"track_b": ModelScores(headline="reasoning", scores=(score(rows),))}, controls={}, comparisons=[])
    assert "Hardly telling yes from no: Track B (100.0 % yes)." in text_of(stuck)
    assert "Hardly telling" not in text_of(sample_summary())


def test_a_biased_teacher_is_named_with_its_bias_and_a_fair_one_is_not() -> None:
    def steps(yes: int, no: int) -> list[FilterStep]:
        return [FilterStep(step="asked", yes=100, no=100), FilterStep(step="teacher agrees with gold", yes=yes, no=no), FilterStep(step="kept", yes=90, no=90)]

    to_no, to_yes, fair = (text_of(sample_summary(filters=steps(*counts))) for counts in ((70, 95), (95, 70), (90, 91)))
    assert "biased towards no: it agrees with gold on 70.0 % of the yes questions and 95.0 % of the no questions" in to_no
    assert "from 50.0 % to 42.4 %; after all of curation it is 50.0 %" in to_no
    assert "biased towards yes" in to_yes
    assert "biased" not in fair


def test_what_is_undecided_says_how_many_questions_would_decide_it() -> None:
    said = text_of(sample_summary(comparisons=[comparison("track_b_vs_track_a", "underpowered", difference=0.02, detectable=0.08)]))
    assert "200 questions show differences from 8.0 points up; to decide one of the size seen (2.0) would take about 3,200." in said
    none = text_of(sample_summary(comparisons=[comparison("track_b_vs_track_a", "underpowered", difference=0.0)]))
    assert "the difference seen is none" in none
    decided = text_of(sample_summary(comparisons=[comparison("track_b_vs_track_a", "pass", difference=0.2, p_holm=0.001)]))
    assert "undecided" not in decided


def test_the_draft_family_and_attribution_are_read_with_suspicion() -> None:
    copied = draft("fail")
    for each in copied["comparisons"]:
        if each["name"] in ("draft_questions_vs_draft_verdict", "full_draft_vs_shuffled_draft"):
            each["verdict"] = "fail"
    said = text_of(full_summary(draft=copied, attribution=attribution("fail", enrichment=0.97, own="underpowered")))
    assert "what the model takes from a draft may be its answer" in said
    assert "may hardly read what stands in it" in said
    assert "no more than chance gives" in said
    assert "not yet use of what it says" in said
    trusting = text_of(full_summary())
    assert not any(doubt in trusting for doubt in ("may be its answer", "hardly read", "chance gives", "not yet use"))


def test_methods_carry_the_numbers_of_the_recipe_and_only_the_experiments_that_were_done() -> None:
    plain = {each.heading: each.text for each in methodology(sample_summary(), recipe(), aligned=True)}
    assert list(plain) == ["Questions", "Teacher and curation", "Fine-tuning", "Preference training", "Evaluation"]
    assert "rank 16, alpha 32" in plain["Fine-tuning"]
    assert (
        "2 epochs at beta 0.1, calibrated (batch_mean); 1 epoch at beta 0.1, calibrated (batch_mean), without the 15% most suspicious"
        in plain["Preference training"]
    )
    assert "shown the gold answer and asked to explain it" in plain["Teacher and curation"]
    dropping = methodology(sample_summary(), recipe(**{"recipe.curate.disagreement": "drop", "recipe.sft.epochs": 1}), aligned=False)
    assert "replies that disagree with gold were dropped" in dropping[1].text
    assert "1 epoch, learning rate" in dropping[2].text
    assert "the aligned model is Track B itself" in dropping[3].text
    whole = {each.heading: each.text for each in methodology(full_summary(), recipe(**EXPERIMENTS), aligned=True)}
    assert list(whole)[5:] == ["Draft experiment", "Attribution", "Judge"]
    assert "so a twin was aligned on the same pairs without drafts" in whole["Draft experiment"]
    alone = methodology(full_summary(), recipe(**{**EXPERIMENTS, "recipe.ablate.matched": False}), aligned=True)[5].text
    assert "No twin was trained without drafts" in alone
    followed = {each.heading: each.text for each in methodology({**sample_summary(), "accepted": "round 2"}, recipe(), aligned=True)}
    assert "the loop's accepted student, round 2" in followed["Self-guided loop"]


def test_the_draft_family_takes_the_shuffles_as_one_and_leaves_the_result_table_alone() -> None:
    record, scores = draft_record()
    made = draft_summary(record, scores, split="dev")
    assert made is not None
    assert list(made["arms"]) == ["rewrite", "no_draft", "shuffled_draft", "neutral_draft", "draft_questions", "draft_verdict", "aligned_no_draft"]
    shuffles = [cell for cell in scores if cell.arm.startswith("shuffled_draft")]
    mean = sum(cell.accuracy for cell in shuffles) / 2
    cell = made["arms"]["shuffled_draft"]
    assert cell["accuracy"] == pytest.approx(mean)
    assert (cell["n"], cell["ci_low"] <= mean <= cell["ci_high"]) == (240, True)
    assert made["arms"]["aligned_no_draft"]["accuracy"] == next(asdict(each)["accuracy"] for each in scores if each.model == "aligned_no_draft")
    assert draft_summary(record, scores, split="test")["arms"] == {}  # type: ignore[index]
    assert draft_summary(None, scores, split="dev") is None
