"""The history of a self-guided loop as one self-contained HTML page in the look of the report, and as a Markdown table."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.contracts.loops import round_label
from tasks.contracts.recipes import Gate
from tasks.contracts.rounds import Round
from tasks.logic.report import words
from tasks.logic.report.loop_charts import dev_charts, tail_charts
from tasks.logic.report.loop_words import headline, loop_rows, status
from tasks.logic.report.render import CHIPS, environment
from tasks.logic.report.tables import markdown_table
from tasks.logic.scores import Comparison

_VERDICTS = {"start": ("quiet", "start"), "accepted": ("pass", "✓ accepted"), "reverted": ("fail", "✗ reverted")}


def render_loop(
    rounds: Sequence[Round],
    *,
    name: str,
    accepted: str,
    stopped: str,
    gold_yes: float,
    recipe: Gate,
    over_start: Comparison | None,
) -> str:
    """The page of the loop `name`. Everything from outside is escaped.

    `rounds` in order, the start as round 0. `accepted` names the student that the pointer holds: "start", "round 2", or a promoted run. `stopped` says why
    the loop ended, "" where it goes on. `gold_yes` is dev's share of yes, `recipe` the gate's bounds. `over_start` compares the accepted student with the
    start on dev (`scores.compare`), None where they are one or it was not made.
    """
    title, evidence = headline(rounds, accepted=accepted, over_start=over_start)
    return (
        environment()
        .get_template("loop.html")
        .render(
            name=name,
            title=title,
            evidence=evidence,
            status=status(stopped),
            stopped=stopped,
            lines=[(each, row, round_label(each.number) == accepted) for each, row in zip(rounds, loop_rows(rounds), strict=True)],
            tiles=_tiles(rounds),
            verdicts=_VERDICTS,
            dev_charts=dev_charts(rounds, gold_yes=gold_yes, recipe=recipe),
            tail_charts=tail_charts(rounds),
            chips=CHIPS,
        )
    )


def loop_markdown(rounds: Sequence[Round], *, stopped: str) -> str:
    """The table of rounds in Markdown, for an artifact of an orchestrator's UI. What comes from outside stands as plain text."""
    rows = loop_rows(rounds)
    columns = list(rows[0]) if rows else ["round", "verdict", "why"]
    intro = _plain(f"{_made(rounds)} {status(stopped).text}" if stopped else f"{_made(rounds)} The loop goes on.")
    return markdown_table(intro, columns, [[_plain(str(value)) for value in row.values()] for row in rows])


def _made(rounds: Sequence[Round]) -> str:
    accepted, reverted = (sum(each.verdict == verdict for each in rounds) for verdict in ("accepted", "reverted"))
    return f"Rounds accepted: {accepted}, reverted: {reverted}."


def _tiles(rounds: Sequence[Round]) -> list[tuple[str, str]]:
    counts = [(said, str(sum(each.verdict == verdict for each in rounds))) for said, verdict in (("Accepted", "accepted"), ("Reverted", "reverted"))]
    return [*counts, ("Time", words.duration(60 * sum(each.minutes for each in rounds))), ("US dollars", f"{sum(each.dollars for each in rounds):.2f}")]


def _plain(text: str) -> str:
    """Characters that Markdown or HTML would read as marks, escaped; the table escapes its own bars."""
    return re.sub(r"([\\`*_{}\[\]<>#~!&])", r"\\\1", text)
