"""The same figures as small Markdown tables, for places that show Markdown, such as the artifacts of an orchestrator's UI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.logic.report import claims, words


def render_markdown_tables(summary: Mapping[str, Any]) -> dict[str, str]:
    """Markdown of "results", "comparisons", "class-shares" and "stages", each a heading sentence and a table.

    Beside them "draft", "attribution" and "judge", where the run did these experiments.
    """
    made = {
        "results": _results(summary),
        "comparisons": _comparisons(summary),
        "class-shares": _class_shares(summary["curation"]["steps"]),
        "stages": _stages(summary["stages"]),
    }
    experiments = {"draft": _draft, "attribution": _attribution, "judge": _judge}
    return made | {name: table(summary[name]) for name, table in experiments.items() if summary[name]}


def _results(summary: Mapping[str, Any]) -> str:
    rows = [
        (
            f"**{words.told(name, summary)}**" if arm == model["headline"] else words.told(name, summary),
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
    told = " ".join([intro, "Bold: the headline arm.", *summary["remarks"]])
    return markdown_table(told, ("model", "arm", "right", "95 % CI", "n", "says yes", "unparsed", "tokens", "ms"), rows)


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
    return markdown_table(" ".join(f"{one.claim}." for one in words.statements(summary)) or "Nothing was compared.", header, rows)


def _draft(draft: Mapping[str, Any]) -> str:
    """Arms of the draft family, then its comparisons."""
    arms = [(words.DRAFT_ARMS[name], words.percent(cell["accuracy"]), *_interval_and_n(cell)) for name, cell in draft["arms"].items()]
    compared = [
        (
            words.comparison_label(each["name"]),
            words.points(each["difference"]),
            _points_interval(each),
            words.p_text(each["p_holm"]),
            each["n"],
            each["verdict"],
        )
        for each in draft["comparisons"]
    ]
    said = claims.draft_statement(draft)
    first = markdown_table(f"{said.claim} ({said.verdict}). {said.evidence}".strip(), ("aligned model reads", "right", "95 % CI", "n"), arms)
    return f"{first}\n{markdown_table('Differences in points.', ('comparison', 'difference', '95 % CI', 'p, Holm', 'n', 'verdict'), compared)}"


def _interval_and_n(cell: Mapping[str, Any]) -> tuple[str, int]:
    return f"{words.percent(cell['ci_low'])} to {words.percent(cell['ci_high'])}", cell["n"]


def _points_interval(each: Mapping[str, Any]) -> str:
    return f"{words.points(each['ci_low'])} to {words.points(each['ci_high'])}"


def _attribution(evidence: Mapping[str, Any]) -> str:
    shares = ("mass", "token_share", "verdict_mass", "questions_mass")
    rows = [
        (words.label(name), mass["n"], *(words.percent(mass[key]) for key in shares), words.decimal(mass["enrichment"]), words.decimal(mass["masked"]))
        for name, mass in evidence["masses"].items()
    ]
    said = claims.attribution_statement(evidence)
    header = ("model", "n", "on the draft", "its share of tokens", "on its verdict", "on its questions", "enrichment", "masked, nats")
    return markdown_table(f"{said.claim} ({said.verdict}): {said.evidence}", header, rows)


def _judge(evidence: Mapping[str, Any]) -> str:
    said = claims.judge_statement(evidence)
    counts = [(evidence[key] for key in ("n", "wins", "ties", "losses", "unparsed"))]
    figures = (words.points(evidence["net"]), _points_interval(evidence), words.percent(evidence["inconsistent"]), words.change(evidence["words"]))
    header = ("n", "better", "level", "worse", "no verdict", "net, points", "95 % CI", "winner changes with the order", "words more")
    return markdown_table(f"{said.claim} ({said.verdict}): {said.evidence}", header, [(*row, *figures) for row in counts])


def _class_shares(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [(step["step"], f"{step['yes']:,.0f}", f"{step['no']:,.0f}", words.percent(step["yes_share"])) for step in steps]
    return markdown_table("Questions per class after each step of curation.", ("step", "yes", "no", "share of yes"), rows)


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    rows = [(line["stage"], words.duration(line["seconds"]), "cached" if line["cached"] else "computed", f"`{line['artifact']}`") for line in stages]
    return markdown_table("What ran and what was reused.", ("stage", "time", "", "artifact"), rows)


def markdown_table(intro: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A sentence and a Markdown table; line breaks in a cell become spaces, bars are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return intro + "\n\n" + "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
