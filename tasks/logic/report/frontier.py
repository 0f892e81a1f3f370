"""Accuracy against cost: one mark a model and arm, and the frontier of those that nothing cheaper matches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tasks.logic.report import words
from tasks.logic.report.charts import Tick, nice_ticks

WIDTH, HEIGHT = 340, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 14, 38
_APART = 9  # between marks that cost exactly the same
_INSIDE = 20  # between the frame and the outermost marks
_DIGIT, _LINE = 9, 12  # room that a number takes
_MODELS = ("zero_shot", "track_a", "track_a_matched", "track_b", "aligned")  # in the order of their colours


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One model under one arm: what it costs a question, and how often it is right."""

    model: str
    arm: str
    cost: float
    accuracy: float
    low: float
    high: float

    @property
    def name(self) -> str:
        """In words."""
        return f"{words.label(self.model)}: {words.arm_label(self.arm)}"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A drawn point in SVG units; `number` is its place on the frontier, 0 = beaten by something that costs no more."""

    shape: str  # the arm
    tone: int  # the model
    x: float
    y: float
    low: float
    high: float
    number: int
    number_x: float
    number_y: float
    title: str


@dataclass(frozen=True, kw_only=True)
class FrontierChart:
    """A chart ready to draw. `steps` is the frontier as a staircase, `numbered` its points in words."""

    title: str
    x_label: str
    marks: tuple[Mark, ...]
    steps: str
    numbered: tuple[str, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    sentence: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a colour or a shape stands for."""

    models: tuple[tuple[int, str], ...]
    arms: tuple[tuple[str, str], ...]


def answered(summary: Mapping[str, Any], cost: str, *, least: float = 0.0) -> list[Answered]:
    """Every model and arm of a summary whose `cost` was measured; a cost below `least` counts as that much. Controls are left out."""
    measured = [
        (name, arm, cell, max(summary["costs"][name][arm][cost], least))
        for name in _MODELS
        for arm, cell in summary["models"].get(name, {"arms": {}})["arms"].items()
        if arm in summary["costs"].get(name, {})
    ]
    return [
        Answered(model=name, arm=arm, cost=paid, accuracy=cell["accuracy"], low=cell["ci_low"], high=cell["ci_high"])
        for name, arm, cell, paid in measured
        if paid > 0
    ]


def efficient(points: Sequence[Answered]) -> list[Answered]:
    """The frontier, cheapest first: every point that is right more often than all that cost no more."""
    found: list[Answered] = []
    for point in sorted(points, key=lambda each: (each.cost, -each.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


def frontier_chart(title: str, points: Sequence[Answered], *, x_label: str, unit: tuple[str, str]) -> FrontierChart:
    """Lay out points on a logarithmic axis of cost (above 0) and an axis of accuracy. `unit` follows a cost in words: of one, of several."""
    best = efficient(points)
    marks = log_ticks(min(each.cost for each in points), max(each.cost for each in points))
    levels = nice_ticks(100 * min(each.low for each in points), 100 * max(each.high for each in points), most=6)
    span = math.log(marks[-1] / marks[0])

    def across(cost: float) -> float:
        return round(LEFT + _INSIDE + math.log(cost / marks[0]) / span * (WIDTH - LEFT - RIGHT - 2 * _INSIDE), 1)

    def down(share: float) -> float:
        return round(HEIGHT - BOTTOM - (100 * share - levels[0]) / (levels[-1] - levels[0]) * (HEIGHT - TOP - BOTTOM), 1)

    places = _side_by_side([across(each.cost) for each in points])
    numbers = _labels({best.index(each): (place, down(each.accuracy)) for place, each in zip(places, points, strict=True) if each in best})
    told = {(each.model, each.arm): _told(each, unit) for each in points}
    numbered = tuple(told[each.model, each.arm] for each in best)
    drawn = [
        Mark(
            shape=each.arm,
            tone=_MODELS.index(each.model),
            x=place,
            y=down(each.accuracy),
            low=down(each.low),
            high=down(each.high),
            number=best.index(each) + 1 if each in best else 0,
            number_x=numbers[best.index(each)][0] if each in best else 0.0,
            number_y=numbers[best.index(each)][1] if each in best else 0.0,
            title=told[each.model, each.arm],
        )
        for place, each in zip(places, points, strict=True)
    ]
    steps = [(across(each.cost), down(each.accuracy)) for each in best]
    corners = [corner for (_, y), (x, after) in pairwise(steps) for corner in ((x, y), (x, after))]
    end = (float(WIDTH - RIGHT), steps[-1][1])
    return FrontierChart(
        title=title,
        x_label=x_label,
        marks=tuple(sorted(drawn, key=lambda each: each.number > 0)),  # the frontier on top
        steps=" ".join(f"{x},{y}" for x, y in [steps[0], *corners, end]),
        numbered=numbered,
        x_ticks=tuple(Tick(across(value), f"{value:,g}") for value in marks),
        y_ticks=tuple(Tick(down(value / 100), f"{value:g} %") for value in levels),
        sentence=f"{title}. The frontier: {'; '.join(numbered)}.",
    )


def _told(each: Answered, unit: tuple[str, str]) -> str:
    return f"{each.name}, {words.percent(each.accuracy)} at {words.quantity(each.cost)} {unit[each.cost != 1]}"


def key_of(points: Sequence[Answered]) -> Key:
    """The colours and shapes that these points use, in words."""
    models, arms = {each.model for each in points}, {each.arm for each in points}
    return Key(
        models=tuple((tone, words.label(name)) for tone, name in enumerate(_MODELS) if name in models),
        arms=tuple((name, label) for name, label in words.ARMS.items() if name in arms),
    )


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that enclose [low, high], powers of ten alone where these would be more than six; at least two."""
    for factors in ((1, 2, 5), (1,)):
        ladder = [factor * 10.0**power for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2) for factor in factors]
        first = max(index for index, value in enumerate(ladder) if value <= low * (1 + 1e-9))
        last = min(index for index, value in enumerate(ladder) if value >= high * (1 - 1e-9))
        ticks = ladder[first : max(last, first + 1) + 1]
        if len(ticks) <= 6:
            break
    return ticks


def _labels(marks: Mapping[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    """Where the numbers of marks end, up and left of them: nothing else lies there, and each goes on up until it is clear of those before it."""
    placed: dict[int, tuple[float, float]] = {}
    for number, (x, y) in sorted(marks.items()):
        at = (x - 6, y - 5)
        while any(abs(at[0] - other) < 2 * _DIGIT and abs(at[1] - height) < _LINE for other, height in placed.values()):
            at = (at[0], round(at[1] - 1, 1))
        placed[number] = (round(at[0], 1), round(at[1], 1))
    return placed


def _side_by_side(places: Sequence[float]) -> list[float]:
    """The same places, those that are equal spread around theirs, inside the frame."""
    groups: dict[float, list[int]] = defaultdict(list)
    for index, place in enumerate(places):
        groups[place].append(index)
    spread = list(places)
    for place, members in groups.items():
        width = _APART * (len(members) - 1)
        start = min(max(place - width / 2, LEFT), WIDTH - RIGHT - width)
        for number, index in enumerate(members):
            spread[index] = round(start + _APART * number, 1)
    return spread
