"""The end of a run on a terminal: its results and comparisons as the report names them, right at any width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from tasks.contracts.outcomes import Report
from tasks.report import read_summary
from tasks.runs import comparison_rows, result_rows

_WIDE, _ROOMY = 100, 72  # columns from which every column fits, and from which all but the rarest do


def results(report: Report, *, width: int) -> RenderableType:
    """What a finished run comes to, for a terminal of `width` columns, to be printed uncropped; what has no room is in the report."""
    summary = read_summary(report)
    reused = sum(line["cached"] for line in summary["stages"])
    foot = "everything was stored already; this is the report of then" if report.repeated else f"{reused} of {len(summary['stages'])} stages reused"
    where = Text(f"Report: {report.html}", no_wrap=True, overflow="ignore")  # in one piece, to be copied; printed uncropped
    return Group(*result_tables(summary, width=width), *(Text(said) for said in summary["remarks"]), Text(foot), where)


def result_tables(summary: Mapping[str, Any], *, width: int) -> list[RenderableType]:
    """The table of models, then that of comparisons where there are any."""
    shown = {"model", "n", "right", "interval", "yes"} | ({"arm"} if width >= _ROOMY else set()) | ({"unparsed"} if width >= _WIDE else set())
    title = f"{summary['profile']} on {summary['split']}; the commoner answer: {100 * summary['majority_accuracy']:.1f} %"
    heads = {"model": "model", "arm": "arm", "n": "n", "right": "right", "interval": "95 % CI", "yes": "says yes", "unparsed": "no verdict"}
    models = _table(title, {name: head for name, head in heads.items() if name in shown}, [row._asdict() for row in result_rows(summary)])
    heads = {"comparison": "comparison", "n": "n", "difference": "points", "interval": "95 % CI", "p": "p (Holm)", "verdict": "verdict"}
    heads = {name: head for name, head in heads.items() if width >= _ROOMY or name not in ("n", "interval")}
    compared = [row._asdict() for row in comparison_rows(summary)]
    return [models, *([_table("differences in points", heads, compared)] if compared else [])]


def _table(title: str, heads: Mapping[str, str], rows: list[dict[str, str]]) -> Table:
    """The first column is folded between words; figures never are."""
    first, *rest = heads.items()
    table = Table(Column(first[1], overflow="fold", min_width=14), *(Column(head, no_wrap=name not in ("arm", "yes")) for name, head in rest), title=title)
    for row in rows:
        table.add_row(*(row[name] for name in heads))
    return table
