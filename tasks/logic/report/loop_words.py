"""A self-guided loop in words: its accepted student, whether it goes on, and each round's figures as they are shown everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.contracts.loops import round_label
from tasks.contracts.rounds import Round
from tasks.logic.report import words
from tasks.logic.report.audit_view import Remark
from tasks.logic.scores import Comparison, Finding
from tasks.logic.statistics import ALPHA

_NONE = "–"


def figure(value: float, decimals: int, *, scale: float = 1.0, unit: str = "", signed: bool = False) -> str:
    """0.0123 -> "0.012", with a real minus sign; a dash where nothing was measured."""
    if math.isnan(value):
        return _NONE
    text = "∞" if math.isinf(value) else f"{abs(scale * value):.{decimals}f}"
    zero = not text.strip("0.")
    sign = "−" if value < 0 and not zero else "+" if signed and not zero else ""
    return f"{sign}{text}{unit}"


def loop_rows(rounds: Sequence[Round]) -> list[dict[str, object]]:
    """One row a round in the order given, in words fit to show: for tables of a page, of an orchestrator's UI and of a terminal."""
    return [_row(each) for each in rounds]


def _row(each: Round) -> dict[str, object]:
    first = each.number == 0  # it has no parent to be beside
    return {
        "round": each.number,
        "verdict": each.verdict,
        "right": figure(each.accuracy, 1, scale=100, unit=" %"),
        "gain": _NONE if first else figure(each.gain, 1, scale=100, signed=True),
        "p": _NONE if first or math.isnan(each.gain_p) else words.p_text(each.gain_p),
        "yes": figure(each.yes_rate, 1, scale=100, unit=" %"),
        "unparsed": figure(each.unparsed, 1, scale=100, unit=" %"),
        "tokens": figure(each.length, 1),
        "chosen": figure(each.chosen_log_ratio, 3, signed=True),
        "hardest": figure(each.hard_accuracy, 1, scale=100, unit=" %"),
        "drift": figure(each.drift, 3),
        "pairs": _NONE if first else f"{each.pairs:,} ({each.replayed:,} replayed)" if each.replayed else f"{each.pairs:,}",
        "time": words.duration(60 * each.minutes),
        "usd": f"{each.dollars:.2f}",
        "began": each.started_at[:16].replace("T", " "),
        "parent": each.parent,
        "student": each.student,
        "why": "; ".join(each.reasons),
    }


def headline(rounds: Sequence[Round], *, accepted: str, over_start: Comparison | None) -> tuple[str, Remark]:
    """Which student is the accepted one, and how it stands to the start. `over_start` compares the two on dev, None where they are one or it was not made."""
    if not rounds:
        return "The loop has not made a round yet", Remark("quiet", "Its first round starts from the student that the recipe names.")
    start, kept = rounds[0], next((each for each in rounds if round_label(each.number) == accepted), None)
    if kept is None:
        return f"The accepted student is {accepted}", Remark("quiet", "No round of this loop made it: somebody promoted it.")
    if kept.number == 0:
        tried = len(rounds) - 1
        made = f"{_rounds(tried)} came after it." if tried else "No round has been made yet."
        return "The accepted student is the start", Remark("quiet", f"{figure(start.accuracy, 1, scale=100, unit=' %')} of dev right. {made}")
    difference = round(over_start.difference if over_start else kept.accuracy - start.accuracy, 6)
    stands = f"{words.points(difference)} points {'over' if difference > 0 else 'against'} the start" if difference else "as often right as the start"
    both = f"{words.percent(kept.accuracy)} of dev right against the start's {words.percent(start.accuracy)}: {words.points(difference)} points"
    return f"The accepted student is round {kept.number}'s: {stands}", _evidence(both, kept, over_start)


def _evidence(both: str, kept: Round, over_start: Comparison | None) -> Remark:
    if over_start:
        told = f"{both} (95 % CI {words.points(over_start.ci_low)} to {words.points(over_start.ci_high)}, {words.p_text(over_start.p_value, name='p')})"
        if over_start.verdict == Finding.UNDERPOWERED:
            told += f"; {over_start.n:,} questions would show a difference of {words.points(over_start.minimal_detectable, signed=False)} points or more"
        return Remark(over_start.verdict, f"{told}.")
    if kept.parent == "start":
        sure = "pass" if kept.gain > 0 and kept.gain_p < ALPHA else "underpowered"
        return Remark(sure, f"{both} ({words.p_text(kept.gain_p, name='p')}).")
    return Remark("quiet", f"{both}; no interval was made.")


def status(stopped: str) -> Remark:
    """Whether the loop goes on; `stopped` says why not, "" where it does."""
    if stopped:
        return Remark("warn", f"The loop has stopped: {stopped}.")
    return Remark("pass", "The loop goes on: the next round is made when its schedule, or a person, fires it.")


def _rounds(count: int) -> str:
    return "One round" if count == 1 else f"{count} rounds"
