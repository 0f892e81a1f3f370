"""The two classes as streams through curation: what each step drops leaves the stream, what it brings back flows in again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

WIDTH = 340
_MIDDLE, _MOST = WIDTH / 2, 128.0  # where the classes meet, and how wide a stream may be
_GAP = 1.5  # half of what keeps them apart
_BAR, _HEAD = 9, 40  # height of a station's bar, and room for the words above it
_BRANCH, _SLANT = 20, 17  # how far a branch falls, and how far it leans outwards
_STILL, _MOVING = 12, 40  # between stations where nothing changes, and where something does
_WEIGHTED = ", weighted"  # steps that weigh questions move none


@dataclass(frozen=True)
class Shape:
    """A polygon of one class: `kind` is bar, stream (goes on), lost (leaves) or back (flows in)."""

    kind: str
    side: str  # yes | no
    points: str


@dataclass(frozen=True)
class Note:
    """A count beside a branch."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Station:
    """One step of curation: its name, what is left, and where its words stand."""

    step: str
    left: str
    y: float


@dataclass(frozen=True)
class FlowDiagram:
    """Both classes from the first step to the last, ready to draw; `sentence` says in words what it shows."""

    stations: tuple[Station, ...]
    shapes: tuple[Shape, ...]
    notes: tuple[Note, ...]
    sentence: str
    height: float
    width: int = WIDTH
    middle: float = _MIDDLE


def flow_diagram(steps: Sequence[Mapping[str, Any]]) -> FlowDiagram | None:
    """Lay out the curate stage's steps (step, yes, no): "yes" grows to the left of the middle, "no" to the right. None where nothing was asked.

    Steps that only weigh questions are left out: they move none. A step may bring questions back (reasoning written knowing the answer), but a stream never
    holds more than was asked about; where it does, because questions are repeated, it is drawn to that scale.
    """
    moved = [step for step in steps if not step["step"].endswith(_WEIGHTED)]
    most = max((step[side] for step in moved for side in ("yes", "no")), default=0)
    if not most:
        return None
    scale = _MOST / most
    tops = [_HEAD]
    for before, after in pairwise(moved):
        tops.append(tops[-1] + _BAR + _HEAD + (_MOVING if _differ(before, after) else _STILL))
    shapes: list[Shape] = []
    notes: list[Note] = []
    for number, (step, top) in enumerate(zip(moved, tops, strict=True)):
        shapes += [_slab("bar", side, 0, step[side] * scale, top, top + _BAR) for side in ("yes", "no") if step[side]]
        if number:
            made, said = _between(moved[number - 1], step, tops[number - 1] + _BAR, top, scale)
            shapes, notes = shapes + made, notes + said
    return FlowDiagram(
        stations=tuple(Station(step["step"], _left(step), top) for step, top in zip(moved, tops, strict=True)),
        shapes=tuple(sorted(shapes, key=lambda each: each.kind == "bar")),  # bars on top
        notes=tuple(notes),
        sentence="Questions by class. " + " ".join(f"{step['step']}: {_left(step)}." for step in moved),
        height=tops[-1] + _BAR + 8,
    )


def _between(before: Mapping[str, Any], after: Mapping[str, Any], top: float, bottom: float, scale: float) -> tuple[list[Shape], list[Note]]:
    """What goes on, what leaves and what comes back between two stations."""
    shapes: list[Shape] = []
    notes: list[Note] = []
    for side in ("yes", "no"):
        kept, change = min(before[side], after[side]) * scale, after[side] - before[side]
        if kept:
            shapes.append(_slab("stream", side, 0, kept, top, bottom))
        if change < 0:
            shapes.append(_slab("lost", side, kept, before[side] * scale, top, top + _BRANCH, lean=_SLANT))
            notes.append(Note(f"−{_count(-change)}", _at(side, (kept + before[side] * scale) / 2 + _SLANT), top + _BRANCH + 12))
        if change > 0:
            shapes.append(_slab("back", side, kept + _SLANT, after[side] * scale + _SLANT, bottom - _BRANCH, bottom, lean=-_SLANT))
            notes.append(Note(f"+{_count(change)}", _at(side, (kept + after[side] * scale) / 2 + _SLANT), bottom - _BRANCH - 4))
    return shapes, notes


def _slab(kind: str, side: str, inner: float, outer: float, top: float, bottom: float, *, lean: float = 0.0) -> Shape:
    """A strip between two distances from the middle, its lower edge shifted outwards by `lean`."""
    corners = ((inner, top), (outer, top), (outer + lean, bottom), (inner + lean, bottom))
    return Shape(kind, side, " ".join(f"{_at(side, out)},{round(y, 1)}" for out, y in corners))


def _at(side: str, out: float) -> float:
    """Where a distance from the middle lies."""
    return round(_MIDDLE + (_GAP + out) * (-1 if side == "yes" else 1), 1)


def _differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return bool((before["yes"], before["no"]) != (after["yes"], after["no"]))


def _left(step: Mapping[str, Any]) -> str:
    return f"{_count(step['yes'])} yes, {_count(step['no'])} no"


def _count(value: float) -> str:
    return f"{value:,.0f}"
