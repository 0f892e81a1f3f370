"""Geometry of charts: numbers in, SVG coordinates out. The template draws them; no script, no chart library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.contracts.failures import DataError

Point = tuple[float, float]
# Drawn at about its own size on a phone (340 CSS pixels), so that 12-pixel axis text stays readable.
WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 36
_STEP, _LABEL = 42, 180  # a row of the share chart, and the room for its words on the left
_MOST_POINTS = 200  # a line this fine cannot be told from a finer one at this size


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis, in SVG units."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One series: polyline points in SVG units, and its colour number."""

    name: str
    points: str
    tone: int
    last: str


@dataclass(frozen=True)
class Chart:
    """A line chart, ready to draw. `sentence` says in words what it shows, for readers who cannot see it."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    zero: float | None  # height of y = 0 where it lies inside
    sentence: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def line_chart(title: str, series: Mapping[str, Sequence[Point]], *, x_label: str, y_label: str) -> Chart:
    """Lay out named series of (x, y). Raises DataError when a series is empty or holds a value that is not finite."""
    for name, values in series.items():
        if not values:
            raise DataError(f"{title}: the series {name!r} is empty, so there is nothing to draw; leave it out")
        if strange := [point for point in values if not all(map(math.isfinite, point))]:
            raise DataError(f"{title}: {name!r} has the value {strange[0][1]} at step {strange[0][0]}; training diverged there, lower the learning rate")
    drawn = {name: thin(values) for name, values in series.items()}
    everything = [point for values in drawn.values() for point in values]
    x_marks = nice_ticks(min(x for x, _ in everything), max(x for x, _ in everything), most=5)
    y_marks = nice_ticks(min(y for _, y in everything), max(y for _, y in everything), most=5)
    whole = all(float(x).is_integer() for x, _ in everything)  # steps and epochs have no halves
    x_low, x_high = min(x_marks[0], *(x for x, _ in everything)), max(x for x, _ in everything)

    def across(x: float) -> float:
        return round(LEFT + (x - x_low) / ((x_high - x_low) or 1.0) * (WIDTH - LEFT - RIGHT), 1)

    def down(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_marks[0]) / (y_marks[-1] - y_marks[0]) * (HEIGHT - TOP - BOTTOM), 1)

    return Chart(
        title=title,
        x_label=x_label,
        y_label=y_label,
        lines=tuple(
            Line(name, " ".join(f"{across(x)},{down(y)}" for x, y in values), tone, f"{series[name][-1][1]:.2f}")
            for tone, (name, values) in enumerate(drawn.items())
        ),
        x_ticks=tuple(Tick(across(x), f"{x:g}") for x in x_marks if x_low <= x <= x_high and (x.is_integer() or not whole)),
        y_ticks=tuple(Tick(down(y), f"{y:g}") for y in y_marks),
        zero=down(0.0) if y_marks[0] < 0 < y_marks[-1] else None,
        sentence=f"{title}. " + " ".join(f"{name}: {values[0][1]:.2f} at the start, {values[-1][1]:.2f} at the end." for name, values in series.items()),
    )


def nice_ticks(low: float, high: float, *, most: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high]; at least two, about `most`."""
    span = high - low if high - low > 1e-9 * max(abs(low), abs(high)) else abs(high) or 1.0  # less than that is rounding
    raw = span / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10 - math.floor(math.log10(step))) for index in range(first, max(last, first + 1) + 1)]


def thin(points: Sequence[Point]) -> list[Point]:
    """At most `_MOST_POINTS` points: means of equal runs of neighbours."""
    size = math.ceil(len(points) / _MOST_POINTS)
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]


@dataclass(frozen=True)
class ShareRow:
    """One step: its name, what is left by class, its mark in SVG units (`x` is None where nothing is left) and whether it lies outside the band."""

    step: str
    left: str
    x: float | None
    y: float
    outside: bool


@dataclass(frozen=True)
class ShareChart:
    """The share of "yes" from step to step, ready to draw: one row a step, a line through the marks, and the band that the share may not leave."""

    rows: tuple[ShareRow, ...]
    points: str
    band_left: float
    band_right: float
    source: float  # where the first step stands
    x_ticks: tuple[Tick, ...]
    sentence: str
    height: int
    bottom: int
    width: int = WIDTH


def class_share_chart(filters: Sequence[Mapping[str, Any]], *, max_shift: float, beside: Sequence[float] = ()) -> ShareChart | None:
    """Lay out the curate stage's `filters` (step, yes, no, yes_share): the band is the first step's share of yes plus and minus `max_shift`.

    The axis shows only the shares that occur, because a shift of a few points is what matters; charts that stand `beside` one another have one axis when
    each is given the shares of all. None where nothing was asked.
    """
    if not filters or not filters[0]["yes"] + filters[0]["no"]:
        return None
    source = filters[0]["yes_share"]
    shares = [*beside, *(each["yes_share"] for each in filters if each["yes"] + each["no"])]
    marks = nice_ticks(100 * min(*shares, source - max_shift), 100 * max(*shares, source + max_shift), most=4)

    def across(share: float) -> float:
        return round(_LABEL + (100 * share - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - RIGHT - _LABEL), 1)

    rows = tuple(
        ShareRow(
            step=each["step"],
            left=f"{each['yes']:,.0f} yes, {each['no']:,.0f} no: {100 * each['yes_share']:.1f} %",
            x=across(each["yes_share"]) if each["yes"] + each["no"] else None,
            y=_STEP * number + _STEP // 2,
            outside=abs(each["yes_share"] - source) > max_shift + 1e-9,
        )
        for number, each in enumerate(filters)
    )
    return ShareChart(
        rows=rows,
        points=" ".join(f"{row.x},{row.y}" for row in rows if row.x is not None),
        band_left=across(source - max_shift),
        band_right=across(source + max_shift),
        source=across(source),
        x_ticks=tuple(Tick(across(mark / 100), f"{mark:g}") for mark in marks),
        sentence="Share of yes. " + " ".join(f"{row.step}: {row.left}." for row in rows) + f" {100 * max_shift:g} points of change are allowed.",
        height=_STEP * len(rows) + 34,
        bottom=_STEP * len(rows) + 4,
    )
