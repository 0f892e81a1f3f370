"""What happened, in words: sentences made from verdicts and figures, so that the headline cannot say more than the data do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODELS = {
    "zero_shot": "Untrained student",
    "track_a": "Track A, answers only",
    "track_a_matched": "Track A, as many steps as B",
    "track_b": "Track B, reasons first",
    "aligned": "Aligned, after preferences",
    "aligned_shuffled": "Aligned, another question's draft",
    "facts_only": "Track A + facts as plain text",
    "shuffled_rationale": "Track B, shuffled reasoning",
    "entity_prior": "Entity prior, no model",
    "entity_disjoint": "Unseen entities",
}
ARMS = {
    "direct": "direct",
    "calibrated": "direct, calibrated",
    "reasoning": "reasoning",
    "rewrite": "rewrite",
    "self_consistency": "self-consistency",
    "soft": "soft self-consistency",
    "adaptive": "adaptive",
}
DRAFT_ARMS = {
    "rewrite": "full draft",
    "no_draft": "no draft",
    "shuffled_draft": "another question's draft",
    "neutral_draft": "as many neutral words",
    "draft_questions": "the draft's questions alone",
    "draft_verdict": "the draft's verdict alone",
    "aligned_no_draft": "twin trained and read without drafts",
}
_BRIEF = {"zero_shot": "Untrained", "track_a": "Track A", "track_a_matched": "Track A matched", "track_b": "Track B", "aligned": "Aligned"}
_SHORT = {"zero_shot": "the untrained student", "track_a": "Track A", "track_a_matched": "Track A with as many steps", "track_b": "Track B"}
_SHORT |= {"aligned": "the aligned model", "facts_only": "the facts-only control", "shuffled_rationale": "the shuffled-reasoning control"}
_SHORT |= {"full_draft": "the full draft", "no_draft": "no draft", "shuffled_draft": "another question's draft", "neutral_draft": "neutral words"}
_SHORT |= {"draft_questions": "the draft's questions", "draft_verdict": "its verdict alone", "aligned_no_draft": "a twin trained without drafts"}
_SHORT |= {"entity_prior": "the entity prior", "entity_disjoint": "the unseen-entity slice"}
_EXTREME = 0.1  # a yes-rate this near to 0 or 1 is a bias, not an answer


@dataclass(frozen=True)
class Statement:
    """One comparison in words, with the verdict that gives it its colour."""

    verdict: str
    claim: str
    evidence: str


def label(name: str) -> str:
    """Display name of a model or control, longer parts first: "entity_disjoint_track_b" -> "Unseen entities: Track B, reasons first"."""
    if name in MODELS:
        return MODELS[name]
    for known in sorted(MODELS, key=len, reverse=True):
        if name.startswith(f"{known}_"):
            return f"{MODELS[known]}: {label(name.removeprefix(f'{known}_'))}"
    return name.replace("_", " ").capitalize()


def told(name: str, summary: Mapping[str, Any]) -> str:
    """Display name of a model in a run's results: with the other model that it is, where it has two names."""
    same = summary["same_as"]
    if name in same:
        return f"{label(name)} (= {brief(same[name])})"
    return f"{label(name)} (as many steps as B)" if name == "track_a" and same.get("track_a_matched") == name else label(name)


def arm_label(arm: str) -> str:
    """Display name of an arm."""
    return ARMS.get(arm, arm.replace("_", " "))


def brief(name: str) -> str:
    """Name of a model where there is little room."""
    return _BRIEF.get(name, label(name))


def short(name: str) -> str:
    """Name of a model inside a sentence."""
    return _SHORT.get(name, name.replace("_", " "))


def comparison_label(name: str) -> str:
    """ "track_b_vs_track_a" -> "Track B against Track A"."""
    new, _, old = name.partition("_vs_")
    return capitalised(f"{short(new)} against {short(old)}" if old else short(new))


def capitalised(text: str) -> str:
    """The same text with a capital first letter and nothing else changed."""
    return text[:1].upper() + text[1:]


def percent(share: float) -> str:
    """0.876 -> "87.6 %"."""
    return f"{100 * share:.1f} %"


def points(difference: float, *, signed: bool = True) -> str:
    """0.036 -> "+3.6", in percentage points, with a real minus sign."""
    text = f"{100 * difference:+.1f}" if signed else f"{100 * difference:.1f}"
    return text.replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")


