"""The report: values in, one self-contained HTML page out. One script of its own, no request to anywhere, readable without script and without colour."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.contracts.rows import Judgement
from tasks.logic.report import words
from tasks.logic.report.browser import FIRST, browser_data
from tasks.logic.report.charts import Chart, class_share_chart, line_chart
from tasks.logic.report.claims import cards, draft_statement
from tasks.logic.report.flow_diagram import flow_diagram
from tasks.logic.report.forest import forest
from tasks.logic.report.frontier import FrontierChart, answered, frontier_chart, key_of
from tasks.logic.report.heat import SHADES, heat
from tasks.logic.report.lessons import experiments, lessons, sayable
from tasks.logic.report.methods import methodology
from tasks.logic.report.reliability import reliability_charts
from tasks.logic.report.spent import spent
from tasks.logic.report.view import ReportView

TOKENS, MILLISECONDS = "tokens_per_question", "ms_per_question"
CHIPS = {"pass": "✓ pass", "fail": "✗ fail", "underpowered": "? underpowered", "warn": "! look", "quiet": "note"}


def render_report(view: ReportView) -> str:
    """The page as text. Everything from outside is escaped. Raises DataError when a training curve is empty or not finite."""
    summary = view.summary
    headline, *others = words.statements(summary) or [words.Statement("underpowered", "Nothing was compared", "This run scored no pair of models.")]
    pages = environment()
    script = pages.get_template("report.js").render()
    return pages.get_template("report.html").render(
        view=view,
        summary=summary,
        headline=headline,
        others=others,
        title=". ".join(one.claim for one in [headline, *([draft_statement(summary["draft"])] if summary["draft"] else [])]),
        cards=cards(summary),
        warnings=[*words.warnings(summary), *view.notes],
        charts=_charts(view),
        flow=flow_diagram(summary["curation"]["steps"]),
        shares=class_share_chart(summary["curation"]["steps"], max_shift=view.recipe.curate.max_shift),
        forest=forest(words.ranked(summary)),
        draft_forest=forest(summary["draft"]["comparisons"]) if summary["draft"] else None,
        experiments=dict(zip([name for name in ("draft", "attribution", "judge") if summary[name]], experiments(summary), strict=True)),
        draft_arms=words.DRAFT_ARMS,
        heat=heat(view.attributed),
        heat_steps=range(1, SHADES + 1),
        judged=_told_judgements(view.judged),
        reliability=reliability_charts(view.reliability),
        spent=spent(summary["stages"]),
        paragraphs=methodology(summary, view.recipe, aligned=bool(view.preference_loss)),
        sayable=sayable(summary),
        lessons=lessons(summary, view.recipe),
        browser=browser_data(view.transcripts),
        first=FIRST,
        script=script,
        script_digest=b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        frontiers=_frontiers(summary),
        key=key_of(answered(summary, TOKENS, least=1.0)),
        unparsed=words.unparsed_counts(summary),
        usage=_usage(summary["teacher_usage"]),
        chips=CHIPS,
    )


def environment() -> Environment:
    """Where pages come from: templates of this package, escaped, with the words that they are made of; a name that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("tasks.logic.report", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "label": words.label,
        "told": words.told,
        "brief": words.brief,
        "comparison": words.comparison_label,
        "arm": words.arm_label,
        "percent": words.percent,
        "share": lambda value: "–" if value is None else words.percent(value),
        "quantity": words.quantity,
        "decimal": words.decimal,
        "change": words.change,
        "capitalised": words.capitalised,
        "points": words.points,
        "p_text": words.p_text,
        "duration": words.duration,
    }
    return environment


def _told_judgements(judged: Sequence[Judgement]) -> list[Judgement]:
    """One comparison of each kind, to show what was compared."""
    return list({row.winner: row for row in reversed(judged)}.values())


def _charts(view: ReportView) -> list[Chart]:
    charts = [
        line_chart(f"Training loss: {words.label(curve.model)}", {"loss": curve.points}, x_label="optimiser step", y_label="nats per token")
        for curve in view.curves
    ]
    if view.preference_loss:
        charts.append(line_chart("Preference training: loss", {"loss": view.preference_loss}, x_label="optimiser step", y_label="nats per pair"))
    if view.margins:
        series = {
            "chosen (a)": [(float(point.step), point.a) for point in view.margins],
            "rejected (b)": [(float(point.step), point.b) for point in view.margins],
            "gap (d = a − b)": [(float(point.step), point.d) for point in view.margins],
        }
        charts.append(line_chart("Preference training: log-ratio to the reference", series, x_label="optimiser step", y_label="nats, mean of the step's pairs"))
    if len(view.selection) > 1:
        read = {
            "says yes": [(float(row.epoch), 100 * row.yes / row.n) for row in view.selection],
            "right": [(float(row.epoch), 100 * row.correct / row.n) for row in view.selection],
        }
        charts.append(line_chart("Preference training: dev after each epoch", read, x_label="epoch", y_label="percent of the dev questions read"))
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
