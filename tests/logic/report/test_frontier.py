"""Accuracy against cost: which points are efficient, and where marks are drawn."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.logic.report.frontier import Answered, answered, efficient, frontier_chart, key_of, log_ticks
from tasks.logic.report.render import render_report
from tests.logic.report.sample_run import sample_summary, sample_view

COST = st.floats(0.01, 1e5).map(lambda value: float(f"{value:.3g}"))
POINTS = st.lists(st.tuples(COST, st.integers(0, 100)), min_size=1, max_size=12).map(
    lambda pairs: [
        Answered(model="track_b", arm=f"arm{number}", cost=cost, accuracy=right / 100, low=0.9 * right / 100, high=min(1.0, 1.1 * right / 100))
        for number, (cost, right) in enumerate(pairs)
    ]
)
UNIT = ("token", "tokens")


@given(POINTS)
def test_the_frontier_is_what_nothing_beats(points):
    best = efficient(points)
    for point in points:
        beaten = any(other.cost <= point.cost and other.accuracy > point.accuracy for other in points)
        beaten |= any(other.cost < point.cost and other.accuracy == point.accuracy for other in points)
        alike = any((other.cost, other.accuracy) == (point.cost, point.accuracy) for other in best)
        assert alike != beaten
    assert all(before.cost < after.cost and before.accuracy < after.accuracy for before, after in pairwise(best))


@given(COST, COST)
def test_ticks_of_a_logarithmic_axis_enclose_the_costs(one, other):
    low, high = sorted((one, other))
    ticks = log_ticks(low, high)
    assert ticks[0] <= low * 1.000001
    assert ticks[-1] >= high * 0.999999
    assert len(ticks) >= 2
    assert all(after > before for before, after in pairwise(ticks))


def test_ticks_of_a_logarithmic_axis_are_few():
    assert log_ticks(1, 842) == [1, 10, 100, 1000]
    assert log_ticks(3, 30) == [2, 5, 10, 20, 50]


@given(POINTS)
def test_every_mark_lies_inside_the_frame_and_cheaper_is_never_right_of_dearer(points):
    chart = frontier_chart("t", points, x_label="x", unit=UNIT)
    for mark in chart.marks:
        assert chart.left <= mark.x <= chart.right
        assert chart.top - 0.1 <= mark.high <= mark.y <= mark.low <= chart.bottom + 0.1
    steps = [tuple(map(float, pair.split(","))) for pair in chart.steps.split()]
    assert all(before[0] <= after[0] and before[1] >= after[1] for before, after in pairwise(steps))
    assert sorted(mark.number for mark in chart.marks if mark.number) == list(range(1, len(chart.numbered) + 1))
    numbers = [(mark.number_x, mark.number_y) for mark in chart.marks if mark.number]
    assert all(abs(a - x) >= 17 or abs(b - y) >= 11 for place, (a, b) in enumerate(numbers) for x, y in numbers[:place])


def test_marks_that_cost_the_same_stand_side_by_side():
    same = [Answered(model="track_a", arm=arm, cost=1.0, accuracy=0.5, low=0.4, high=0.6) for arm in ("direct", "calibrated", "adaptive")]
    places = sorted(mark.x for mark in frontier_chart("t", same, x_label="x", unit=UNIT).marks)
    assert [after - before for before, after in pairwise(places)] == pytest.approx([9, 9])


def test_points_come_from_the_summary_without_controls_and_with_a_least_cost():
    found = answered(sample_summary(), "tokens_per_question", least=1.0)
    assert {each.model for each in found} == {"zero_shot", "track_a", "track_a_matched", "track_b", "aligned"}
    assert min(each.cost for each in found) == 1.0
    assert len(answered(sample_summary(costs={}), "tokens_per_question", least=1.0)) == 0
    assert [name for name, _ in key_of(found).arms] == ["direct", "calibrated", "reasoning", "rewrite", "self_consistency", "soft", "adaptive"]


def test_the_page_shows_cost_and_calibration_and_what_no_verdict_counts_as():
    page = render_report(sample_view())
    assert page.count('<polyline class="frontier"') == 2
    assert page.count('class="whisker') == 2 * 12
    assert "Track B, reasons first: soft self-consistency, 91.2 % at 842 tokens" in page
    assert "−0.31 and −0.27" in page
    assert "Texts without a verdict: they count as wrong." in page
    other = render_report(sample_view(sample_summary(unparsed="as_no", costs={}, calibration={})))
    assert "they count as &#34;no&#34;, as in the original project" in other
    assert 'id="cost"' not in other
    assert "Threshold, nats" not in other
