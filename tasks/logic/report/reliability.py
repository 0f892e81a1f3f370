"""Reliability curves: how often yes is right where a model says that it is so sure of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.logic.calibration import Bin
from tasks.logic.report import words

SIZE = 220
LEFT, RIGHT, TOP, BOTTOM = 48, 24, 10, 36


@dataclass(frozen=True)
class Dot:
    """One bin: its place, a radius that grows with the answers in it, and what it says in words."""

    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True)
class ReliabilityChart:
    """One model's curve, ready to draw; on the diagonal stated and observed are the same."""

    title: str
    dots: tuple[Dot, ...]
    points: str
    ticks: tuple[tuple[float, float, str], ...]  # along x, along y, label
    sentence: str
    size: int = SIZE
    left: int = LEFT
    right: int = SIZE - RIGHT
    top: int = TOP
    bottom: int = SIZE - BOTTOM


def reliability_charts(bins: Mapping[str, Sequence[Bin]]) -> list[ReliabilityChart]:
    """One chart a model that has margins."""
    return [_chart(model, found) for model, found in bins.items() if found]


def _chart(model: str, bins: Sequence[Bin]) -> ReliabilityChart:
    most = max(each.n for each in bins)
    dots = tuple(
        Dot(_across(each.stated), _down(each.observed), round(2.5 + 5 * (each.n / most) ** 0.5, 1), f"{_told(each)}: {each.n} answers") for each in bins
    )
    return ReliabilityChart(
        title=words.label(model),
        dots=dots,
        points=" ".join(f"{dot.x},{dot.y}" for dot in dots),
        ticks=tuple((_across(share), _down(share), f"{100 * share:.0f} %") for share in (0.0, 0.5, 1.0)),
        sentence=f"{words.label(model)}, direct answers. " + " ".join(f"{_told(each)} ({each.n} answers)." for each in bins),
    )


def _told(each: Bin) -> str:
    return f"says {words.percent(each.stated)} yes, {words.percent(each.observed)} are"


def _across(share: float) -> float:
    return round(LEFT + share * (SIZE - LEFT - RIGHT), 1)


def _down(share: float) -> float:
    return round(SIZE - BOTTOM - share * (SIZE - TOP - BOTTOM), 1)
