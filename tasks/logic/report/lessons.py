"""What a run's verdicts allow one to say and what not, and what it taught: each sentence is chosen by a verdict or a figure, never written beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.contracts.recipes import Recipe
from tasks.logic.report import words
from tasks.logic.report.claims import ENOUGH_MASS, attribution_statement, draft_statement, judge_statement

_MOST_TOLD = 1_000_000  # a need beyond this many questions is not worth a number
_AGREES = "teacher agrees with gold"


@dataclass(frozen=True)
class Sayable:
    """A sentence that the data allow (`may`) or do not allow."""

    may: bool
    text: str


def sayable(summary: Mapping[str, Any]) -> list[Sayable]:
    """Every claim of the run: passed and failed ones may be told with their figures, undecided ones may not be told either way."""
    said = [*words.statements(summary), *experiments(summary)]
    return [
        Sayable(False, f"{one.claim}. Neither a gain nor its absence may be claimed: {one.evidence}")
        if one.verdict == "underpowered"
        else Sayable(True, f"{one.claim}: {one.evidence}")
        for one in said
    ]


def experiments(summary: Mapping[str, Any]) -> list[words.Statement]:
    """The experiments that this run did, in words."""
    told = (("draft", draft_statement), ("attribution", attribution_statement), ("judge", judge_statement))
    return [state(summary[name]) for name, state in told if summary[name]]


def lessons(summary: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What to take away, most telling first: what did not work is said as plainly as what did."""
    return [
        *_of_answers(summary),
        *_of_preferences(summary),
        *_of_the_draft(summary),
        *_of_the_teacher(summary, recipe),
        *_of_attribution(summary),
        *_of_the_judge(summary),
        *_of_power(summary),
        f"This is one run with seed {recipe.seed}. Another seed moves the figures too, by an amount that the intervals above do not hold; pool several "
        "with socratune pool.",
    ]


def _of_answers(summary: Mapping[str, Any]) -> list[str]:
    """Models that say one thing whatever they are asked."""
    heads = {name: model["arms"][model["headline"]] for name, model in summary["models"].items()}
    stuck = [f"{words.brief(name)} ({words.percent(cell['yes_rate'])} yes)" for name, cell in heads.items() if words.one_sided(cell["yes_rate"])]
    return (
        [f"Hardly telling yes from no: {', '.join(stuck)}. Such a model has a favourite answer; its accuracy is that answer's share of gold."] if stuck else []
    )


def _of_preferences(summary: Mapping[str, Any]) -> list[str]:
    found = [each for each in summary["comparisons"] if each["name"] == "aligned_vs_track_b"]
    if not found:
        return []
    each = found[0]
    gained = each["difference"] > 0 and each["p_holm"] < 0.05
    if gained:
        return []
    if not any(each[key] for key in ("difference", "ci_low", "ci_high")):
        return [
            "The aligned model is right on the same questions as Track B: preference training changed nothing that was measured, and its pass means no more."
        ]
    told = f"{words.points(each['difference'])} points, 95 % CI {words.points(each['ci_low'])} to {words.points(each['ci_high'])}"
    kept = {
        "pass": f"The aligned model did not gain accuracy over Track B ({told}). Its pass says only that it lost no more than was allowed.",
        "fail": f"Preference training cost accuracy ({told}), more than was allowed: use Track B.",
    }
    return [kept.get(each["verdict"], f"The aligned model did not clearly gain over Track B, and a loss is not ruled out ({told}).")]


def _of_the_draft(summary: Mapping[str, Any]) -> list[str]:
    draft = summary["draft"]
    if not draft:
        return []
    found = []
    if draft["confounded"]:
        found.append(
            "The draft experiment is confounded: a model that was trained with drafts meets a prompt of a new kind when its draft is taken away or changed. "
            "Only a twin trained without drafts (recipe.ablate.matched), and questions that help more than the verdict, would show learning by asking."
        )
    compared = {each["name"]: each for each in draft["comparisons"]}
    sources = compared.get("draft_questions_vs_draft_verdict")
    if sources and sources["verdict"] == "fail":
        found.append("The draft's questions alone do not help more than its verdict alone: what the model takes from a draft may be its answer.")
    if (shuffled := compared.get("full_draft_vs_shuffled_draft")) and shuffled["verdict"] != "pass":
        told = f"{words.points(shuffled['difference'])} points"
        found.append(f"Exchanging the draft for another question's made no proven difference ({told}): the model may hardly read what stands in it.")
    return found


