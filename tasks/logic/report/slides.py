"""The slides of a run: the same figures and the same words as the report, as a talk of about a dozen slides with native charts and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.logic.report import words
from tasks.logic.report.deck import BOTTOM, LEAD, MUTED, TEXT, TOP, Box, add_chip, add_text, new_deck, new_slide, paged_bullets, paged_table
from tasks.logic.report.deck_charts import COLUMNS, add_curves, add_seconds, add_stacked, paged_accuracy
from tasks.logic.report.experiment_slides import experiment_slides
from tasks.logic.report.view import ReportView

STAGES = 8  # the longest ones; more labels would run into each other


def run_slides(view: ReportView) -> Any:
    """The deck as a python-pptx Presentation, to be saved. Every text is 14 points or more; what a run lacks has no slide."""
    deck = new_deck()
    foot = f"{view.summary['profile']}, {view.summary['split']} split, {view.generated_at}"
    _opening(deck, view, foot)
    _method(deck, view.summary, foot)
    _accuracy(deck, view.summary, foot)
    _comparisons(deck, view.summary, foot)
    _class_shares(deck, view.summary, foot)
    _curves(deck, view, foot)
    experiment_slides(deck, view.summary, foot)
    _cost(deck, view.summary, foot)
    _lessons(deck, view, foot)
    _provenance(deck, view, foot)
    return deck


def _opening(deck: Any, view: ReportView, foot: str) -> None:
    summary = view.summary
    headline = next(iter(words.statements(summary)), words.Statement("underpowered", "Nothing was compared", "This run scored no pair of models."))
    slide = new_slide(deck, headline.claim, foot=foot)
    add_chip(slide, Box(top=1.9, width=2.4, height=0.5), headline.verdict, headline.verdict)
    add_text(slide, Box(top=2.7, height=1.4), [headline.evidence], size=LEAD)
    lines = [
        f"{summary['benchmark']}, {summary['split']} split; always giving the commoner answer scores {words.percent(summary['majority_accuracy'])}.",
        f"Student {summary['student']}. Teacher {summary['teacher']}.",
        "A small student model that learns to reason by asking a stronger teacher.",
    ]
    add_text(slide, Box(top=4.4, height=2.0), lines, size=TEXT, color=MUTED)


def _method(deck: Any, summary: Mapping[str, Any], foot: str) -> None:
    splits, steps = summary["splits"], summary["curation"]["steps"]
    heads = {name: words.arm_label(model["headline"]) for name, model in summary["models"].items()}
    lines = [
        f"The student ({summary['student']}) drafts an answer to each question and the clarifying questions that it would ask.",
        f"The teacher ({summary['teacher']}) answers them and the question: {_count(splits['train'])} questions to learn from.",
        *([_curated(steps)] if steps else []),
        "Track A learns the bare answers. Track B learns to ask, to answer what it asked and to reason before it answers.",
        "The aligned model is Track B after preference training on pairs of a right and a wrong answer of the same shape.",
        f"Read on the {summary['split']} split, each model by the arm that was fixed before: "
        + ", ".join(f"{words.short(name)} {arm}" for name, arm in heads.items())
        + ".",
        "Models are compared question by question: exact McNemar test, paired bootstrap interval, Holm's correction over all comparisons.",
        *([f"Changed for this run: {', '.join(f'{path} = {value}' for path, value in summary['overrides'].items())}."] if summary["overrides"] else []),
    ]
    paged_bullets(deck, "What was done", lines, foot=foot)


def _curated(steps: Sequence[Mapping[str, Any]]) -> str:
    first, last = steps[0], steps[-1]
    return (
        f"Curation kept {_count(last['yes'] + last['no'])} of {_count(first['yes'] + first['no'])}; "
        f"the share of yes went from {words.percent(first['yes_share'])} to {words.percent(last['yes_share'])}."
    )


def _accuracy(deck: Any, summary: Mapping[str, Any], foot: str) -> None:
    majority = summary["majority_accuracy"]
    told = f"Right answers. Whiskers and figures below: 95 % Wilson intervals. Dotted line: always giving the commoner answer, {words.percent(majority)}."
    groups = {title: dict(summary[group]) for group, title in (("models", "Accuracy of the models"), ("controls", "Accuracy of the controls"))}
    together = {name: model for group in groups.values() for name, model in group.items()}
    for title, group in (groups if len(together) > COLUMNS else {"Accuracy of the models and controls": together}).items():
        cells = {words.label(name): model["arms"][model["headline"]] for name, model in group.items()}
        paged_accuracy(deck, title, told, cells, line=majority, foot=foot)


def _comparisons(deck: Any, summary: Mapping[str, Any], foot: str) -> None:
    told = {one.verdict for one in words.statements(summary)}
    rows = [
        [
            words.comparison_label(each["name"]),
            f"{words.points(each['difference'])}  ({words.points(each['ci_low'])} to {words.points(each['ci_high'])})",
            words.p_text(each["p_holm"]),
            words.points(each["minimal_detectable"], signed=False),
            each["verdict"],
        ]
        for each in summary["comparisons"]
    ]
    title = "Model against model: " + ("some questions stay open" if "underpowered" in told else "every question is decided")
    header = ["comparison", "difference in points (95 % CI)", "p, Holm", "detectable", "verdict"]
    paged_table(deck, title, header, rows, shares=(4.2, 3.4, 1.2, 1.5, 2.0), foot=foot)


def _class_shares(deck: Any, summary: Mapping[str, Any], foot: str) -> None:
    steps = summary["curation"]["steps"]
    if steps:
        slide = new_slide(deck, "Questions per class through curation", foot=foot)
        parts = {name: [float(step[key]) for step in steps] for name, key in (("answer yes", "yes"), ("answer no", "no"))}
        add_stacked(slide, Box(), [step["step"] for step in steps], parts)


def _curves(deck: Any, view: ReportView, foot: str) -> None:
    losses = {words.label(curve.model): [(float(step), loss) for step, loss in curve.points] for curve in view.curves}
    if losses:
        slide = new_slide(deck, "Fine-tuning: training loss", foot=foot)
        add_curves(slide, Box(), losses, x="optimiser step", y="nats per token")
    if view.margins:
        slide = new_slide(deck, "Preference training: log-ratio to the reference", foot=foot)
        curves = {
            "chosen (a)": [(float(point.step), point.a) for point in view.margins],
            "rejected (b)": [(float(point.step), point.b) for point in view.margins],
            "gap (d = a − b)": [(float(point.step), point.d) for point in view.margins],
        }
        add_curves(slide, Box(), curves, x="optimiser step", y="nats")


def _cost(deck: Any, summary: Mapping[str, Any], foot: str) -> None:
    usage, stages = summary["teacher_usage"], summary["stages"]
    longest = sorted(stages, key=lambda line: -line["seconds"])[:STAGES]
    slide = new_slide(deck, "Cost and time", foot=foot)
    reused = sum(line["cached"] for line in stages)
    lines = [
        f"Teacher: {_count(usage['calls'])} calls, {_count(usage['cached'])} from the ledger, "
        f"{_count(usage['tokens_in'])} tokens in and {_count(usage['tokens_out'])} out, {usage['usd']:.2f} US dollars.",
        f"All stages: {words.duration(sum(line['seconds'] for line in stages))} of work; {reused} of {len(stages)} were reused from earlier runs. The longest:",
    ]
    add_text(slide, Box(top=TOP, height=1.1), lines, size=TEXT)
    if longest:
        shown = {line["stage"] + (" (reused)" if line["cached"] else ""): line["seconds"] for line in longest}
        add_seconds(slide, Box(top=TOP + 1.1, height=BOTTOM - TOP - 1.1), shown, name="seconds")


def _lessons(deck: Any, view: ReportView, foot: str) -> None:
    kinds = {"pass": "Shown", "fail": "Shown", "underpowered": "Open"}
    told = [f"{kinds[one.verdict]}: {one.claim}. {one.evidence}" for one in words.statements(view.summary)]
    paged_bullets(deck, "What these verdicts allow to say", told or ["Nothing was compared, so nothing is shown."], foot=foot)
    limits = [*words.warnings(view.summary), *view.notes, *_readings(view.summary)]
    paged_bullets(deck, "Limits", limits, foot=foot)


def _readings(summary: Mapping[str, Any]) -> list[str]:
    reads = summary["test_reads"]
    if not reads:
        return ["No test split has been read."]
    return [f"{words.capitalised(each['split'])} was read {each['times']} time{'s' * (each['times'] > 1)} under {each['recipe']}." for each in reads]


def _provenance(deck: Any, view: ReportView, foot: str) -> None:
    rows = [[each.stage, each.path, each.digest[:12], words.duration(each.seconds), "reused" if each.cached else "computed"] for each in view.provenance]
    packages = {name: version for each in view.provenance for name, version in each.packages.items() if version}
    lines = [f"Made again by: {view.command}", *([f"Packages: {', '.join(f'{name} {version}' for name, version in packages.items())}."] if packages else [])]
    paged_bullets(deck, "Provenance", lines, foot=foot)
    paged_table(deck, "Artifacts behind this run", ["stage", "folder", "digest", "took", ""], rows, shares=(4.0, 3.4, 1.9, 1.5, 1.3), foot=foot)


def _count(number: float) -> str:
    return f"{number:,.0f}"
