"""Native charts of the slides. The drawing library makes one kind of chart at a time; whiskers and a line over columns are added to its XML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pptx.chart.data import CategoryChartData, XyChartData
from pptx.enum.chart import XL_CHART_TYPE, XL_LABEL_POSITION, XL_LEGEND_POSITION, XL_TICK_LABEL_POSITION, XL_TICK_MARK
from pptx.enum.dml import MSO_LINE
from pptx.oxml.ns import qn
from pptx.oxml.xmlchemy import OxmlElement
from pptx.util import Pt

from tasks.logic.report.deck import ACCENT, BOTTOM, EM, INK, MUTED, RULE, SMALL, TONES, TOP, WHITE, Box, add_text, new_slide, pages, rgb, text_height

SERIES = ("0F766E", "9A6512", "4F5FA3", "9B4F76", "64748B")
LIGHT = "8FC1BB"  # under whiskers and a line
COLUMNS = 7  # on a slide: their labels must be readable
POINTS = 200  # of a curve: more cannot be seen and make the file heavy


def paged_accuracy(deck: Any, title: str, told: str, cells: Mapping[str, Mapping[str, float]], *, line: float | None, foot: str) -> None:
    """Columns of accuracy by label with their intervals, as whiskers and in words; over as many slides as readable labels take."""
    slides = -(-len(cells) // COLUMNS)
    for page in pages(list(cells), [1.0] * len(cells), room=-(-len(cells) // max(slides, 1))):  # as many on each: a line needs two columns
        slide = new_slide(deck, title, foot=foot)
        room = text_height(told, size=SMALL)
        add_text(slide, Box(height=room), [told], size=SMALL, color=MUTED)
        shown = {f"{label}\n{_interval(cells[label])}\nn = {cells[label]['n']}": cells[label]["accuracy"] for label in page}
        spans = [(cells[label]["ci_low"], cells[label]["ci_high"]) for label in page]
        add_bars(slide, Box(top=TOP + room, height=BOTTOM - TOP - room), shown, name="right answers", intervals=spans, line=line)


def add_bars(slide: Any, box: Box, values: Mapping[str, float], *, name: str, intervals: Sequence[tuple[float, float]] = (), line: float | None = None) -> None:
    """Columns of shares by label, with whiskers at `intervals` and a dotted line at `line`."""
    data = CategoryChartData(number_format="0.0 %")
    data.categories = list(values)
    data.add_series(name, [_as_in_words(value) for value in values.values()])
    if line is not None:
        data.add_series("always the commoner answer", [line] * len(values))
    chart = _chart(slide, XL_CHART_TYPE.COLUMN_CLUSTERED, box, data, told=f"{name}: " + "; ".join(f"{key} {value:.1%}" for key, value in values.items()))
    axis = _value_axis(chart, number_format="0 %")
    axis.minimum_scale, axis.maximum_scale, axis.major_unit = 0, 1, 0.25
    plot = chart.plots[0]
    plot.gap_width = 70
    series = plot.series[0]
    _fill(series, LIGHT)
    _labels(series, "0.0 %", color=INK, position=XL_LABEL_POSITION.INSIDE_BASE)
    if intervals:
        _whiskers(series, [(value - low, high - value) for value, (low, high) in zip(values.values(), intervals, strict=True)])
    if line is not None:
        _as_line(plot.series[1])


def _interval(cell: Mapping[str, float]) -> str:
    return f"{100 * cell['ci_low']:.1f} to {100 * cell['ci_high']:.1f}"


def _as_in_words(share: float) -> float:
    """Rounded as `words.percent` does: a spreadsheet rounds 86.25 up, and two figures for one thing make a reader wonder."""
    return round(float(f"{100 * share:.1f}") / 100, 3)


def add_seconds(slide: Any, box: Box, seconds: Mapping[str, float], *, name: str) -> None:
    """Horizontal bars of seconds, the first on top."""
    data = CategoryChartData(number_format="#,##0")
    data.categories = list(seconds)
    data.add_series(name, [round(value, 1) for value in seconds.values()])
    chart = _chart(slide, XL_CHART_TYPE.BAR_CLUSTERED, box, data, told=f"{name} by stage")
    _value_axis(chart, number_format="#,##0", title=name)
    _first_on_top(chart, box, seconds)
    chart.plots[0].gap_width = 40
    _fill(chart.plots[0].series[0], ACCENT)
    _labels(chart.plots[0].series[0], "#,##0", color=INK, position=XL_LABEL_POSITION.OUTSIDE_END)


def add_stacked(slide: Any, box: Box, labels: Sequence[str], parts: Mapping[str, Sequence[float]]) -> None:
    """Horizontal bars of 100 %, one a label, cut into parts that show their counts; the first on top."""
    data = CategoryChartData(number_format="#,##0")
    data.categories = list(labels)
    for name, counts in parts.items():
        data.add_series(name, list(counts))
    chart = _chart(slide, XL_CHART_TYPE.BAR_STACKED_100, box, data, told=f"{' and '.join(parts)} by step")
    _value_axis(chart, number_format="0 %")
    _first_on_top(chart, box, labels)
    chart.plots[0].gap_width, chart.plots[0].overlap = 45, 100
    for series, color in zip(chart.plots[0].series, SERIES, strict=False):
        _fill(series, color)
        _labels(series, "#,##0", color=WHITE, position=XL_LABEL_POSITION.CENTER)
    _legend(chart)


def add_curves(slide: Any, box: Box, curves: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> None:
    """Lines over numbers, one a name; thinned to what can be seen."""
    data = XyChartData(number_format="0.00")
    for name, points in curves.items():
        series = data.add_series(name)
        for place, value in thinned(points):
            series.add_data_point(place, value)
    chart = _chart(slide, XL_CHART_TYPE.XY_SCATTER_LINES_NO_MARKERS, box, data, told=f"{y} by {x}: {', '.join(curves)}")
    _value_axis(chart, number_format="0.0", title=y)
    _category_axis(chart, title=x, number_format="0")
    for line, color in zip(chart.plots[0].series, SERIES * (1 + len(curves) // len(SERIES)), strict=False):
        line.smooth = False
        line.format.line.color.rgb = rgb(color)
        line.format.line.width = Pt(2)
    _legend(chart)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` of them at equal steps, the first and the last among them."""
    if len(points) <= POINTS:
        return list(points)
    return [points[round(index * (len(points) - 1) / (POINTS - 1))] for index in range(POINTS)]


