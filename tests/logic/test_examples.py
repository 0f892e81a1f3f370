from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.recipes import Track
from tasks.contracts.rows import Arm
from tasks.logic.asking import arm_requests
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


def test_matched_tracks_train_as_long_as_what_they_are_matched_to() -> None:
    summary = {"steps": 57, "tokens": 9000}
    assert training_length(Track.TRACK_A_MATCHED, summary) == (57, None)
    assert training_length(Track.FACTS_ONLY, summary) == (None, 9000)
    assert training_length(Track.TRACK_B, {}) == (None, None)
