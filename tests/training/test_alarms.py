"""What raises an alarm, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.training.alarms import EpochFigures, alarms

EVEN = [(100, 95), (80, 90), (60, 61), (70, 70)]
FLAT = [1.0, 1.1, 0.9, 1.0]


def epochs(*shifts: float, accuracy: float = 0.8, correct: int = 10) -> list[EpochFigures]:
    return [EpochFigures(chosen_shift=shift, reward_accuracy=accuracy, correct=correct) for shift in shifts]


def raised(seen: list[EpochFigures], *, start: int | None = 5, lengths=EVEN, gaps=FLAT) -> str:
    return " | ".join(alarms(seen, start_correct=start, lengths=lengths, gaps=gaps))


def test_a_run_that_goes_well_raises_none() -> None:
    assert raised(epochs(0.01, 0.02, 0.02, 0.03)) == ""


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (epochs(0.0, -0.05, -0.2), "-0.20 nats a token"),
        (epochs(0.08, 0.05, 0.02, 0.01), "3 epochs in a row"),
        (epochs(0.1, 0.1, accuracy=0.99, correct=5), "over-optimisation"),
    ],
)
def test_displacement_and_over_optimisation_are_told(seen: list[EpochFigures], words: str) -> None:
    assert words in raised(seen)


def test_certainty_is_no_alarm_while_dev_improves_or_is_not_read() -> None:
    assert raised(epochs(0.1, accuracy=0.99, correct=6)) == ""
    assert raised(epochs(0.1, accuracy=0.99, correct=0), start=None) == ""


def test_lengths_are_watched() -> None:
    assert "only 1 of 4 pairs" in raised(epochs(0.1), lengths=[(100, 50), (100, 60), (100, 101), (10, 20)])
    assert "+1.00" in raised(epochs(0.1), lengths=[(100, 90 + row) for row in range(20)], gaps=[float(-row) for row in range(20)])


@given(st.lists(st.floats(-1, 1), max_size=5), st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200), st.floats(-50, 50)), max_size=30))
def test_any_run_can_be_judged(shifts: list[float], pairs: list[tuple[int, int, float]]) -> None:
    found = alarms(epochs(*shifts), start_correct=None, lengths=[pair[:2] for pair in pairs], gaps=[pair[2] for pair in pairs])
    assert all(isinstance(each, str) for each in found)