def _chart(slide: Any, kind: Any, box: Box, data: Any, *, told: str) -> Any:
    frame = slide.shapes.add_chart(kind, *box.emu(), data)
    frame._element.nvGraphicFramePr.cNvPr.set("descr", told)  # for screen readers
    chart = frame.chart
    chart.font.size = Pt(SMALL)
    chart.font.color.rgb = rgb(INK)
    chart.has_title = chart.has_legend = False
    _category_axis(chart)
    return chart


def _category_axis(chart: Any, *, title: str = "", number_format: str = "") -> None:
    axis = chart.category_axis
    axis.has_major_gridlines = False
    axis.major_tick_mark = XL_TICK_MARK.NONE
    axis.tick_label_position = XL_TICK_LABEL_POSITION.LOW
    axis.format.line.color.rgb = rgb(RULE)
    _axis_text(axis, title=title, number_format=number_format)


def _value_axis(chart: Any, *, number_format: str, title: str = "") -> Any:
    axis = chart.value_axis
    axis.major_gridlines.format.line.color.rgb = rgb(RULE)
    axis.format.line.fill.background()
    axis.major_tick_mark = XL_TICK_MARK.NONE
    _axis_text(axis, title=title, number_format=number_format)
    return axis


def _axis_text(axis: Any, *, title: str, number_format: str) -> None:
    axis.tick_labels.font.size = Pt(SMALL)
    axis._element.find(qn("c:txPr")).find(qn("a:bodyPr")).set("rot", "0")  # labels wrap and never turn
    if number_format:
        axis.tick_labels.number_format, axis.tick_labels.number_format_is_linked = number_format, False
    if title:
        axis.has_title = True
        run = axis.axis_title.text_frame.paragraphs[0].add_run()
        run.text, run.font.size, run.font.bold = title, Pt(SMALL), False
        run.font.color.rgb = rgb(MUTED)


