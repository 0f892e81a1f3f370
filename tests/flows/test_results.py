"""The tables at the end of a run, at the widths that terminals have."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.results import result_tables
from tests.logic.report.sample_run import sample_summary


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_figures_and_verdicts_are_whole_at_any_width(width: int) -> None:
    summary = sample_summary(same_as={"aligned": "track_b"})
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None)
    for table in result_tables(summary, width=width):
        console.print(table)
    shown = out.getvalue()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    names = " ".join(row[0] for row in rows)
    for name in ("Untrained student", "Track A, as many steps as B", "Aligned, after preferences (= Track B)", "Track B against Track A"):
        assert name in names
    words = {cell for row in rows for cell in row[1:]}
    cell = summary["models"]["track_b"]["arms"]["reasoning"]
    assert {f"{100 * cell['accuracy']:.1f} %", f"{100 * cell['ci_low']:.1f} to {100 * cell['ci_high']:.1f}"} <= words
    assert {each["verdict"] for each in summary["comparisons"]} <= words
