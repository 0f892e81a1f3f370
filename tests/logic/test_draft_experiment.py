"""What the family of claims on the draft says, by planted answers: right or wrong by question under each arm."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, replace

import pytest

from tasks.contracts.readings import TWIN
from tasks.contracts.rows import Prediction
from tasks.logic.claims import pooled_table
from tasks.logic.draft_experiment import DRAFT_CLAIMS, FEWEST, DraftExperiment, draft_experiment, pool_drafts
from tests.logic.rows_of import prediction, questions

(ONE,) = questions(1, split="dev")
SHUFFLES = [f"shuffled_draft_{number}" for number in range(1, 6)]
ASKS = {"rewrite": 0.9, "no_draft": 0.6, **dict.fromkeys(SHUFFLES, 0.5), "neutral_draft": 0.6, "draft_questions": 0.85, "draft_verdict": 0.55, TWIN: 0.65}
COPIES = {**ASKS, "draft_questions": 0.6, "draft_verdict": 0.9}
IGNORES = dict.fromkeys(ASKS, 0.7)


def read(right: Mapping[str, float], *, n: int = 200, first: int = 0, seed: int = 0) -> list[Prediction]:
    """Answers of the aligned model and its twin, right with these probabilities; each question is as hard for every arm."""
    made = []
    for number in range(first, first + n):
        ease = random.Random(f"{seed}|{number}")
        row = replace(ONE, qid=f"q{number}", answer="yes" if number % 2 else "no")
        luck = ease.random()
        for arm, share in right.items():
            own = luck if ease.random() < 0.7 else ease.random()
            verdict = row.answer if own < share else ("no" if row.answer == "yes" else "yes")
            made.append(prediction(row, model=TWIN if arm == TWIN else "aligned", arm="no_draft" if arm == TWIN else arm, verdict=verdict))
    return made


def found(right: Mapping[str, float], *, rewrite_pairs: int | None = 30, **how: int) -> DraftExperiment:
    made = draft_experiment(read(right, **how), split="dev", resamples=1000, seed=0, unmatched={}, rewrite_pairs=rewrite_pairs)
    assert made is not None
    return made


def without(right: Mapping[str, float], *names: str) -> dict[str, float]:
    return {arm: share for arm, share in right.items() if arm not in names}


def test_a_model_that_asks_passes_and_every_claim_is_compared() -> None:
    made = found(ASKS)
    family = {each.name: each for each in made.comparisons}
    assert list(family) == [claim.name for claim in DRAFT_CLAIMS]
    assert list(family) == [
        "full_draft_vs_no_draft", "full_draft_vs_shuffled_draft", "full_draft_vs_neutral_draft", "no_draft_vs_shuffled_draft",
        "draft_questions_vs_draft_verdict", "full_draft_vs_aligned_no_draft",
    ]  # fmt: skip
    assert family["full_draft_vs_aligned_no_draft"].claim == 0.03
    assert (made.verdict, made.confounded, made.notes) == ("pass", False, ())
    assert all(each.p_holm >= each.p_value for each in made.comparisons)
    assert any(each.p_holm > each.p_value for each in made.comparisons)
    assert 0.25 < family["full_draft_vs_shuffled_draft"].difference < 0.55
    assert asdict(made)["comparisons"][0]["verdict"] == "pass"


def test_a_model_that_copies_the_verdict_fails_though_its_drafts_help() -> None:
    made = found(COPIES)
    family = {each.name: each.verdict for each in made.comparisons}
    assert (family["full_draft_vs_aligned_no_draft"], family["draft_questions_vs_draft_verdict"], made.verdict) == ("pass", "fail", "fail")


def test_a_model_that_ignores_its_draft_passes_nothing() -> None:
    made = found(IGNORES)
    assert "pass" not in {each.verdict for each in made.comparisons}
    assert made.verdict != "pass"


@pytest.mark.parametrize("right", [ASKS, COPIES, IGNORES, {**ASKS, "no_draft": 0.0, TWIN: 0.0, "rewrite": 1.0, "draft_questions": 1.0, "draft_verdict": 0.0}])
def test_twenty_questions_say_underpowered_whatever_they_show(right: Mapping[str, float]) -> None:
    made = found(right, n=20)
    assert {each.verdict for each in made.comparisons} == {"underpowered"}
    assert made.verdict == "underpowered"
    assert str(FEWEST) in made.notes[-1]
    assert min(each.minimal_detectable for each in made.comparisons) > 0.3


def test_without_a_twin_the_reading_without_a_draft_stands_in_and_is_confounded() -> None:
    made = found(without(ASKS, TWIN), rewrite_pairs=None)
    assert (made.verdict, made.confounded) == ("pass", True)
    assert "recipe.ablate.matched" in made.notes[0]
    assert found({**without(ASKS, TWIN), "no_draft": 0.99, "rewrite": 0.7}, rewrite_pairs=None).verdict == "fail"


def test_a_twin_that_could_learn_nothing_else_says_so() -> None:
    made = found(ASKS, rewrite_pairs=0)
    assert made.confounded
    assert "No preference pair showed the aligned model a draft" in made.notes[0]


@pytest.mark.parametrize("missing", [("draft_questions",), (TWIN,)])
def test_half_of_the_evidence_is_not_enough_to_pass(missing: tuple[str, ...]) -> None:
    assert found(without(ASKS, *missing)).verdict == "underpowered"
    assert found(without(COPIES, TWIN)).verdict == "fail"


def test_drafts_without_questions_are_told_where_they_are_most() -> None:
    def notes(count: int) -> tuple[str, ...]:
        unmatched = {"draft_questions": {"draft without a question": count}, "shuffled_draft_1": {"same text": 150}}
        made = draft_experiment(read(ASKS), split="dev", resamples=100, seed=0, unmatched=unmatched, rewrite_pairs=30)
        assert made is not None
        assert made.unmatched == unmatched
        return made.notes

    assert notes(90) == ()
    assert "150 drafts had nothing that draft_questions could show" in notes(150)[0]


def test_nothing_is_said_where_no_draft_was_changed() -> None:
    rows = [*read({"rewrite": 0.9}), *read({TWIN: 0.9})[:0]]
    assert draft_experiment(rows, split="dev", resamples=100, seed=0, unmatched={}, rewrite_pairs=None) is None
    assert draft_experiment(read(ASKS), split="test", resamples=100, seed=0, unmatched={}, rewrite_pairs=None) is None


def test_folds_are_pooled_each_question_once() -> None:
    weak = {**ASKS, TWIN: 0.83}
    folds = [("dev", read(weak, first=200 * number)) for number in range(5)]
    assert found(weak).verdict == "underpowered"
    pooled, made = pool_drafts(folds, resamples=1000, seed=0)
    assert made is not None
    last = pooled[-1]
    assert (last.together.name, last.together.n, len(last.runs), made.verdict) == ("full_draft_vs_aligned_no_draft", 1000, 5, "pass")
    assert last.together.difference == pytest.approx(sum(each.difference for each in last.runs) / 5)
    assert "| full_draft_vs_shuffled_draft | **all** | 1000 |" in pooled_table(pooled)


def test_a_claim_that_one_run_lacks_is_not_pooled() -> None:
    pooled, made = pool_drafts([("dev", read(ASKS)), ("dev", read(without(ASKS, TWIN, "neutral_draft"), seed=1))], resamples=100, seed=0)
    assert made is not None
    assert made.confounded
    assert {each.together.name for each in pooled} == {claim.name for claim in DRAFT_CLAIMS} - {"full_draft_vs_neutral_draft", "full_draft_vs_aligned_no_draft"}
    assert pool_drafts([("dev", read(ASKS)), ("dev", [])], resamples=100, seed=0) == ([], None)
