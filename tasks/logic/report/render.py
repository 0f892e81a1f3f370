"""The report: values in, one self-contained HTML page out. No script, no request to anywhere, readable without colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.logic.report import words
from tasks.logic.report.charts import Chart, class_share_chart, line_chart
from tasks.logic.report.frontier import FrontierChart, answered, frontier_chart, key_of
from tasks.logic.report.view import ReportView

TOKENS, MILLISECONDS = "tokens_per_question", "ms_per_question"
CHIPS = {"pass": "✓ pass", "fail": "✗ fail", "underpowered": "? underpowered", "warn": "! look", "quiet": "note"}


def render_report(view: ReportView) -> str:
    """The page as text. Everything from outside is escaped. Raises DataError when a training curve is empty or not finite."""
    summary = view.summary
    headline, *others = words.statements(summary) or [words.Statement("underpowered", "Nothing was compared", "This run scored no pair of models.")]
    return (
        environment()
        .get_template("report.html")
        .render(
            view=view,
            summary=summary,
            headline=headline,
            others=others,
            warnings=[*words.warnings(summary), *view.notes],
            charts=_charts(view),
            shares=class_share_chart(summary["curation"]["steps"], max_shift=view.max_shift),
            frontiers=_frontiers(summary),
            key=key_of(answered(summary, TOKENS, least=1.0)),
            unparsed=words.unparsed_counts(summary),
            usage=_usage(summary["teacher_usage"]),
            chips=CHIPS,
        )
    )


def environment() -> Environment:
    """Where pages come from: templates of this package, escaped, with the words that they are made of; a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("tasks.logic.report", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "label": words.label,
        "comparison": words.comparison_label,
        "arm": words.arm_label,
        "percent": words.percent,
        "share": lambda value: "–" if value is None else words.percent(value),
        "quantity": words.quantity,
        "decimal": words.decimal,
        "points": words.points,
        "p_text": words.p_text,
        "duration": words.duration,
    }
    return environment


def _charts(view: ReportView) -> list[Chart]:
    charts = [
        line_chart(f"Training loss: {words.label(curve.model)}", {"loss": curve.points}, x_label="optimiser step", y_label="nats per token")
        for curve in view.curves
    ]
    if view.margins:
        series = {
            "chosen (a)": [(float(point.step), point.a) for point in view.margins],
            "rejected (b)": [(float(point.step), point.b) for point in view.margins],
            "gap (d = a − b)": [(float(point.step), point.d) for point in view.margins],
        }
        charts.append(line_chart("Preference training: log-ratio to the reference", series, x_label="optimiser step", y_label="nats"))
    return charts


def _frontiers(summary: Mapping[str, Any]) -> list[FrontierChart]:
    """Accuracy against tokens and against milliseconds; nothing where no cost was measured."""
    by_tokens, by_time = answered(summary, TOKENS, least=1.0), answered(summary, MILLISECONDS)
    charts = [frontier_chart("Accuracy against tokens", by_tokens, x_label="tokens a question, at least 1", unit=("token", "tokens"))] if by_tokens else []
    return charts + ([frontier_chart("Accuracy against time", by_time, x_label="milliseconds a question", unit=("ms", "ms"))] if by_time else [])


def _usage(usage: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {
        "calls": "Calls", "cached": "From the ledger", "retries": "Retries", "reasks": "Asked again", "failed": "Failed",
        "tokens_in": "Tokens in", "tokens_out": "Tokens out",
    }  # fmt: skip
    return [(name, f"{usage[key]:,}") for key, name in names.items()] + [("US dollars", f"{usage['usd']:.2f}")]
