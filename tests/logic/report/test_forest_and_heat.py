"""Geometry and words of the pictures of experiments: forest plot, attributed tokens, reliability curves, time by stage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.rows import TokenShare
from tasks.logic.calibration import Bin
from tasks.logic.report.forest import forest
from tasks.logic.report.heat import SHADES, heat
from tasks.logic.report.reliability import SIZE, reliability_charts
from tasks.logic.report.spent import spent

SHARE = st.floats(-1, 1)


def comparison(low: float, middle: float, high: float, *, claim: float = 0.0, verdict: str = "pass") -> dict[str, object]:
    return {"name": "full_draft_vs_no_draft", "n": 200, "difference": middle, "ci_low": low, "ci_high": high, "claim": claim, "verdict": verdict}


@given(st.lists(st.tuples(SHARE, SHARE, SHARE, SHARE), min_size=1, max_size=6))
def test_every_interval_zero_and_every_claim_lie_on_the_axis_in_order(values: list[tuple[float, float, float, float]]) -> None:
    plot = forest([comparison(*sorted(rest), claim=claim) for claim, *rest in values])
    assert plot is not None
    assert 0 <= plot.zero <= 100
    for row, (claim, *rest) in zip(plot.rows, values, strict=True):
        assert 0 <= row.low <= row.middle <= row.high <= 100
        assert (row.low >= plot.zero - 0.01) is (min(rest) >= -1e-4) or abs(min(rest)) < 2e-3
        assert (row.claim is None) is (claim == 0)
        assert row.claim is None or 0 <= row.claim <= 100


def test_a_row_says_what_it_shows_without_its_picture() -> None:
    plot = forest([comparison(0.02, 0.09, 0.16, claim=0.03)])
    assert plot is not None
    (row,) = plot.rows
    assert (row.label, row.figure, row.interval, row.n) == ("The full draft against no draft", "+9.0", "+2.0 to +16.0", 200)
    assert plot.zero < row.low < row.claim < row.middle  # type: ignore[operator]
    assert forest([]) is None


def token(place: int, text: str, role: str, attribution: float, **changes: str) -> TokenShare:
    values = {"qid": "q1", "model": "aligned", "draft": "own", **changes}
    return TokenShare(place=place, token=text, role=role, attribution=attribution, **values)


def test_tokens_are_shaded_by_sign_and_strength_in_order_and_told_in_words() -> None:
    rows = [
        token(2, " telephone", "draft_questions", -0.4), token(0, "Draft:", "template", 0.0), token(1, " When", "draft_questions", 0.8),
        token(3, " No", "draft_verdict", 0.2), token(0, "Draft:", "template", 0.0, model="track_b"), token(1, " When", "question", 0.1, model="track_b"),
    ]  # fmt: skip
    (question,) = heat(rows)
    before, after = question.texts
    assert before.title.startswith("Track B")
    assert [passage.label for passage in after.passages] == ["", "draft: its questions", "draft: its verdict"]
    assert [(shaded.text, shaded.shade) for shaded in after.passages[1].tokens] == [(" When", SHADES), (" telephone", -SHADES // 2)]
    assert after.passages[0].tokens[0].shade == 0
    assert before.passages[1].tokens[0].shade == 1  # on the scale of the whole question, not of its own text
    assert (
        after.sentence == "Strongest, in nats: “When” +0.80 (draft: its questions); “telephone” −0.40 (draft: its questions); “No” +0.20 (draft: its verdict)."
    )


def test_a_few_questions_are_shown_those_with_most_readings_first() -> None:
    rows = [token(0, "a", "question", 0.0, qid=f"q{number}") for number in range(9)] + [token(0, "a", "question", 0.0, qid="q7", model="track_b")]
    shown = heat(rows)
    assert [each.qid for each in shown] == ["q7", "q0", "q1", "q2"]
    assert heat([]) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 900)), min_size=1, max_size=10))
def test_reliability_dots_lie_inside_the_frame_where_stated_and_observed_say(bins: list[tuple[float, float, int]]) -> None:
    (chart,) = reliability_charts({"track_b": [Bin(*each) for each in bins], "track_a": []})
    for dot, (stated, observed, n) in zip(chart.dots, bins, strict=True):
        assert chart.left <= dot.x <= chart.right < SIZE
        assert chart.top <= dot.y <= chart.bottom < SIZE
        assert (dot.x - chart.left) / (chart.right - chart.left) == pytest.approx(stated, abs=0.01)
        assert (chart.bottom - dot.y) / (chart.bottom - chart.top) == pytest.approx(observed, abs=0.01)
        assert f"{n} answers" in dot.title


def test_time_is_summed_by_kind_of_stage_and_reused_time_stands_apart() -> None:
    lines = [
        {"stage": "predict track_a/dev", "seconds": 30.0, "cached": False},
        {"stage": "predict track_b/dev", "seconds": 60.0, "cached": False},
        {"stage": "predict aligned/dev", "seconds": 10.0, "cached": True},
        {"stage": "teach", "seconds": 25.0, "cached": True},
    ]
    predict, teach = spent(lines)
    assert (predict.stage, predict.steps, predict.computed, predict.cached) == ("predict", 3, 90.0, 10.0)
    assert (predict.computed_width, predict.cached_width) == (90.0, 10.0)
    assert (teach.computed, teach.cached_width) == (0.0, 25.0)
    assert spent([]) == []
