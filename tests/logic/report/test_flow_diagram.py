"""The streams of both classes: nothing is lost between the figures and the picture, and all of it lies inside the frame."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.logic.report.flow_diagram import WIDTH, FlowDiagram, Shape, flow_diagram

COUNT = st.integers(0, 3_000)


def steps(*counts: tuple[float, float]) -> list[dict[str, object]]:
    return [{"step": f"step {number}", "yes": yes, "no": no} for number, (yes, no) in enumerate(counts)]


def span(shape: Shape, edge: int) -> float:
    """Width of a shape's upper (0) or lower (1) edge."""
    places = [float(point.split(",")[0]) for point in shape.points.split()]
    return abs(places[1] - places[0]) if edge == 0 else abs(places[3] - places[2])


def of(diagram: FlowDiagram, kind: str, side: str) -> list[Shape]:
    return [shape for shape in diagram.shapes if (shape.kind, shape.side) == (kind, side)]


@given(st.lists(st.tuples(COUNT, COUNT), min_size=1, max_size=8))
def test_all_of_it_lies_inside_the_frame(counts: list[tuple[int, int]]) -> None:
    diagram = flow_diagram(steps(*counts))
    if not any(yes or no for yes, no in counts):
        assert diagram is None
        return
    assert diagram is not None
    corners = [tuple(map(float, point.split(","))) for shape in diagram.shapes for point in shape.points.split()]
    assert all(0 <= x <= WIDTH and 0 <= y <= diagram.height for x, y in corners)
    assert all(0 < note.x < WIDTH and 0 < note.y < diagram.height for note in diagram.notes)
    heights = [station.y for station in diagram.stations]
    assert heights == sorted(set(heights))
    assert len(heights) == len(counts)


@given(st.lists(st.tuples(COUNT, COUNT), min_size=2, max_size=6).filter(lambda counts: any(yes or no for yes, no in counts)))
def test_what_stays_and_what_leaves_is_what_was_there(counts: list[tuple[int, int]]) -> None:
    diagram = flow_diagram(steps(*counts))
    assert diagram is not None
    for place, side in enumerate(("yes", "no")):
        ups = sum(max(after[place] - before[place], 0) for before, after in pairwise(counts))
        downs = sum(max(before[place] - after[place], 0) for before, after in pairwise(counts))
        scale = 128.0 / max(max(pair) for pair in counts)
        slack = 0.2 * len(counts)
        assert sum(span(shape, 0) for shape in of(diagram, "lost", side)) == pytest.approx(downs * scale, abs=slack)
        assert sum(span(shape, 1) for shape in of(diagram, "back", side)) == pytest.approx(ups * scale, abs=slack)
        assert sum(span(shape, 0) for shape in of(diagram, "bar", side)) == pytest.approx(sum(pair[place] for pair in counts) * scale, abs=slack)


def test_a_biased_filter_and_what_brings_its_questions_back_are_told_in_counts() -> None:
    diagram = flow_diagram([*steps((160, 160), (112, 150), (160, 158)), {"step": "Track A, weighted", "yes": 158.5, "no": 161.5}])
    assert diagram is not None
    assert [note.text for note in diagram.notes] == ["−48", "−10", "+48", "+8"]
    assert all((note.x < diagram.middle) is (note.text.endswith("48")) for note in diagram.notes)  # yes on the left
    assert "step 1: 112 yes, 150 no." in diagram.sentence
    assert "weighted" not in diagram.sentence
    assert len(of(diagram, "lost", "yes")) == len(of(diagram, "back", "no")) == 1


def test_where_nothing_was_asked_nothing_flows() -> None:
    assert flow_diagram([]) is None
    assert flow_diagram(steps((0, 0), (0, 0))) is None
