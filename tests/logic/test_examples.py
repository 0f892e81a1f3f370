from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.readings import Track
from tasks.contracts.rows import Arm, Question, Taught
from tasks.logic.answers import parse_verdict
from tasks.logic.asking import arm_requests
from tasks.logic.balance import rebalance
from tasks.logic.examples import counterfactual_examples, sft_examples, shuffled_rationales, training_length
from tests.logic.rows_of import BENCHMARK, curated, questions, taught


def examples(track: Track, n: int = 12, *, direct_weight: float = 0.0) -> list:
    rows = [curated(row, role="pair" if index % 4 == 0 else "sft") for index, row in enumerate(questions(n))]
    return sft_examples(rows, track=track, benchmark=BENCHMARK, reasoning="completion", direct_weight=direct_weight, seed=0)


def test_both_tracks_see_the_same_questions_and_gold_labels() -> None:
    seen = [{(row.qid, row.answer) for row in examples(track)} for track in (Track.TRACK_A, Track.TRACK_A_MATCHED, Track.TRACK_B, Track.SHUFFLED_RATIONALE)]
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert len(seen[0]) == 9  # the questions held out for pairs are in none of them


def test_the_reasoning_is_completion_and_the_prompt_is_the_one_of_evaluation() -> None:
    rows = [curated(row) for row in questions(5)]
    asked = {request.qid: request.prompt for request in arm_requests(rows, arm=Arm.REASONING, benchmark=BENCHMARK)}
    for example in sft_examples(rows, track=Track.TRACK_B, benchmark=BENCHMARK, reasoning="completion", direct_weight=0.0, seed=0):
        assert example.prompt == asked[example.qid]
        assert example.completion.endswith("Final answer: Yes" if example.answer == "yes" else "Final answer: No")


def test_the_direct_task_stands_beside_the_reasoning_where_it_has_weight() -> None:
    rows = examples(Track.TRACK_B, direct_weight=0.5)
    assert {(row.arm, row.weight) for row in rows} == {("reasoning", 1.0), ("direct", 0.5)}


def test_the_original_projects_track_b_has_the_verdict_in_its_prompt_and_a_bare_answer_as_completion() -> None:
    rows = [curated(row, weight=0.5) for row in questions(6)]
    given, direct = (
        sft_examples(rows, track=track, benchmark=BENCHMARK, reasoning="prompt", direct_weight=0.0, seed=0) for track in (Track.TRACK_B, Track.TRACK_A)
    )
    assert [row.completion for row in given] == [row.completion for row in direct]
    assert {row.weight for row in given} == {0.5}
    for row, source in zip(given, rows, strict=True):
        assert source.question in row.prompt
        assert source.answered[0] in row.prompt
        assert parse_verdict(row.prompt) == source.answer
    shuffled = sft_examples(rows, track=Track.SHUFFLED_RATIONALE, benchmark=BENCHMARK, reasoning="prompt", direct_weight=0.0, seed=0)
    assert [parse_verdict(row.prompt) for row in shuffled] == [row.answer for row in rows]


def other(answer: str) -> str:
    return "no" if answer == "yes" else "yes"


def argued(row: Question, reasoning: str, **changes: Any) -> Taught:
    """A reply that comes to the wrong verdict."""
    return taught(row, verdict=other(row.answer), reasoning=reasoning, **changes)