def p_text(p: float, *, name: str = "") -> str:
    """0.0357 -> "0.036"; tiny values as "< 0.001"; with a name "p = 0.036"."""
    shown = "< 0.001" if p < 0.001 else f"{p:.2f}" if p >= 0.1 else f"{p:.3f}"
    return shown if not name else f"{name} {shown}" if p < 0.001 else f"{name} = {shown}"


def decimal(value: float) -> str:
    """-0.314 -> "−0.31", with a real minus sign."""
    return f"{value:.2f}".replace("-", "−").replace("−0.00", "0.00")


def change(value: float) -> str:
    """0.32 -> "+0.32", with a real minus sign."""
    return f"{value:+.2f}".replace("-", "−").replace("−0.00", "0.00").replace("+0.00", "0.00")


def quantity(value: float) -> str:
    """0.42 -> "0.42", 41.87 -> "42", 1234.5 -> "1,234": two digits, or the whole number."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """75.2 -> "1 min 15 s"; under ten seconds with one decimal."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def statements(summary: Mapping[str, Any]) -> list[Statement]:
    """Every comparison in words, in the order of `ranked`."""
    return [_statement(each, summary) for each in ranked(summary)]


def ranked(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The comparisons, Track B against Track A first: that is the question the pipeline asks."""
    order = {"track_b_vs_track_a": 0, "track_b_vs_track_a_matched": 1, "aligned_vs_track_b": 2}
    return sorted(summary["comparisons"], key=lambda each: order.get(each["name"], len(order)))


def _statement(each: Mapping[str, Any], summary: Mapping[str, Any]) -> Statement:
    new, _, old = each["name"].partition("_vs_")
    gain, significant = each["difference"], each["p_holm"] < 0.05
    after, before = capitalised(short(new)), short(old)
    if not any(each[key] for key in ("difference", "ci_low", "ci_high")):
        claim = f"{after} and {before} are right on the same questions"
    elif each["verdict"] == "pass":
        claim = f"{after} beats {before}" if significant and gain > 0 else f"{after} is not worse than {before} by more than was allowed"
    elif each["verdict"] == "fail":
        claim = f"{after} is worse than {before}" if gain < 0 else f"{after} stays below the promised gain over {before}"
    else:
        claim = f"No clear difference between {short(new)} and {before}"
    evidence = f"{points(gain)} points (95 % CI {points(each['ci_low'])} to {points(each['ci_high'])}, {p_text(each['p_holm'], name='p')} after Holm)"
    if each["verdict"] == "underpowered":
        evidence += f"; this many questions would show a difference of {points(each['minimal_detectable'], signed=False)} points or more"
    if all(_headline(summary, name) for name in (new, old)):
        evidence = f"{percent(each['right'])} against {percent(each['right'] - gain)} right on the {each['n']} questions that both answered: {evidence}"
    return Statement(each["verdict"], claim, f"{evidence}.")


def one_sided(yes_rate: float) -> bool:
    """Whether answers are so much of one class that they are a bias."""
    return not _EXTREME < yes_rate < 1 - _EXTREME


def unparsed_counts(summary: Mapping[str, Any]) -> str:
    """What a text without a verdict counts as, in this run."""
    return 'they count as "no", as in the original project' if summary["unparsed"] == "as_no" else "they count as wrong"


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """What a careful reader would notice: answers that are one class, accuracy at the majority line, lost verdicts, repeated test reads."""
    found = []
    majority = summary["majority_accuracy"]
    for name, model in {**summary["models"], **summary["controls"]}.items():
        for arm, cell in model["arms"].items():
            where = f"{label(name)} ({arm_label(arm)})"
            if one_sided(cell["yes_rate"]):
                found.append(f"{where} answers yes {percent(cell['yes_rate'])} of the time: that is a bias towards one answer, not reasoning.")
            if cell["unparsed"] > _EXTREME * cell["n"]:
                found.append(f"{where} gave no readable verdict on {cell['unparsed']} of {cell['n']} questions; {unparsed_counts(summary)}.")
    level = [brief(name) for name, model in summary["models"].items() if name != "zero_shot" and model["arms"][model["headline"]]["ci_low"] <= majority]
    if level:
        found.append(f"Not clearly above the majority line of {percent(majority)}: {', '.join(level)}.")
    for read in summary["test_reads"]:
        if read["times"] > 1:
            found.append(f"{capitalised(read['split'])} has been read {read['times']} times under recipe {read['recipe']}: no longer a first look.")
    return found


def _headline(summary: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The headline cell of a model or control, {} where there is none."""
    model = summary["models"].get(name) or summary["controls"].get(name)
    cell: Mapping[str, Any] = model["arms"][model["headline"]] if model else {}
    return cell
