"""What the experiments on learning by asking showed, in words: a verdict chooses the sentence, so a failed or undecided one cannot read as a success."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.logic.report import words
from tasks.logic.report.words import Statement

ENOUGH_MASS, ENOUGH_NET, MOST_INCONSISTENT = 0.20, 0.10, 0.35  # fixed before any test split is read
_TWIN, _NO_DRAFT = "full_draft_vs_aligned_no_draft", "full_draft_vs_no_draft"
_DECIDED_BY = (_TWIN, _NO_DRAFT)  # the fairest comparison that the run has


@dataclass(frozen=True, kw_only=True)
class Card:
    """One answer at a glance: the question, its verdict, the figure with interval and n, one plain sentence, and where the page says more."""

    question: str
    verdict: str
    figure: str
    interval: str
    n: int
    sentence: str
    anchor: str


def cards(summary: Mapping[str, Any]) -> list[Card]:
    """The questions that the project asks, in its order; those that the run did not ask are absent."""
    asked = {"track_b_vs_track_a": "Does reasoning beat answers alone?", "aligned_vs_track_b": "Does preference training keep accuracy?"}
    said = {each["name"]: one for each, one in zip(words.ranked(summary), words.statements(summary), strict=True)}
    compared = {each["name"]: each for each in summary["comparisons"]}
    found = [_comparison_card(asked[name], compared[name], said[name].claim, "comparisons") for name in asked if name in compared]
    if draft := summary["draft"]:
        deciding = decided_by(draft)
        statement = draft_statement(draft)
        if deciding:
            found.append(_comparison_card("Does it learn by asking?", {**deciding, "verdict": draft["verdict"]}, statement.claim, "draft"))
    if evidence := summary["attribution"]:
        mass = evidence["masses"]["aligned"]
        found.append(
            Card(
                question="Does the answer rest on the draft?",
                verdict=evidence["verdict"],
                figure=f"{words.percent(mass['mass'])} of the weight",
                interval=f"{mass['enrichment']:.2f} times what chance gives; was {evidence['masses']['track_b']['enrichment']:.2f}",
                n=mass["n"],
                sentence=f"{attribution_statement(evidence).claim}.",
                anchor="attribution",
            )
        )
    if evidence := summary["judge"]:
        statement = judge_statement(evidence)
        found.append(
            Card(
                question="Are its questions better?",
                verdict=statement.verdict,
                figure=f"{words.points(evidence['net'])} points net",
                interval=f"95 % CI {words.points(evidence['ci_low'])} to {words.points(evidence['ci_high'])}",
                n=evidence["n"],
                sentence=f"{statement.claim}.",
                anchor="judge",
            )
        )
    return found


def decided_by(draft: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The comparison that the draft's verdict stands on: the twin trained without drafts where there is one."""
    by_name: dict[str, Mapping[str, Any]] = {each["name"]: each for each in draft["comparisons"]}
    return next((by_name[name] for name in _DECIDED_BY if name in by_name), None)


def draft_statement(draft: Mapping[str, Any]) -> Statement:
    """Whether the student gains by asking."""
    if draft["verdict"] == "pass" and draft["confounded"]:
        claim = "The draft helps the answer, but that is not yet learning by asking"
    else:
        claim = {"pass": "The student gains by asking", "fail": "The student does not gain by asking"}.get(
            draft["verdict"], "Whether the student gains by asking is undecided"
        )
    evidence = []
    if deciding := decided_by(draft):
        evidence.append(f"{words.comparison_label(deciding['name'])}: {_with_interval(deciding)}")
    if draft["confounded"]:
        evidence.append("what the comparison shows has another explanation than the draft's questions: see the lessons")
    return Statement(draft["verdict"], claim, f"{'; '.join(evidence)}." if evidence else "")


def attribution_statement(evidence: Mapping[str, Any]) -> Statement:
    """Whether the verdict rests on the draft, and more than before preference training."""
    claim = {
        "pass": "The answer rests on the draft, and more than before preference training",
        "fail": "The answer does not rest on the draft more than before preference training",
    }.get(evidence["verdict"], "Whether the answer rests on the draft more than before is undecided")
    mass, gain = evidence["masses"]["aligned"], evidence["enrichment_gain"]
    told = f"{words.percent(mass['mass'])} of the attribution lies on {words.percent(mass['token_share'])} of the tokens"
    return Statement(
        evidence["verdict"],
        claim,
        f"{told}; enrichment changed by {words.change(gain['difference'])} (95 % CI {words.change(gain['ci_low'])} to {words.change(gain['ci_high'])}).",
    )


def judge_statement(evidence: Mapping[str, Any]) -> Statement:
    """Whether preference training made the clarifying questions better. A judge that contradicts itself decides nothing."""
    verdict = evidence["verdict"] if evidence["usable"] else "underpowered"
    if not evidence["usable"]:
        claim = "The judge contradicts itself too often to decide anything"
    else:
        claim = {"pass": "Preference training made the questions better", "fail": "Preference training did not make the questions better"}.get(
            verdict, "Whether the questions got better is undecided"
        )
    told = f"{evidence['wins']} better, {evidence['ties']} level, {evidence['losses']} worse of {evidence['n']}"
    return Statement(verdict, claim, f"{told}: {words.points(evidence['net'])} points net, of which {words.points(ENOUGH_NET, signed=False)} were asked for.")


def _comparison_card(question: str, each: Mapping[str, Any], claim: str, anchor: str) -> Card:
    interval = f"95 % CI {words.points(each['ci_low'])} to {words.points(each['ci_high'])}"
    figure = f"{words.points(each['difference'])} points"
    return Card(question=question, verdict=each["verdict"], figure=figure, interval=interval, n=each["n"], sentence=f"{claim}.", anchor=anchor)


def _with_interval(each: Mapping[str, Any]) -> str:
    return f"{words.points(each['difference'])} points (95 % CI {words.points(each['ci_low'])} to {words.points(each['ci_high'])}, n = {each['n']})"