def test_what_argues_for_the_other_verdict_is_read_and_only_its_verdict_is_learned() -> None:
    first, second, held, right = questions(4)
    rows = [curated(first), curated(first), curated(second), curated(held, role="pair"), curated(right)]
    replies = [
        argued(first, "One way."), argued(first, "One way."), argued(first, "Another way."), argued(first, "A third way."),
        argued(second, "It was told.", hinted=True), argued(second, ""), taught(second, verdict="unparsed"), argued(second, "Its own way."),
        argued(held, "Kept for pairs."), taught(right),
    ]  # fmt: skip
    made = counterfactual_examples(rows, replies, benchmark=BENCHMARK, weight=0.5)
    assert [(row.qid, row.answer) for row in made] == [(each.qid, other(each.answer)) for each in (first, first, second)]  # as many as curated rows
    for row, said in zip(made, ("One way.", "Another way.", "Its own way."), strict=True):
        assert said in row.completion
        assert row.completion.endswith(BENCHMARK.direct_completion(row.answer).removeprefix(BENCHMARK.direct_prefix))
        assert (row.weight, row.reasoning_factor, row.arm) == (0.5, 0.0, Arm.COUNTERFACTUAL)
    factual = sft_examples(rows, track=Track.TRACK_B, benchmark=BENCHMARK, reasoning="completion", direct_weight=0.0, seed=0)
    assert not {row.prompt for row in made} & {row.prompt for row in factual}
    assert {row.reasoning_factor for row in factual} == {1.0}


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


@pytest.mark.parametrize(("direct_weight", "in_track_b"), [(0.0, 1.0), (0.5, 0.5), (5.0, 5.0)])
def test_a_question_that_nobody_asked_about_is_a_direct_example_in_every_track(direct_weight: float, in_track_b: float) -> None:
    asked, bare = questions(6)[:4], questions(6)[4:]
    rows = [curated(row) for row in asked] + [curated(row, provenance="unasked", reasoning="", asked=(), answered=()) for row in bare]
    for track in Track:
        made = sft_examples(rows, track=track, benchmark=BENCHMARK, reasoning="completion", direct_weight=direct_weight, seed=0)
        assert [(row.arm, row.weight) for row in made if row.qid in {each.qid for each in bare}] == [
            ("direct", in_track_b if track is Track.TRACK_B else 1.0)
        ] * 2
        assert {row.qid for row in made if row.qid} == {row.qid for row in rows}


def test_a_repeated_question_has_its_examples_again_direct_ones_too() -> None:
    first, second = questions(2)
    rows = [curated(first), curated(first, sample=1, reasoning="Another way."), curated(second)]
    repeated = [*rows, *rows[:2]]
    counts = {
        track: Counter(
            row.qid for row in sft_examples(repeated, track=track, benchmark=BENCHMARK, reasoning="completion", direct_weight=0.5, seed=0) if row.qid
        )
        for track in Track
    }
    assert counts[Track.TRACK_A] == counts[Track.TRACK_A_MATCHED] == counts[Track.FACTS_ONLY] == {first.qid: 2, second.qid: 1}
    assert counts[Track.TRACK_B] == {first.qid: 4 + 2, second.qid: 1 + 1}
    assert counts[Track.SHUFFLED_RATIONALE] == {first.qid: 4, second.qid: 1}


@pytest.mark.parametrize(("how", "reasoning"), [("class_weight", {("yes", 2.0, 1.0)}), ("verdict_weight", {("yes", 1.0, 2.0)})])
def test_rebalanced_weights_reach_the_examples_of_both_tracks(how: Any, reasoning: set[tuple[str, float, float]]) -> None:
    pool = [curated(row) for row in questions(16)]
    rows = [row for row in pool if row.answer == "yes"][:2] + [row for row in pool if row.answer == "no"][:6]
    made = rebalance(rows, how=how, target_yes_share=0.5, seed=0)
    direct, reasoned = (
        sft_examples(made, track=track, benchmark=BENCHMARK, reasoning="completion", direct_weight=0.0, seed=0) for track in (Track.TRACK_A, Track.TRACK_B)
    )
    assert {(row.answer, row.weight, row.verdict_factor) for row in direct if row.answer == "yes"} == {("yes", 2.0, 1.0)}
    assert {(row.answer, row.weight, row.verdict_factor) for row in reasoned if row.answer == "yes"} == reasoning


def test_matched_tracks_train_as_long_as_what_they_are_matched_to() -> None:
    summary = {"steps": 57, "tokens": 9000}
    assert training_length(Track.TRACK_A_MATCHED, summary) == (57, None)
    assert training_length(Track.FACTS_ONLY, summary) == (None, 9000)
    assert training_length(Track.TRACK_B, {}) == (None, None)
