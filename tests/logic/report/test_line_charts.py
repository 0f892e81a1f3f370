"""Geometry of the charts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.logic.report.charts import line_chart, nice_ticks, thin

NUMBER = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 4))
POINTS = st.lists(NUMBER, min_size=1, max_size=500).map(lambda values: list(enumerate(values)))


@given(st.tuples(NUMBER, NUMBER).map(sorted), st.integers(2, 8))
def test_ticks_enclose_the_values_evenly(bounds, most):
    low, high = bounds
    ticks = nice_ticks(low, high, most=most)
    steps = [after - before for before, after in pairwise(ticks)]
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert steps
    assert min(steps) > 0
    assert max(steps) == pytest.approx(min(steps), rel=1e-4)
    assert len(ticks) <= most + 2


def test_ticks_are_round():
    assert nice_ticks(0.31, 2.47, most=5) == [0.0, 1.0, 2.0, 3.0]
    assert nice_ticks(-9.8, 8.7, most=5) == [-10.0, -5.0, 0.0, 5.0, 10.0]


@given(st.dictionaries(st.text(min_size=1, max_size=5), POINTS, min_size=1, max_size=3))
def test_every_point_lies_inside_the_frame_and_steps_go_right(series):
    chart = line_chart("loss", series, x_label="step", y_label="nats")
    for line in chart.lines:
        points = [tuple(map(float, pair.split(","))) for pair in line.points.split()]
        assert all(chart.left - 0.2 <= x <= chart.right + 0.2 and chart.top - 0.2 <= y <= chart.bottom + 0.2 for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_higher_values_are_drawn_higher():
    chart = line_chart("loss", {"a": [(0, 2.0), (10, 1.0)]}, x_label="step", y_label="nats")
    (first, last) = (tuple(map(float, pair.split(","))) for pair in chart.lines[0].points.split())
    assert first[0] < last[0]
    assert first[1] < last[1]  # SVG counts downwards
    assert "2.00 at the start, 1.00 at the end" in chart.sentence


@given(POINTS)
def test_thinning_keeps_the_range_and_is_small(points):
    few = thin(points)
    assert len(few) <= 200
    assert min(y for _, y in points) - 1e-6 <= min(y for _, y in few)
    assert max(y for _, y in few) <= max(y for _, y in points) + 1e-6
    if len(points) <= 200:
        assert few == points


@pytest.mark.parametrize(("series", "message"), [({"a": []}, "empty"), ({"a": [(1, 1.0), (2, float("inf"))]}, "at step 2")])
def test_what_cannot_be_drawn_is_told(series, message):
    with pytest.raises(DataError, match=message):
        line_chart("loss", series, x_label="step", y_label="nats")
