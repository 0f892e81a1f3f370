"""The loop's page and tables: what happened, in words that the figures bear out, and nothing from outside taken for markup."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.rounds import Round
from tasks.logic.report.loop_charts import dev_charts, round_chart, tail_charts
from tasks.logic.report.loop_page import loop_markdown, render_loop
from tasks.logic.report.loop_words import figure, headline, loop_rows, status
from tasks.logic.scores import Comparison, Finding
from tests.logic.report.sample_rounds import GATE, GOLD_YES, LENGTH, sample_rounds
from tests.logic.report.test_report_page import Page

ROUNDS = sample_rounds()
GAIN = Comparison(
    right=0.6, name="round_3_vs_start", n=240, difference=0.04, ci_low=0.004, ci_high=0.075, p_value=0.027, p_holm=0.027, minimal_detectable=0.05, claim=0.0,
    verdict=Finding.PASS,
)  # fmt: skip
NASTY = "<script>alert(1)</script>|*_`[x](y)\n& more"


def page(rounds: list[Round] = ROUNDS, *, name: str = "birds", accepted: str = "round 3", stopped: str = "", over: Comparison | None = None) -> str:
    return render_loop(rounds, name=name, accepted=accepted, stopped=stopped, gold_yes=GOLD_YES, recipe=GATE, over_start=over)


def test_the_headline_names_the_accepted_student_its_gain_and_what_comes_next() -> None:
    text = page(over=GAIN)
    assert Page(text).heading == "The accepted student is round 3's: +4.0 points over the start"
    assert "+4.0 points (95 % CI +0.4 to +7.5, p = 0.027)." in text
    assert "The loop goes on" in text


def test_a_gain_that_may_be_chance_is_not_sold_as_one() -> None:
    title, evidence = headline(ROUNDS, accepted="round 3", over_start=replace(GAIN, verdict=Finding.UNDERPOWERED))
    assert evidence.level == "underpowered"
    assert "240 questions would show a difference of 5.0 points or more" in evidence.text
    assert "+4.0" in title


@pytest.mark.parametrize(("p", "level"), [(0.031, "pass"), (0.05, "underpowered")])
def test_a_child_of_the_start_brings_its_own_test(p: float, level: str) -> None:
    rounds = [ROUNDS[0], replace(ROUNDS[1], gain_p=p)]
    found = headline(rounds, accepted="round 1", over_start=None)[1]
    assert found.level == level
    assert "p = 0.0" in found.text


def test_without_a_comparison_a_grandchild_has_no_interval() -> None:
    assert headline(ROUNDS, accepted="round 3", over_start=None)[1].text.endswith("+4.0 points; no interval was made.")


@pytest.mark.parametrize(
    ("rounds", "accepted", "said"),
    [
        ([], "start", "The loop has not made a round yet"),
        (ROUNDS[:1], "start", "The accepted student is the start"),
        (ROUNDS, "start", "The accepted student is the start"),
        (ROUNDS, "pocketqa-20310201", "The accepted student is pocketqa-20310201"),
        ([ROUNDS[0], replace(ROUNDS[1], accuracy=0.856)], "round 1", "The accepted student is round 1's: −0.4 points against the start"),
        ([ROUNDS[0], replace(ROUNDS[1], accuracy=0.86)], "round 1", "The accepted student is round 1's: as often right as the start"),
    ],
)
def test_every_state_of_the_pointer_has_a_headline(rounds: list[Round], accepted: str, said: str) -> None:
    assert headline(rounds, accepted=accepted, over_start=None)[0] == said
    assert Page(page(rounds, accepted=accepted)).heading == said


def test_a_stopped_loop_says_why_and_another_when_it_goes_on() -> None:
    assert status("2 rounds in a row reverted").text == "The loop has stopped: 2 rounds in a row reverted."
    assert "goes on" in status("").text


def test_every_round_stands_in_the_table_with_its_reasons() -> None:
    text = page()
    assert text.count("✗ reverted") == 2
    assert text.count("✓ accepted") == 2
    for needle in (
        "Its mean answer of 96.2 tokens is 64.2 % longer",
        "It took longer than 45 minutes",
        "models/align/00000003",
        "212 (53 replayed)",
        "33 min 0 s",
    ):
        assert needle in text


def test_the_accepted_student_stands_out() -> None:
    assert page().count('<tr class="head">') == 1
    assert page(accepted="elsewhere").count('<tr class="head">') == 0


def test_no_figure_is_shown_as_nan() -> None:
    """The given-up round measured nothing, and the start's chosen log-ratio does not exist."""
    for text in (page(), loop_markdown(ROUNDS, stopped=""), json.dumps(loop_rows(ROUNDS))):
        assert "nan" not in text.lower()


def test_a_round_of_infinities_is_shown_and_not_drawn() -> None:
    rounds = [ROUNDS[0], replace(ROUNDS[1], chosen_log_ratio=-math.inf, drift=math.inf)]
    assert {"−∞", "∞"} <= set(loop_rows(rounds)[1].values())
    assert Page(page(rounds)).heading
    assert "Chosen log-ratio" not in [chart.title for chart in dev_charts(rounds, gold_yes=0.5, recipe=GATE)]


