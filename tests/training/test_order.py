"""The order of rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.training.order import WindowOrder

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 16), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_shows_every_row_once_in_windows_of_the_same_size(lengths, window, seed, epoch):
    order = WindowOrder(lengths, window=window, seed=seed)
    order.set_epoch(epoch)
    steps = list(order)
    assert sorted(index for step in steps for index in step) == list(range(len(lengths)))
    assert len(steps) == len(order)
    assert all(len(step) == window for step in steps[:-1])


@given(LENGTHS, st.integers(1, 16), st.integers(1, 400))
def test_training_stops_at_the_first_step_that_has_seen_the_tokens_asked_for(lengths, window, tokens):
    order = WindowOrder(lengths, window=window, seed=0)
    steps = order.steps_for(epochs=1, steps=None, tokens=tokens)
    assert order.tokens_in(steps) >= tokens > order.tokens_in(steps - 1)


def test_epochs_differ_and_seeds_differ():
    first, other = WindowOrder([1] * 20, window=4, seed=0), WindowOrder([1] * 20, window=4, seed=1)
    assert first.windows(0) != first.windows(1)
    assert first.windows(0) != other.windows(0)


def test_steps_count_the_short_last_window():
    assert WindowOrder([1] * 9, window=4, seed=0).steps_for(epochs=2, steps=None, tokens=None) == 6
    assert WindowOrder([1] * 9, window=4, seed=0).steps_for(epochs=2, steps=5, tokens=None) == 5