def _first_on_top(chart: Any, box: Box, labels: Iterable[str]) -> None:
    """Bars from the top down, with room on the left for their labels in one line, where programs would else fold them into each other."""
    left = min(0.45, max(len(label) for label in labels) * SMALL * EM / 72 / box.width + 0.02)
    layout = OxmlElement("c:layout")
    manual = _add(layout, "c:manualLayout")
    _add(manual, "c:layoutTarget", val="inner")
    for side in ("x", "y"):
        _add(manual, f"c:{side}Mode", val="edge")
    for side, share in (("x", left), ("y", 0.02), ("w", 0.97 - left), ("h", 0.76)):
        _add(manual, f"c:{side}", val=f"{share:.4f}")
    plot = chart._chartSpace.chart.plotArea
    for old in plot.findall(qn("c:layout")):
        plot.remove(old)
    plot.insert(0, layout)
    chart.category_axis.reverse_order = True
    chart.value_axis.tick_label_position = XL_TICK_LABEL_POSITION.HIGH  # which is below, now that the first is on top


def _fill(series: Any, color: str) -> None:
    series.format.fill.solid()
    series.format.fill.fore_color.rgb = rgb(color)


def _labels(series: Any, number_format: str, *, color: str, position: Any) -> None:
    labels = series.data_labels
    labels.show_value = True
    labels.number_format, labels.number_format_is_linked = number_format, False
    labels.position = position
    labels.font.size, labels.font.bold = Pt(SMALL), True
    labels.font.color.rgb = rgb(color)


def _legend(chart: Any) -> None:
    chart.has_legend = True
    chart.legend.position, chart.legend.include_in_layout = XL_LEGEND_POSITION.BOTTOM, False
    chart.legend.font.size = Pt(SMALL)


def _whiskers(series: Any, spans: Sequence[tuple[float, float]]) -> None:
    """Error bars (below, above) at each point."""
    bars = OxmlElement("c:errBars")
    for tag, value in (("c:errBarType", "both"), ("c:errValType", "cust"), ("c:noEndCap", "0")):
        _add(bars, tag, val=value)
    for tag, side in (("c:plus", 1), ("c:minus", 0)):
        numbers = _add(_add(bars, tag), "c:numLit")
        _add(numbers, "c:formatCode").text = "General"
        _add(numbers, "c:ptCount", val=str(len(spans)))
        for index, span in enumerate(spans):
            _add(_add(numbers, "c:pt", idx=str(index)), "c:v").text = f"{max(span[side], 0.0):.6f}"
    stroke = _add(_add(bars, "c:spPr"), "a:ln", w=str(int(Pt(1.5))))
    _add(_add(stroke, "a:solidFill"), "a:srgbClr", val=INK)
    series._element.find(qn("c:cat")).addprevious(bars)


def _as_line(series: Any) -> None:
    """Take a series out of the columns and draw it as a dotted line over the same axes."""
    element, columns = series._element, series._element.getparent()
    for odd in [*element.findall(qn("c:invertIfNegative")), *element.findall(qn("c:dLbls"))]:
        element.remove(odd)
    series.format.line.color.rgb = rgb(TONES["fail"])
    series.format.line.width, series.format.line.dash_style = Pt(2.25), MSO_LINE.SQUARE_DOT
    line = OxmlElement("c:lineChart")
    _add(line, "c:grouping", val="standard")
    _add(line, "c:varyColors", val="0")
    line.append(element)
    marker = OxmlElement("c:marker")
    _add(marker, "c:symbol", val="none")
    element.find(qn("c:cat")).addprevious(marker)
    _add(element, "c:smooth", val="0")
    _add(line, "c:marker", val="1")
    for axis in columns.findall(qn("c:axId")):
        _add(line, "c:axId", val=axis.get("val"))
    columns.addnext(line)


def _add(parent: Any, tag: str, **values: str) -> Any:
    child = OxmlElement(tag)
    for name, value in values.items():
        child.set(name, value)
    parent.append(child)
    return child
