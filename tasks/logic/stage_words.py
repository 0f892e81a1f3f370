"""What a stage says of itself in one line: in the terminal, in a file, in the log of its flow run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.logic.report.words import duration

_FIGURES = {"pairs": "{:,} pairs", "tokens": "{:,} tokens", "cut": "{:,} cut", "kept_epoch": "kept epoch {}", "steps": "{:,} steps", "damaged": "{:,} damaged"}


def key_figures(record: Mapping[str, Any]) -> str:
    """The figures of an artifact's record that a reader looks for: "24 rows, $0.12"."""
    summary = record["summary"]
    rows = [f"{record['rows']:,} rows"] if record.get("rows") else []
    known = [text.format(summary[name]) for name, text in _FIGURES.items() if isinstance(summary.get(name), int) and summary[name]]
    dollars = summary.get("usage", {}).get("usd", 0)
    return ", ".join(rows + known + [f"${dollars:,.2f}"] * bool(dollars))


def ended(label: str, *, reused: bool, seconds: float, figures: str) -> str:
    """ "draft train: finished in 12 s (24 rows)"."""
    said = f"reused, it took {duration(seconds)}" if reused else f"finished in {duration(seconds)}"
    return f"{label}: {said}" + f" ({figures})" * bool(figures)


def under_way(label: str, *, done: int, total: int, left: float | None, note: str) -> str:
    """ "draft train: 12/24, about 40 s left, 12 of 24 answered"."""
    parts = [f"{done}/{total}" if total else "", f"about {duration(round(max(left, 1)))} left" if left is not None else "", note]
    return f"{label}: {', '.join(filter(None, parts)) or 'under way'}"
