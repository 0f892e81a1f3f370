"""The same figures as small Markdown tables, for places that show Markdown, such as the artifacts of an orchestrator's UI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.logic.report import words


def render_markdown_tables(summary: Mapping[str, Any]) -> dict[str, str]:
    """Markdown of "results", "comparisons", "class-shares" and "stages", each a heading sentence and a table."""
    return {
        "results": _results(summary),
        "comparisons": _comparisons(summary),
        "class-shares": _class_shares(summary["curation"]["steps"]),
        "stages": _stages(summary["stages"]),
    }


def _results(summary: Mapping[str, Any]) -> str:
    rows = [
        (
            f"**{words.label(name)}**" if arm == model["headline"] else words.label(name),
            words.arm_label(arm),
            words.percent(cell["accuracy"]),
            f"{words.percent(cell['ci_low'])} to {words.percent(cell['ci_high'])}",
            cell["n"],
            words.percent(cell["yes_rate"]),
            cell["unparsed"],
            *_cost(summary["costs"].get(name, {}).get(arm)),
        )
        for group in ("models", "controls")
        for name, model in summary[group].items()
        for arm, cell in model["arms"].items()
    ]
    intro = f"{summary['benchmark']}, {summary['split']} split; always giving the commoner answer scores {words.percent(summary['majority_accuracy'])}."
    return _table(f"{intro} Bold: the headline arm.", ("model", "arm", "right", "95 % CI", "n", "says yes", "unparsed", "tokens", "ms"), rows)


def _cost(cost: Mapping[str, float] | None) -> tuple[str, str]:
    """Tokens and milliseconds a question; nothing for a baseline without a model."""
    return (words.quantity(cost["tokens_per_question"]), words.quantity(cost["ms_per_question"])) if cost else ("", "")


def _comparisons(summary: Mapping[str, Any]) -> str:
    rows = [
        (
            words.comparison_label(each["name"]),
            words.points(each["difference"]),
            f"{words.points(each['ci_low'])} to {words.points(each['ci_high'])}",
            words.p_text(each["p_value"]),
            words.p_text(each["p_holm"]),
            words.points(each["minimal_detectable"], signed=False),
            each["verdict"],
        )
        for each in summary["comparisons"]
    ]
    header = ("comparison", "difference, points", "95 % CI", "p", "p, Holm", "detectable", "verdict")
    return _table(" ".join(f"{one.claim}." for one in words.statements(summary)) or "Nothing was compared.", header, rows)


def _class_shares(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [(step["step"], step["yes"], step["no"], words.percent(step["yes_share"])) for step in steps]
    return _table("Questions per class after each step of curation.", ("step", "yes", "no", "share of yes"), rows)


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    rows = [(line["stage"], words.duration(line["seconds"]), "cached" if line["cached"] else "computed", f"`{line['artifact']}`") for line in stages]
    return _table("What ran and what was reused.", ("stage", "time", "", "artifact"), rows)


def _table(intro: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return intro + "\n\n" + "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