def _of_the_teacher(summary: Mapping[str, Any], recipe: Recipe) -> list[str]:
    steps = summary["curation"]["steps"]
    places = [number for number, step in enumerate(steps) if step["step"] == _AGREES]
    found = []
    if places and places[0]:
        before, after, last = steps[places[0] - 1], steps[places[0]], steps[-1]
        kept = {side: after[side] / before[side] if before[side] else 0.0 for side in ("yes", "no")}
        if abs(after["yes_share"] - before["yes_share"]) > recipe.curate.max_shift:
            found.append(
                f"The teacher is biased towards {max(kept, key=lambda side: kept[side])}: it agrees with gold on {words.percent(kept['yes'])} of the yes "
                f"questions and {words.percent(kept['no'])} of the no questions. Keeping only what it gets right moved the share of yes from "
                f"{words.percent(before['yes_share'])} to {words.percent(after['yes_share'])}; after all of curation it is {words.percent(last['yes_share'])}."
            )
    if recipe.teacher.kind == "simulated":
        found.append(
            "The teacher is simulated, wrong at a set rate. The figures tell how the method fares with such a teacher, not what a real one would teach."
        )
    return found


def _of_attribution(summary: Mapping[str, Any]) -> list[str]:
    evidence = summary["attribution"]
    if not evidence:
        return []
    mass = evidence["masses"]["aligned"]
    found = []
    if mass["mass"] >= ENOUGH_MASS and mass["enrichment"] <= 1:
        found.append(
            f"The draft holds {words.percent(mass['mass'])} of the attribution but {words.percent(mass['token_share'])} of the tokens: a large share by size "
            "alone, no more than chance gives."
        )
    if excluded := sum(evidence["excluded"].values()):
        found.append(f"{excluded} attributions did not add up and are excluded; {words.percent(evidence['within_tolerance'])} were within the tolerance.")
    if evidence["shuffled_gain"]["verdict"] != "pass":
        found.append("The model gives its own draft no provably greater weight than another question's: weight on a draft is not yet use of what it says.")
    return found


def _of_the_judge(summary: Mapping[str, Any]) -> list[str]:
    evidence = summary["judge"]
    if not evidence:
        return []
    found = []
    if not evidence["usable"]:
        found.append(f"The judge changed its mind with the order on {words.percent(evidence['inconsistent'])} of the pairs: ask another judge.")
    if abs(evidence["words"]) >= 1:
        longer = "longer" if evidence["words"] > 0 else "shorter"
        found.append(
            f"The aligned model's questions are {abs(evidence['words']):.1f} words {longer}; judges like length. At equal length the net would be "
            f"{words.points(evidence['net_at_equal_length'])} points."
        )
    if evidence["kappa"] is None:
        found.append("No person has judged the same pairs, so how far this judge can be trusted is unknown.")
    return found


def _of_power(summary: Mapping[str, Any]) -> list[str]:
    """What is undecided, and how many questions would decide a difference of the size seen."""
    family = summary["draft"]["comparisons"] if summary["draft"] else []
    found = []
    for each in [*words.ranked(summary), *family]:
        if each["verdict"] != "underpowered":
            continue
        shown = words.points(each["minimal_detectable"], signed=False)
        told = f"{words.comparison_label(each['name'])} is undecided: {each['n']:,} questions show differences from {shown} points up"
        found.append(f"{told}{_would_need(each)}.")
    return found


def _would_need(each: Mapping[str, Any]) -> str:
    """Questions for 80 % power at the difference seen; the detectable difference falls with the square root of their number."""
    seen = abs(each["difference"] - min(each["claim"], 0.0))
    if not seen:
        return ", and the difference seen is none"
    needed = each["n"] * (each["minimal_detectable"] / seen) ** 2
    if needed <= each["n"]:
        return ", about what was seen; more questions would decide it"
    if needed >= _MOST_TOLD:
        return "; the one seen is too small to ever be decided"
    about = round(needed, -max(0, math.floor(math.log10(needed)) - 1))
    return f"; to decide one of the size seen ({words.points(seen, signed=False)}) would take about {about:,.0f}"
