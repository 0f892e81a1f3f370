"""Rows end to end: what is laid where, how windows are cut, and that filling changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.training.completions import packed_log_probs
from tasks.training.engine import sizes_for
from tasks.training.packing import Bundle, fill, pack, split
from tasks.training.student import load_student
from tests.training.jobs import weights


def test_a_prompt_is_laid_once_and_its_last_token_predicts_the_first_of_every_completion():
    packed = pack([Bundle(prompt=(1, 2, 3), completions=((4, 5, 6), (7, 8)), key=9)])
    assert packed.ids.tolist() == [1, 2, 3, 4, 5, 7]  # last tokens predict nothing, so they are not computed
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 3]
    assert packed.source.tolist() == [2, 3, 4, 2, 5]
    assert packed.target.tolist() == [4, 5, 6, 7, 8]
    assert packed.lengths.tolist() == [3, 2]
    assert packed.ends_q.tolist() == [0, 5, 6]
    assert packed.ends_k.tolist() == [0, 5, 9]
    assert packed.keys.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 5]
    assert packed.places.tolist() == [[0, 5], [1, 6], [2, 7], [3, -1], [4, -1], [8, -1]]
    assert packed.rows.tolist() == [9] * 6


def test_nothing_predicts_the_first_token_of_a_text_without_prompt():
    packed = pack([Bundle(prompt=(), completions=((4, 5, 6),))])
    assert (packed.ids.tolist(), packed.source.tolist(), packed.target.tolist()) == ([4, 5], [0, 1], [5, 6])


def test_a_completion_without_tokens_is_refused():
    with pytest.raises(ValueError, match="without tokens"):
        pack([Bundle(prompt=(1, 2), completions=((4, 5), ()))])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 100), st.integers(1, 4))
def test_a_window_is_cut_into_groups_within_the_budget_and_nothing_is_lost(sizes, budget, parts):
    groups = split(sizes, budget=budget, parts=parts)
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in group) <= budget or len(group) == 1 for group in groups)
    assert len(groups) % parts == 0


def test_a_window_that_fits_is_one_group():
    assert split([5, 9, 3], budget=17) == [[1, 0, 2]]


@pytest.mark.parametrize("completions", [1, 2])
def test_filling_changes_no_number(tiny: Path, completions: int):
    model = load_student(weights(tiny), folder=tiny, device="cpu", trainable=False).model
    bundles = [Bundle(prompt=tuple(range(5, 9 + index)), completions=((20, 21, 22 + index), (30, 31))[:completions], key=index) for index in range(5)]
    packed = pack(bundles)
    filled = fill(packed, **sizes_for(packed, segments=40, longest=20)._asdict())
    assert len(filled.ids) % 64 == 0
    assert len(filled.ends_q) == 42
    assert torch.equal(packed_log_probs(model, filled)[: len(packed.source)], packed_log_probs(model, packed))
