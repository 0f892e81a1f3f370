"""Slides of the experiments that ask whether the student gains by asking: the draft's arms, attribution, the judge. A run may lack each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.logic.report import words
from tasks.logic.report.deck import BOTTOM, SMALL, Box, add_chip, add_table, add_text, new_slide, paged_table
from tasks.logic.report.deck_charts import add_bars, paged_accuracy

DRAFT = {
    "pass": "The student gains by asking: its draft helps it to answer",
    "fail": "No gain by asking: the draft does not give what was claimed",
    "underpowered": "Open: these questions do not decide whether the draft helps",
}
ATTRIBUTION = {
    "pass": "After preference training, answers rest more on the draft",
    "fail": "Preference training did not make answers rest more on the draft",
    "underpowered": "Open: whether answers rest more on the draft after preference training",
}
JUDGE = {
    "pass": "The aligned model asks better questions than Track B",
    "fail": "The aligned model does not ask better questions than Track B",
    "underpowered": "Open: whether the aligned model asks better questions",
}
CONFOUNDED = "A direction only: without its draft the model reads a prompt that it never trained on."


def experiment_slides(deck: Any, summary: Mapping[str, Any], foot: str) -> None:
    """What the run has of `summary["draft"]`, `["attribution"]` and `["judge"]`, each titled by its verdict."""
    if draft := summary.get("draft"):
        _draft(deck, draft, foot)
    if attribution := summary.get("attribution"):
        _attribution(deck, attribution, foot)
    if judge := summary.get("judge"):
        _judge(deck, judge, foot)


def _draft(deck: Any, draft: Mapping[str, Any], foot: str) -> None:
    told = f"The aligned model's answers to the same {draft['n']} questions under changed drafts; whiskers: 95 % intervals."
    told += f" {CONFOUNDED}" * bool(draft["confounded"])
    paged_accuracy(deck, DRAFT[draft["verdict"]], told, {words.arm_label(arm): cell for arm, cell in draft["arms"].items()}, line=None, foot=foot)
    rows = [
        [
            _arms(each["name"]),
            str(each["n"]),
            f"{words.points(each['difference'])}  ({words.points(each['ci_low'])} to {words.points(each['ci_high'])})",
            words.p_text(each["p_holm"]),
            words.points(each["minimal_detectable"], signed=False),
            each["verdict"],
        ]
        for each in draft["comparisons"]
    ]
    header = ["comparison", "n", "difference in points (95 % CI)", "p, Holm", "detectable", "verdict"]
    paged_table(deck, "The draft experiment, difference by difference", header, rows, shares=(3.7, 0.7, 3.3, 1.1, 1.5, 2.0), foot=foot)


def _attribution(deck: Any, found: Mapping[str, Any], foot: str) -> None:
    slide = new_slide(deck, ATTRIBUTION[found["verdict"]], foot=foot)
    add_chip(slide, Box(top=1.65, width=2.4, height=0.5), found["verdict"], found["verdict"])
    gain = found["enrichment_gain"]
    lines = [
        f"Integrated gradients of {found['questions']} questions; they add up within the tolerance for {words.percent(found['within_tolerance'])} of all "
        f"(median error {words.percent(found['median_error'])}), and the others are left out.",
        f"Enrichment is the mass on the draft over its share of the tokens, 1 = chance. Aligned less Track B: {_gain(gain)}, {gain['verdict']}. "
        f"Own draft less another question's: {_gain(found['shuffled_gain'])}, {found['shuffled_gain']['verdict']}.",
    ]
    add_text(slide, Box(top=2.3, height=1.5), lines, size=SMALL)
    rows = [
        [
            words.label(name) if not name.endswith("_shuffled") else f"{words.label(name.removesuffix('_shuffled'))}, another's draft",
            str(mass["n"]),
            words.percent(mass["mass"]),
            words.percent(mass["token_share"]),
            words.decimal(mass["enrichment"]),
            words.percent(mass["questions_mass"]),
            words.percent(mass["verdict_mass"]),
            words.decimal(mass["masked"]),
        ]
        for name, mass in found["masses"].items()
    ]
    header = ["model", "n", "mass on draft", "its tokens", "enrichment", "on questions", "on verdict", "fall if masked, nats"]
    add_table(slide, Box(top=3.8, height=BOTTOM - 3.8), header, rows, shares=(3.6, 0.7, 1.3, 1.3, 1.5, 1.4, 1.3, 1.6))


def _judge(deck: Any, found: Mapping[str, Any], foot: str) -> None:
    slide = new_slide(deck, JUDGE[found["verdict"]] if found["usable"] else "The judge contradicts itself too often to be used", foot=foot)
    add_chip(slide, Box(top=1.65, width=2.4, height=0.5), found["verdict"], found["verdict"])
    human = f"Against a person on {found['human_n']} pairs: kappa {words.decimal(found['kappa'])}." if found["kappa"] is not None else "No person has judged."
    lines = [
        f"{found['judge']} compared the clarifying questions of the aligned model and of Track B for {found['n']} questions, blinded, in both orders.",
        f"Wins less losses: {words.points(found['net'])} points (95 % CI {words.points(found['ci_low'])} to {words.points(found['ci_high'])}); "
        f"at equal length {words.points(found['net_at_equal_length'])}. Promised: 10 points or more.",
        f"The winner changed with the order in {words.percent(found['inconsistent'])} of the pairs; more than 35 % would make the judge unusable. {human}",
    ]
    add_text(slide, Box(top=2.35, height=2.0), lines, size=16)
    total = max(found["n"], 1)
    shown = {
        f"{name}\n{found[key]} of {found['n']}": found[key] / total for name, key in (("aligned better", "wins"), ("tie", "ties"), ("Track B better", "losses"))
    }
    add_bars(slide, Box(top=4.3, height=BOTTOM - 4.3), shown, name="share of the pairs")


def _arms(name: str) -> str:
    """ "rewrite_vs_no_draft" -> "Rewrite against no draft"."""
    new, _, old = name.partition("_vs_")
    return words.capitalised(f"{words.arm_label(new)} against {words.arm_label(old)}" if old else words.arm_label(new))


def _gain(gain: Mapping[str, Any]) -> str:
    return f"{words.decimal(gain['difference'])} ({words.decimal(gain['ci_low'])} to {words.decimal(gain['ci_high'])})"
