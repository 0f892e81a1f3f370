"""The share of yes from step to step, and the band that it may not leave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.logic.report.charts import class_share_chart

COUNT = st.integers(0, 5_000)


def filters(*counts: tuple[int, int]) -> list[dict[str, object]]:
    return [{"step": f"step {n}", "yes": yes, "no": no, "yes_share": yes / (yes + no) if yes + no else 0.0} for n, (yes, no) in enumerate(counts)]


@given(st.lists(st.tuples(COUNT, COUNT), min_size=1, max_size=9), st.floats(0.0, 0.2))
def test_marks_and_band_lie_inside_the_frame_and_marks_outside_the_band_say_so(counts: list[tuple[int, int]], max_shift: float) -> None:
    chart = class_share_chart(filters(*counts), max_shift=max_shift)
    if not sum(counts[0]):
        assert chart is None
        return
    assert chart is not None
    assert 0 <= chart.band_left <= chart.source <= chart.band_right <= chart.width
    for row, (yes, no) in zip(chart.rows, counts, strict=True):
        assert (row.x is None) is (yes + no == 0)
        if row.x is not None:
            assert 0 <= row.x <= chart.width
            assert 0 < row.y < chart.bottom < chart.height
            assert row.outside or chart.band_left - 0.2 <= row.x <= chart.band_right + 0.2


def test_a_share_that_falls_moves_to_the_left_and_is_told_in_words() -> None:
    chart = class_share_chart(filters((91, 109), (39, 98)), max_shift=0.02)
    assert chart is not None
    before, after = chart.rows
    assert before.x is not None
    assert after.x is not None
    assert (after.x < chart.band_left, after.outside, before.outside) == (True, True, False)
    assert after.left == "39 yes, 98 no: 28.5 %"
    assert "step 1: 39 yes, 98 no: 28.5 %." in chart.sentence
    assert chart.points.count(",") == 2


def test_charts_beside_one_another_have_one_axis() -> None:
    low, high = filters((50, 50), (10, 90)), filters((50, 50), (60, 40))
    shares = [0.5, 0.1, 0.6]
    made = [class_share_chart(each, max_shift=0.02, beside=shares) for each in (low, high)]
    assert made[0] is not None
    assert made[1] is not None
    assert made[0].x_ticks == made[1].x_ticks
    assert class_share_chart(high, max_shift=0.02) != made[1]


@pytest.mark.parametrize("steps", [[], filters((0, 0), (0, 0))])
def test_where_nothing_was_asked_there_is_no_chart(steps: list[dict[str, object]]) -> None:
    assert class_share_chart(steps, max_shift=0.02) is None
