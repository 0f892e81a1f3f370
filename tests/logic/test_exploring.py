from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.recipes import Explore
from tasks.contracts.rows import Arm, Completion, Verdict
from tasks.logic.exploring import AFTER, ELSEWHERE, attempts, explored, explored_questions, extra_requests, hard_questions, reading_requests
from tests.logic.rows_of import BENCHMARK, completion, curated, drafted, questions

RECIPE = Explore(arm="reasoning", questions=0, samples=4, temperature=0.8, hard_below=0.5, extra_samples=3, follows=0.7)
ROWS = [drafted(row) for row in questions(9)]


def chain(qid: str, verdict: str, sample: int) -> str:
    return f"Reasoning: chain {sample} of {qid}.\nFinal answer: {verdict.capitalize()}"


def sampled(row, verdict: str, *, sample: int = 0, cut: bool = False) -> Completion:
    return completion(row, "I wonder" if verdict == "unparsed" else chain(row.qid, verdict, sample), sample=sample, cut=cut)


def other(verdict: str) -> str:
    return {"yes": "no", "no": "yes"}[verdict]


def read(row, arm: str, margin: float, *, sample: int = 0) -> Completion:
    return replace(completion(row, "", arm=arm, sample=sample), margin=margin)


def test_questions_held_out_of_sft_come_first_in_their_order() -> None:
    corpus = [curated(row, role="pair" if place in (3, 6) else "sft") for place, row in enumerate(questions(9)[:8])]
    order = [row.qid for row in explored_questions(ROWS, corpus, most=0)]
    assert order[:2] == [ROWS[3].qid, ROWS[6].qid]
    assert sorted(order) == sorted(row.qid for row in ROWS)
    assert [row.qid for row in explored_questions(ROWS, corpus, most=4)] == order[:4]


@pytest.mark.parametrize(("right", "hard"), [(0, True), (1, True), (2, False), (4, False)])
def test_a_question_is_hard_where_fewer_than_half_of_its_samples_are_right(right: int, hard: bool) -> None:
    row = ROWS[0]
    said = [sampled(row, row.answer if sample < right else "unparsed", sample=sample) for sample in range(4)]
    assert bool(hard_questions([row], said, below=0.5, benchmark=BENCHMARK)) is hard


def test_extra_samples_are_numbered_on_so_that_none_repeats_a_draw() -> None:
    extra = extra_requests(ROWS[:2], recipe=RECIPE, benchmark=BENCHMARK)
    assert [(each.qid, each.sample) for each in extra] == [(row.qid, sample) for row in ROWS[:2] for sample in (4, 5, 6)]
    assert {each.arm for each in extra} == {Arm.REASONING}


@given(st.lists(st.lists(st.sampled_from(["yes", "no", "unparsed"]), max_size=6), min_size=1, max_size=9), st.integers(0, 99))
def test_a_verdict_is_read_after_its_own_reasoning_and_never_elsewhere_after_its_own_questions(verdicts: list[list[str]], seed: int) -> None:
    rows = ROWS[: len(verdicts)]
    said = [sampled(row, verdict, sample=sample) for row, own in zip(rows, verdicts, strict=True) for sample, verdict in enumerate(own)]
    asked = reading_requests(rows, said, arm=Arm.REASONING, benchmark=BENCHMARK, seed=seed)
    assert asked == reading_requests(rows, said, arm=Arm.REASONING, benchmark=BENCHMARK, seed=seed)
    usable = {(each.qid, each.sample) for each in said if "chain" in each.text}
    after = [each for each in asked if each.arm == AFTER]
    assert {(each.qid, each.sample) for each in after} == usable
    assert all(each.prefix == f"Reasoning: chain {each.sample} of {each.qid}.\nFinal answer:" for each in after)
    elsewhere = [each for each in asked if each.arm == ELSEWHERE]
    verdict = {(row.qid, sample): said for row, own in zip(rows, verdicts, strict=True) for sample, said in enumerate(own)}
    opposed = {key for key in usable if any(qid != key[0] and verdict[qid, sample] == other(verdict[key]) for qid, sample in usable)}
    assert {(each.qid, each.sample) for each in elsewhere} == opposed
    for each in elsewhere:
        sample, qid = re.search(r"chain (\d+) of (.+)\.\n", each.prefix).groups()
        assert qid != each.qid
        assert verdict[qid, int(sample)] == other(verdict[each.qid, each.sample])
    assert all(each.prompt == BENCHMARK.prompt(Arm.REASONING, next(row for row in rows if row.qid == each.qid)) for each in asked)


def test_the_rewrite_prompt_shows_the_draft_when_its_chains_are_read() -> None:
    row = replace(ROWS[0], draft="Surely, it was so.")
    (asked,) = reading_requests([row], [sampled(row, "yes")], arm=Arm.REWRITE, benchmark=BENCHMARK, seed=0)
    assert "Surely, it was so." in asked.prompt


@pytest.mark.parametrize(
    ("after", "elsewhere", "fault"),
    [
        (3.0, -1.0, ""),
        (0.5, -1.0, "verdict does not follow from its reasoning"),
        (3.0, 3.0, "verdict stands against another question's reasoning"),
        (3.0, None, "no other verdict's reasoning to read"),
    ],
)
@pytest.mark.parametrize("verdict", ["yes", "no"])
def test_a_chain_counts_where_its_verdict_follows_from_it_and_not_from_another(verdict: str, after: float, elsewhere: float | None, fault: str) -> None:
    row, sign = ROWS[0], 1 if verdict == "yes" else -1
    readings = [read(row, AFTER, sign * after)] + ([] if elsewhere is None else [read(row, ELSEWHERE, sign * elsewhere)])
    (made,) = attempts([row], [sampled(row, verdict)], readings, follows=0.7, benchmark=BENCHMARK)
    assert made.valid is not bool(fault)
    assert made.after == pytest.approx(1 / (1 + math.exp(-after)))
    told = explored([made], hard=0, seconds=2.0, follows=0.7)
    assert told["turned_away"] == ({fault: 1} if fault else {})
    assert told["samples_per_second"] == 0.5
    assert told["right"] == (verdict == row.answer)


def test_samples_without_a_verdict_are_never_valid_and_say_why() -> None:
    row = ROWS[0]
    said = [sampled(row, "unparsed"), sampled(row, "yes", sample=1, cut=True), sampled(row, "yes", sample=2)]
    made = attempts([row], said, [], follows=0.0, benchmark=BENCHMARK)
    assert [(each.verdict, each.valid) for each in made] == [(Verdict.UNPARSED, False), (Verdict.UNPARSED, False), (Verdict.YES, True)]
    assert all(math.isnan(each.after) and math.isnan(each.elsewhere) for each in made)
    assert explored(made, hard=1, seconds=0.0, follows=0.0)["turned_away"] == {"no verdict": 1, "stopped by the token limit": 1}


def test_attempts_come_by_question_and_number_however_they_were_drawn() -> None:
    said = [sampled(row, "yes", sample=sample) for sample in (1, 0) for row in reversed(ROWS[:3])]
    made = attempts(ROWS[:3], said, [], follows=0.0, benchmark=BENCHMARK)
    assert [(each.qid, each.sample) for each in made] == [(row.qid, sample) for row in ROWS[:3] for sample in (0, 1)]
