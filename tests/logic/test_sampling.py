"""Strata, disjointness, and the texts that count as one question."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Question
from tasks.logic.sampling import check_disjoint, normalised, stratified


def question(number: int, *, kind: str = "", answer: str = "yes") -> Question:
    return Question(
        qid=f"q{number}",
        split="train",
        kind=kind,
        term="",
        description="",
        question=f"Is number {number} odd?",
        answer=answer,
        facts=(),
        decomposition=(),
        entities=(),
    )


pools = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["yes", "no"])), min_size=1, max_size=60).map(
    lambda strata: [question(number, kind=kind, answer=answer) for number, (kind, answer) in enumerate(strata)]
)


@given(pools, st.data())
def test_a_draw_holds_each_stratum_in_proportion(pool: list[Question], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(pool)))
    sizes = Counter((row.kind, row.answer) for row in pool)
    drawn = Counter((row.kind, row.answer) for row in stratified(pool, n=n, seed=1))
    assert drawn.total() == n
    for stratum, size in sizes.items():
        assert abs(drawn[stratum] - n * size / len(pool)) < 2


@given(pools, st.integers(0, 5), st.data())
def test_a_smaller_draw_begins_a_larger_one_and_file_order_does_not_matter(pool: list[Question], seed: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(pool)))
    drawn = stratified(pool, n=n, seed=seed)
    assert drawn == stratified(pool, n=len(pool), seed=seed)[:n]
    assert drawn == stratified(pool[::-1], n=n, seed=seed)
    assert len({row.qid for row in drawn}) == n


def test_zero_is_all_in_file_order_and_the_seed_matters() -> None:
    pool = [question(number) for number in range(40)]
    assert stratified(pool, n=0, seed=3) == pool
    assert stratified(pool, n=20, seed=1) != stratified(pool, n=20, seed=2)


def test_too_many_names_the_maximum() -> None:
    with pytest.raises(DataError, match=re.escape("set recipe.sample.train to at most 3")):
        stratified([question(number) for number in range(3)], n=4, seed=0)


@pytest.mark.parametrize("twin", ["Is  number 1 odd", "is number 1 ODD??", "Ｉs number 1 odd?"])
def test_one_question_in_two_splits_is_refused_by_text(twin: str) -> None:
    assert normalised(twin) == normalised("Is number 1 odd?")
    with pytest.raises(DataError, match="question other of dev is question q1 of train"):
        check_disjoint({"train": [question(1)], "dev": [replace(question(2), qid="other", question=twin)]})


def test_one_id_in_two_splits_is_refused_and_disjoint_splits_pass() -> None:
    check_disjoint({"train": [question(1)], "test": [question(2)]})
    with pytest.raises(DataError, match="same id"):
        check_disjoint({"train": [question(1)], "test": [replace(question(1), question="Another text?")]})
