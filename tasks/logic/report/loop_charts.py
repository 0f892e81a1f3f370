"""Charts of a self-guided loop by round: a line through the students that were accepted, crosses where one was reverted. Geometry only; the template draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.contracts.loops import round_label
from tasks.contracts.recipes import Gate
from tasks.contracts.rounds import Round
from tasks.logic.report.charts import Tick, nice_ticks

LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 36
_INSIDE = 8  # between the frame and the outermost marks
LARGE, SMALL = (340, 200), (250, 160)  # about their own size on a screen, so that axis text stays readable


@dataclass(frozen=True)
class RoundMark:
    """One round's value in SVG units; `kept` is false where its student was reverted."""

    x: float
    y: float
    kept: bool
    title: str


@dataclass(frozen=True)
class RoundLine:
    """One figure over the rounds; `points` join the students that were kept, `last` is the latest of them, "" where there is none."""

    name: str
    tone: int
    points: str
    marks: tuple[RoundMark, ...]
    last: str


@dataclass(frozen=True)
class RoundChart:
    """A chart ready to draw. `band` is (top, height) of what is allowed, `bound` the height of a limit, `sentence` what it shows for those who cannot see."""

    title: str
    unit: str
    shows: str
    lines: tuple[RoundLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    band: tuple[float, float] | None
    bound: float | None
    sentence: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


def round_chart(
    title: str,
    rounds: Sequence[Round],
    series: Mapping[str, Sequence[float]],
    *,
    unit: str,
    shows: str,
    size: tuple[int, int] = LARGE,
    band: tuple[float, float] | None = None,
    bound: float | None = None,
) -> RoundChart | None:
    """Lay out one value a round for each name; what is not finite is left out. None where nothing is left."""
    known = [value for values in series.values() for value in values if math.isfinite(value)]
    if not known:
        return None
    width, height = size
    inside = [*known, *(band or ()), *([] if bound is None else [bound])]
    marks = nice_ticks(*_apart(min(inside), max(inside)), most=4)
    last_round = max(1, *(each.number for each in rounds))

    def across(number: int) -> float:
        return round(LEFT + _INSIDE + number / last_round * (width - LEFT - RIGHT - 2 * _INSIDE), 1)

    def down(value: float) -> float:
        return round(height - BOTTOM - (value - marks[0]) / (marks[-1] - marks[0]) * (height - TOP - BOTTOM), 1)

    lines = []
    for tone, (name, values) in enumerate(series.items()):
        found = [(each, value) for each, value in zip(rounds, values, strict=True) if math.isfinite(value)]
        placed = tuple(
            RoundMark(across(each.number), down(value), each.verdict != "reverted", f"{name or title}, {_told(each, value)}") for each, value in found
        )
        kept = [value for each, value in found if each.verdict != "reverted"]
        points = " ".join(f"{mark.x},{mark.y}" for mark in placed if mark.kept)
        lines.append(RoundLine(name=name, tone=tone, points=points, marks=placed, last=shown(kept[-1]) if kept else ""))
    return RoundChart(
        title=title,
        unit=unit,
        shows=shows,
        lines=tuple(lines),
        x_ticks=tuple(Tick(across(int(number)), f"{number:g}") for number in nice_ticks(0, last_round, most=6) if number <= last_round and number.is_integer()),
        y_ticks=tuple(Tick(down(value), shown(value)) for value in marks),
        band=(down(band[1]), round(down(band[0]) - down(band[1]), 1)) if band else None,
        bound=None if bound is None else down(bound),
        sentence=_sentence(title, unit, rounds, series),
        width=width,
        height=height,
        left=LEFT,
        right=width - RIGHT,
        top=TOP,
        bottom=height - BOTTOM,
    )


def dev_charts(rounds: Sequence[Round], *, gold_yes: float, recipe: Gate) -> list[RoundChart]:
    """What the gate looks at, with its bounds."""
    start = next((each.length for each in rounds if each.number == 0 and math.isfinite(each.length)), None)
    change, shift = recipe.max_length_change, 100 * recipe.max_yes_shift
    charts = [
        round_chart(
            "Accuracy",
            rounds,
            {"": [100 * each.accuracy for each in rounds]},
            unit="% of dev right",
            shows="Dev chose these students, so it flatters them; the test split is read once, at the end.",
        ),
        round_chart(
            "Hardest third",
            rounds,
            {"": [100 * each.hard_accuracy for each in rounds]},
            unit="% right of dev's hardest for the start",
            shows="It falls where a loop learns easy questions at the cost of hard ones.",
        ),
        round_chart(
            "Says yes",
            rounds,
            {"": [100 * each.yes_rate for each in rounds]},
            unit="% of dev answers",
            shows=f"Shaded: up to {shift:g} points from gold's {100 * gold_yes:.1f} %.",
            band=(100 * gold_yes - shift, 100 * gold_yes + shift),
        ),
        round_chart(
            "Length",
            rounds,
            {"": [each.length for each in rounds]},
            unit="tokens of a dev answer, mean",
            shows=f"Shaded: up to {100 * change:g} % from the start's.",
            band=(start * (1 - change), start * (1 + change)) if start else None,
        ),
        round_chart(
            "Drift",
            rounds,
            {"": [each.drift for each in rounds]},
            unit="nats a token from Track B, on own answers",
            shows=f"Dashed: {recipe.max_drift:g}, the most that is allowed over all rounds.",
            bound=recipe.max_drift,
        ),
        round_chart(
            "Chosen log-ratio",
            rounds,
            {"": [each.chosen_log_ratio for each in rounds]},
            unit="nats a token, against the parent",
            shows=f"Below the dashed line ({shown(recipe.min_chosen_log_ratio)}) the texts that a student was to prefer got rarer.",
            bound=recipe.min_chosen_log_ratio,
        ),
    ]
    return [chart for chart in charts if chart]


# Title, unit, {name: field of Tails}, what it shows.
_TAILS: tuple[tuple[str, str, Mapping[str, str], str], ...] = (
    ("Difficulty, divergence", "bits, Jensen-Shannon", {"": "divergence"}, "0: chosen texts are spread over easy and hard questions as the questions are."),
    ("Hard retention", "share, 1 = none lost", {"": "hard_retention"}, "Under 1, the hardest questions are rarer among chosen texts than among questions."),
    ("Coverage", "share of the questions", {"": "coverage"}, "Questions with at least one right and valid sample."),
    ("Inequality", "Gini coefficient", {"": "inequality"}, "0: every question has as many right and valid samples; near 1: a few have them all."),
    (
        "Length of chosen texts",
        "tokens",
        {"P90": "length_p90", "P50": "length_p50", "P10": "length_p10"},
        "The ends close in where long or short texts vanish.",
    ),
    ("Perplexity", "under Track B", {"P95": "perplexity_p95", "P50": "perplexity_p50"}, "It falls where only texts that were likely anyway are left."),
    ("Unlikely texts", "share", {"": "unlikely"}, "Chosen texts above the 90th percentile of the first alignment's, which has 0.1."),
    ("Distinct word pairs", "share", {"": "distinct_2"}, "It falls where texts repeat one another's words."),
)


def tail_charts(rounds: Sequence[Round]) -> list[RoundChart]:
    """Tail metrics as small multiples; what no round has is left out."""
    found = (
        round_chart(title, rounds, {name: [getattr(each, field) for each in rounds] for name, field in fields.items()}, unit=unit, shows=shows, size=SMALL)
        for title, unit, fields, shows in _TAILS
    )
    return [chart for chart in found if chart]


def _apart(low: float, high: float) -> tuple[float, float]:
    """Ends at least a hundredth of their size apart: a closer axis would draw rounding as news, under labels that three digits cannot tell apart."""
    missing = max(0.0, max(abs(low), abs(high)) / 100 - (high - low))
    return low - missing / 2, high + missing / 2


def shown(value: float) -> str:
    """Three digits with a real minus sign: 61.97 -> "62", -0.0123 -> "−0.0123"."""
    return f"{value:.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:,.0f}".replace("-", "−")


def _told(each: Round, value: float) -> str:
    return f"{round_label(each.number)}: {shown(value)}{' (reverted)' if each.verdict == 'reverted' else ''}"


def _sentence(title: str, unit: str, rounds: Sequence[Round], series: Mapping[str, Sequence[float]]) -> str:
    parts = [
        f"{name + ': ' if name else ''}{'; '.join(_told(each, value) for each, value in zip(rounds, values, strict=True) if math.isfinite(value))}."
        for name, values in series.items()
    ]
    return f"{title}, {unit}. {' '.join(parts)}"
