from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.recipes import Track
from tasks.contracts.rows import Arm
from tasks.logic.asking import arm_requests
from tasks.logic.balance import rebalance
from tasks.logic.examples import sft_examples, shuffled_rationales, training_length
from tests.logic.rows_of import BENCHMARK, curated, questions


def examples(track: Track, n: int = 12, *, direct_weight: float = 0.0) -> list:
    rows = [curated(row, role="pair" if index % 4 == 0 else "sft") for index, row in enumerate(questions(n))]
    return sft_examples(rows, track=track, benchmark=BENCHMARK, direct_weight=direct_weight, seed=0)


def test_both_tracks_see_the_same_questions_and_gold_labels() -> None:
    seen = [{(row.qid, row.answer) for row in examples(track)} for track in (Track.TRACK_A, Track.TRACK_A_MATCHED, Track.TRACK_B, Track.SHUFFLED_RATIONALE)]
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert len(seen[0]) == 9  # the questions held out for pairs are in none of them


def test_the_reasoning_is_completion_and_the_prompt_is_the_one_of_evaluation() -> None:
    rows = [curated(row) for row in questions(5)]
    asked = {request.qid: request.prompt for request in arm_requests(rows, arm=Arm.REASONING, benchmark=BENCHMARK)}
    for example in sft_examples(rows, track=Track.TRACK_B, benchmark=BENCHMARK, direct_weight=0.0, seed=0):
        assert example.prompt == asked[example.qid]
        assert example.completion.endswith("Final answer: Yes" if example.answer == "yes" else "Final answer: No")


def test_the_direct_task_stands_beside_the_reasoning_where_it_has_weight() -> None:
    rows = examples(Track.TRACK_B, direct_weight=0.5)
    assert {(row.arm, row.weight) for row in rows} == {("reasoning", 1.0), ("direct", 0.5)}


def test_the_facts_control_adds_each_fact_once_as_plain_text() -> None:
    rows = examples(Track.FACTS_ONLY)
    facts = [row for row in rows if row.arm == Arm.FACTS]
    assert len({row.completion for row in facts}) == len(facts) > 0
    assert {row.prompt for row in facts} == {""}
    assert [row for row in rows if row.arm != Arm.FACTS] == examples(Track.TRACK_A)


@given(st.integers(2, 40), st.integers(0, 3))
def test_nobody_keeps_the_own_rationale(n: int, seed: int) -> None:
    rows = [curated(row) for row in questions(n)]
    shuffled = shuffled_rationales(rows, seed=seed)
    assert [row.answer for row in shuffled] == [row.answer for row in rows]
    assert all(new.answered != old.answered for new, old in zip(shuffled, rows, strict=True))
    assert sorted(row.reasoning for row in shuffled) == sorted(row.reasoning for row in rows)


@pytest.mark.parametrize("direct_weight", [0.0, 0.5])
def test_a_question_that_nobody_asked_about_is_a_direct_example_in_every_track(direct_weight: float) -> None:
    asked, bare = questions(6)[:4], questions(6)[4:]
    rows = [curated(row) for row in asked] + [curated(row, provenance="unasked", reasoning="", asked=(), answered=()) for row in bare]
    for track in Track:
        made = sft_examples(rows, track=track, benchmark=BENCHMARK, direct_weight=direct_weight, seed=0)
        assert [(row.arm, row.weight) for row in made if row.qid in {each.qid for each in bare}] == [("direct", 1.0)] * 2
        assert {row.qid for row in made if row.qid} == {row.qid for row in rows}


def test_a_repeated_question_has_its_examples_again_direct_ones_too() -> None:
    first, second = questions(2)
    rows = [curated(first), curated(first, sample=1, reasoning="Another way."), curated(second)]
    repeated = [*rows, *rows[:2]]
    counts = {
        track: Counter(row.qid for row in sft_examples(repeated, track=track, benchmark=BENCHMARK, direct_weight=0.5, seed=0) if row.qid) for track in Track
    }
    assert counts[Track.TRACK_A] == counts[Track.TRACK_A_MATCHED] == counts[Track.FACTS_ONLY] == {first.qid: 2, second.qid: 1}
    assert counts[Track.TRACK_B] == {first.qid: 4 + 2, second.qid: 1 + 1}
    assert counts[Track.SHUFFLED_RATIONALE] == {first.qid: 4, second.qid: 1}


@pytest.mark.parametrize(("how", "reasoning"), [("class_weight", {("yes", 2.0, 1.0)}), ("verdict_weight", {("yes", 1.0, 2.0)})])
def test_rebalanced_weights_reach_the_examples_of_both_tracks(how: Any, reasoning: set[tuple[str, float, float]]) -> None:
    pool = [curated(row) for row in questions(16)]
    rows = [row for row in pool if row.answer == "yes"][:2] + [row for row in pool if row.answer == "no"][:6]
    made = rebalance(rows, how=how, target_yes_share=0.5, seed=0)
    direct, reasoned = (sft_examples(made, track=track, benchmark=BENCHMARK, direct_weight=0.0, seed=0) for track in (Track.TRACK_A, Track.TRACK_B))
    assert {(row.answer, row.weight, row.verdict_factor) for row in direct if row.answer == "yes"} == {("yes", 2.0, 1.0)}
    assert {(row.answer, row.weight, row.verdict_factor) for row in reasoned if row.answer == "yes"} == reasoning


def test_matched_tracks_train_as_long_as_what_they_are_matched_to() -> None:
    summary = {"steps": 57, "tokens": 9000}
    assert training_length(Track.TRACK_A_MATCHED, summary) == (57, None)
    assert training_length(Track.FACTS_ONLY, summary) == (None, 9000)
    assert training_length(Track.TRACK_B, {}) == (None, None)