def test_the_page_asks_nobody_for_anything() -> None:
    found = Page(page(over=GAIN))
    assert set(found.addresses) == {"data:,"}
    assert {target.removeprefix("#") for target in found.targets} <= set(found.ids)
    assert not {"script", "img", "iframe"} & set(found.tags)


def test_what_comes_from_outside_is_never_markup() -> None:
    rounds = [ROUNDS[0], *(replace(each, reasons=(NASTY,), student=NASTY, parent=NASTY, started_at=NASTY) for each in ROUNDS[1:])]
    text = page(rounds, name=NASTY, accepted=NASTY, stopped=NASTY)
    assert "<script" not in text
    assert "script" not in Page(text).tags
    table = loop_markdown(rounds, stopped=NASTY)
    assert "<script" not in table.replace("\\<", "")
    assert "[x](y)" not in table
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rounds)
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_rows_have_the_same_short_columns_and_can_be_json() -> None:
    rows = loop_rows(ROUNDS)
    assert json.loads(json.dumps(rows)) == rows
    assert len({tuple(row) for row in rows}) == 1
    assert all(len(column) <= 8 for column in rows[0])
    assert rows[2]["why"] == LENGTH
    assert (rows[1]["right"], rows[1]["gain"], rows[1]["p"], rows[1]["chosen"]) == ("88.8 %", "+2.8", "0.031", "+0.012")


def test_markdown_says_whether_the_loop_goes_on() -> None:
    assert loop_markdown(ROUNDS, stopped="").startswith("Rounds accepted: 2, reverted: 2. The loop goes on.")
    assert "The loop has stopped: 3 rounds made." in loop_markdown(ROUNDS, stopped="3 rounds made")
    assert "| round |" in loop_markdown([], stopped="")


def test_the_line_joins_the_students_that_were_kept() -> None:
    accuracy = dev_charts(ROUNDS, gold_yes=GOLD_YES, recipe=GATE)[0]
    (line,) = accuracy.lines
    kept = [f"{mark.x},{mark.y}" for mark in line.marks if mark.kept]
    assert line.points.split() == kept
    assert [mark.title for mark in line.marks if not mark.kept] == ["Accuracy, round 2: 88.3 (reverted)"]
    assert "round 4" not in accuracy.sentence


def test_bounds_of_the_gate_are_drawn_where_they_are() -> None:
    charts = {chart.title: chart for chart in dev_charts(ROUNDS, gold_yes=GOLD_YES, recipe=GATE)}
    inside = charts["Says yes"].lines[0].marks
    top, height = charts["Says yes"].band or (0, 0)
    assert all(top <= mark.y <= top + height for mark in inside)
    top, height = charts["Length"].band or (0, 0)
    assert [top <= mark.y <= top + height for mark in charts["Length"].lines[0].marks] == [True, True, False, True]
    assert all(mark.y > (charts["Drift"].bound or 0) for mark in charts["Drift"].lines[0].marks)  # SVG counts downwards
    assert all(mark.y < (charts["Chosen log-ratio"].bound or 0) for mark in charts["Chosen log-ratio"].lines[0].marks)


def test_a_loop_that_has_only_its_start_has_no_tails() -> None:
    assert tail_charts(ROUNDS[:1]) == []
    assert 'href="#tails"' not in page(ROUNDS[:1], accepted="start")


@given(st.lists(st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), min_size=5, max_size=5))
def test_every_mark_lies_inside_the_frame(values: list[float]) -> None:
    chart = round_chart("x", ROUNDS, {"x": values}, unit="", shows="", band=(-1.0, 1.0), bound=0.5)
    known = [value for value in values if math.isfinite(value)]
    assert (chart is None) == (not known)
    if chart:
        assert len(chart.lines[0].marks) == len(known)
        assert all(chart.left <= mark.x <= chart.right and chart.top - 0.2 <= mark.y <= chart.bottom + 0.2 for mark in chart.lines[0].marks)
        assert chart.bound is not None
        assert chart.top - 0.2 <= chart.bound <= chart.bottom + 0.2


@pytest.mark.parametrize(
    ("value", "said"), [(0.0123, "+0.012"), (-0.0123, "−0.012"), (-0.0001, "0.000"), (0.0, "0.000"), (math.nan, "–"), (-math.inf, "−∞"), (math.inf, "+∞")]
)
def test_figures_have_real_signs(value: float, said: str) -> None:
    assert figure(value, 3, signed=True) == said


def test_an_axis_tells_its_ticks_apart_and_draws_no_rounding_as_news() -> None:
    chart = round_chart("x", ROUNDS[:2], {"": [0.58788, 0.58790]}, unit="", shows="")
    assert chart is not None
    assert len({tick.label for tick in chart.y_ticks}) == len(chart.y_ticks)
    heights = [mark.y for mark in chart.lines[0].marks]
    assert abs(heights[0] - heights[1]) < (chart.bottom - chart.top) / 50
