"""The slides: they open again, their charts are native and hold the summary's figures, nothing is small or outside, words follow verdicts."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pptx import Presentation
from pptx.enum.shapes import MSO_SHAPE_TYPE
from pptx.oxml.ns import qn

from tasks.logic.report import words
from tasks.logic.report.deck import BOTTOM, TOP, lines_of, pages, text_height
from tasks.logic.report.deck_charts import POINTS, thinned
from tasks.logic.report.slides import run_slides
from tests.logic.report.sample_experiments import attribution, draft, judge
from tests.logic.report.sample_run import sample_summary, sample_view

EVERYTHING = {"draft": draft("underpowered", confounded=True), "attribution": attribution(), "judge": judge("pass")}


def opened(view: Any) -> Any:
    """The deck as another program finds it."""
    stream = BytesIO()
    run_slides(view).save(stream)
    return Presentation(BytesIO(stream.getvalue()))


@pytest.fixture(scope="module")
def deck() -> Any:
    return opened(sample_view({**sample_summary(), **EVERYTHING}))


def titles(deck: Any) -> list[str]:
    return [slide.shapes.title.text_frame.text for slide in deck.slides]


def text(deck: Any) -> str:
    """All words, in paragraphs and tables, with plain spaces before per cent signs."""
    return "\n".join("".join(run.text or "" for run in slide._element.iter(qn("a:t"))) for slide in deck.slides).replace("\u00a0", " ")


def charts(deck: Any) -> list[Any]:
    return [shape.chart for slide in deck.slides for shape in slide.shapes if shape.has_chart]


def series(deck: Any, name: str) -> list[Any]:
    return [each for chart in charts(deck) for plot in chart.plots for each in plot.series if each.name == name]


def test_it_is_wide_and_all_of_it_can_be_edited(deck):
    assert deck.slide_width / deck.slide_height == pytest.approx(16 / 9, rel=1e-3)
    kinds = {shape.shape_type for slide in deck.slides for shape in slide.shapes}
    assert MSO_SHAPE_TYPE.PICTURE not in kinds
    assert {MSO_SHAPE_TYPE.CHART, MSO_SHAPE_TYPE.TABLE} <= kinds


def test_every_part_of_a_run_has_its_slide(deck):
    wanted = [
        "Track B beats Track A", "What was done", "Accuracy of the models and controls", "Model against model: some questions stay open",
        "Questions per class through curation", "Fine-tuning: training loss", "Preference training: log-ratio to the reference",
        "Open: these questions do not decide whether the draft helps", "The draft experiment, difference by difference",
        "After preference training, answers rest more on the draft", "The aligned model asks better questions than Track B", "Cost and time",
        "What these verdicts allow to say", "Limits", "Provenance", "Artifacts behind this run",
    ]  # fmt: skip
    assert titles(deck) == wanted


def test_charts_hold_the_figures_of_the_summary(deck):
    summary = sample_summary()
    shown, draft = series(deck, "right answers")
    cells = [model["arms"][model["headline"]] for group in ("models", "controls") for model in summary[group].values()]
    assert sorted(shown.values) == pytest.approx(sorted(cell["accuracy"] for cell in cells), abs=6e-4)
    spans = [float(point.text) for point in shown._element.find(qn("c:errBars")).find(qn("c:plus")).iter(qn("c:v"))]
    assert sorted(spans) == pytest.approx(sorted(cell["ci_high"] - cell["accuracy"] for cell in cells), abs=1e-5)
    assert [list(line.values) for line in series(deck, "always the commoner answer")] == [[0.5] * 7]
    assert list(draft.values) == pytest.approx([cell["accuracy"] for cell in EVERYTHING["draft"]["arms"].values()], abs=6e-4)
    (yes,), (no,) = series(deck, "answer yes"), series(deck, "answer no")
    assert list(zip(yes.values, no.values, strict=True)) == [(step["yes"], step["no"]) for step in summary["curation"]["steps"]]
    (loss,) = series(deck, "Track B, reasons first")
    assert list(loss.values) == pytest.approx([value for _, value in sample_view().curves[2].points])
    assert list(series(deck, "seconds")[0].values) == [131.4, 98.2, 42.0, 0.4]
    assert [list(each.values) for each in series(deck, "share of the pairs")] == [[0.383, 0.333, 0.283]]


def test_the_majority_line_is_a_line_over_the_same_axes(deck):
    frame = next(chart for chart in charts(deck) if chart.plots[0].series[0].name == "right answers")._chartSpace
    (columns,), (line,) = frame.iter(qn("c:barChart")), frame.iter(qn("c:lineChart"))
    assert [axis.get("val") for axis in columns.findall(qn("c:axId"))] == [axis.get("val") for axis in line.findall(qn("c:axId"))]


def test_intervals_stand_in_words_too(deck):
    cell = sample_summary()["models"]["track_b"]["arms"]["reasoning"]
    labels = [str(label) for chart in charts(deck) for label in chart.plots[0].categories]
    assert f"Track B, reasons first\n{100 * cell['ci_low']:.1f} to {100 * cell['ci_high']:.1f}\nn = 240" in labels


def sizes(deck: Any) -> list[int]:
    parts = [slide._element for slide in deck.slides] + [chart._chartSpace for chart in charts(deck)]
    return [int(node.get("sz")) for part in parts for node in part.iter() if node.get("sz", "").isdigit() and node.tag in (qn("a:rPr"), qn("a:defRPr"))]


def test_no_text_is_under_14_points(deck):
    assert min(sizes(deck)) >= 1400
    assert all(run.find(qn("a:rPr")).get("sz") for slide in deck.slides for run in slide._element.iter(qn("a:r")))
    assert all(chart.font.size.pt >= 14 for chart in charts(deck))


def placed(deck: Any) -> list[tuple[str, float, float]]:
    """Name, top and bottom in inches of everything under a title, with the height that a table or a text really takes."""
    found = []
    for slide in deck.slides:
        for shape in slide.shapes:
            height = sum(row.height for row in shape.table.rows) if shape.has_table else shape.height
            found.append((f"{slide.shapes.title.text_frame.text}: {shape.name}", shape.top / 914400, (shape.top + height) / 914400))
            assert 0 <= shape.left <= shape.left + shape.width <= deck.slide_width
    return found


def filled(deck: Any) -> list[float]:
    """Inches that the bullets of each slide take beyond their box, as estimated for a wide font."""
    over = []
    for slide in deck.slides:
        for shape in slide.shapes:
            if shape.has_text_frame and shape.text_frame.paragraphs[0]._p.find(f"{qn('a:pPr')}/{qn('a:buChar')}") is not None:
                lines = shape.text_frame.paragraphs
                need = sum(text_height(line.text, size=line.runs[0].font.size.pt) for line in lines)
                over.append(need - shape.height / 914400)
    return over


def test_nothing_leaves_a_slide_however_much_there_is_to_say():
    summary = sample_summary()
    many = {f"control_{number}": next(iter(summary["controls"].values())) for number in range(11)}
    view = sample_view(
        {**summary, **EVERYTHING, "controls": many, "comparisons": summary["comparisons"] * 12, "overrides": {f"recipe.some.key_{n}": n for n in range(30)}},
        notes=tuple(f"Note {number}: {'many words that say little ' * (number % 30)}" for number in range(40)),
        provenance=sample_view().provenance * 20,
        command="socratune run demo" + " --set recipe.teacher.recordings=[a-long-name.jsonl]" * 12,
    )
    crowded = opened(view)
    assert max(bottom for _, _, bottom in placed(crowded)) <= 7.5
    assert max(filled(crowded)) <= 1e-6
    assert titles(crowded).count("Accuracy of the controls") == 2
    assert titles(crowded).count("Artifacts behind this run") > 2
    assert "Note 39" in text(crowded)
    for slide in crowded.slides:
        tops = sorted((shape.top, shape.top + shape.height) for shape in slide.shapes if shape.has_chart or shape.has_table)
        assert all(above[1] <= below[0] for above, below in pairwise(tops))


@pytest.mark.parametrize(
    ("right", "title", "chip"),
    [
        ({}, "Track B beats Track A", "pass"),
        ({("track_b", "reasoning"): 0.53}, "No clear difference between Track B and Track A", "underpowered"),
        ({("track_b", "reasoning"): 0.2}, "Track B is worse than Track A", "fail"),
    ],
)
def test_the_headline_follows_the_verdict(right, title, chip):
    deck = opened(sample_view(sample_summary(right)))
    assert titles(deck)[0] == title
    assert chip in [shape.text_frame.text for shape in deck.slides[0].shapes if shape.has_text_frame]
    assert ("Open: " in text(deck)) == ("underpowered" in text(deck))


@pytest.mark.parametrize(
    ("verdict", "claims"),
    [
        (
            "pass",
            {
                "The student gains by asking: its draft helps it to answer", "After preference training, answers rest more on the draft",
                "The aligned model asks better questions than Track B",
            },
        ),
        (
            "fail",
            {
                "No gain by asking: the draft does not give what was claimed", "Preference training did not make answers rest more on the draft",
                "The aligned model does not ask better questions than Track B",
            },
        ),
        (
            "underpowered",
            {
                "Open: these questions do not decide whether the draft helps",
                "Open: whether answers rest more on the draft after preference training", "Open: whether the aligned model asks better questions",
            },
        ),
    ],
)  # fmt: skip
def test_experiments_claim_what_they_showed(verdict, claims):
    made = {"draft": draft(verdict), "attribution": attribution(verdict), "judge": judge(verdict)}
    deck = opened(sample_view({**sample_summary(), **made}))
    said = set(titles(deck)) - set(titles(opened(sample_view())))
    assert said == claims | {"The draft experiment, difference by difference"}
    assert "A direction only" not in text(deck)


def test_an_unusable_judge_and_a_confounded_experiment_are_called_so():
    deck = opened(sample_view({**sample_summary(), "draft": draft("pass", confounded=True), "judge": judge("pass", usable=False)}))
    assert "The judge contradicts itself too often to be used" in titles(deck)
    assert "A direction only" in text(deck)


def test_a_bare_run_still_has_slides():
    bare = sample_summary(controls={}, test_reads=[], overrides={}, comparisons=[])
    deck = opened(sample_view({**bare, "draft": None, "judge": None}, curves=(), margins=(), selection=(), transcripts=(), provenance=(), notes=()))
    assert titles(deck)[0] == "Nothing was compared"
    assert "No test split has been read." in text(deck)
    assert not {"The draft experiment, difference by difference", "Fine-tuning: training loss"} & set(titles(deck))


def test_figures_are_written_as_in_the_report(deck):
    cell = sample_summary()["models"]["aligned"]["arms"]["reasoning"]
    assert words.percent(cell["accuracy"]) == "86.2 %"  # 86.25: a spreadsheet would round it up
    assert 0.862 in list(series(deck, "right answers")[0].values)


@given(st.lists(st.floats(0.01, 20), max_size=40), st.floats(1, 10))
def test_pages_keep_the_order_and_hold_what_they_can(heights, room):
    made = list(pages(list(range(len(heights))), heights, room=room))
    assert [item for page in made for item in page] == list(range(len(heights)))
    assert all(len(page) == 1 or sum(heights[item] for item in page) <= room + 1e-9 for page in made)
    assert all(sum(heights[item] for item in page) + heights[after[0]] > room - 1e-9 for page, after in pairwise(made))


@given(st.text(alphabet="ab ", max_size=300), st.floats(1, 12))
def test_narrower_means_more_lines(said, width):
    assert lines_of(said, width=width, size=14) >= lines_of(said, width=width + 1, size=14) >= 1
    assert lines_of(said, width=width, size=20) >= lines_of(said, width=width, size=14)


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    points = [(float(step), 1.0 / (1 + step)) for step in range(5000)]
    kept = thinned(points)
    assert len(kept) == POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(kept)


def test_the_body_lies_between_title_and_foot(deck):
    body = [(top, bottom) for name, top, bottom in placed(deck) if "Chart" in name or "Table" in name]
    assert all(top >= TOP and bottom <= BOTTOM + 0.01 for top, bottom in body)
