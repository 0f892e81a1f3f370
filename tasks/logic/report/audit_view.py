"""The data audit as plain figures, and what a careful reader would take from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from tasks.contracts.rows import Question
from tasks.logic.audit import MOST_SHIFT, Finding, Source, exemplars_in, judge, kappas
from tasks.logic.overlap import Overlap, crossings, find_matches, overlaps
from tasks.logic.report.summary import summary_json
from tasks.logic.report.words import p_text, percent, points
from tasks.logic.sampling import Sampled
from tasks.logic.statistics import ALPHA

LISTED = 20  # pairs of questions shown
_MANY = 0.1  # share of replies from which silence, or a verdict that no words bear out, is worth a line
_TEST, _EXEMPLAR, _DUPLICATE = "test questions", "worked examples", "repeated in another split"


@dataclass(frozen=True, kw_only=True)
class AuditFacts:
    """What is audited. `read` are the splits as the pipeline reads them, `named` every part of every published split ("name/split"), nothing left out."""

    profile: str
    overrides: Mapping[str, Any]
    benchmark: str
    named_split: str | None
    read: Mapping[str, Sampled]
    named: Mapping[str, Sequence[Question]]
    exemplars: frozenset[str]
    sources: tuple[Source, ...]
    filters: tuple[Mapping[str, Any], ...]  # of the stored corpus; () where none is stored
    max_shift: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Remark:
    """One line of "read this first": its chip (pass, warn or fail) and what it says."""

    level: str
    text: str


def audit_figures(facts: AuditFacts) -> dict[str, Any]:
    """audit.json: plain values only. Raises DataError when no reply of a source belongs to a labelled train or dev question."""
    read = {split: sampled.questions for split, sampled in facts.read.items()}
    own = {part.partition("/")[2]: questions for part, questions in facts.named.items() if part.startswith(f"{facts.named_split}/")} or read
    matches = find_matches({question.qid: question.question for questions in [*facts.named.values(), *read.values()] for question in questions})
    used = {question.qid for questions in read.values() for question in questions}
    found = crossings(own, matches, read=used)
    judged = [question for split, questions in read.items() if split != "test" for question in questions]
    unseen = _unseen(own, judged=judged, exemplars=facts.exemplars)
    between = [(left, right) for left, right in combinations(facts.named, 2) if left.partition("/")[0] != right.partition("/")[0]]
    figures = {
        "profile": facts.profile,
        "overrides": dict(facts.overrides),
        "benchmark": facts.benchmark,
        "named_split": facts.named_split or "",
        "splits": {split: _split(sampled) for split, sampled in facts.read.items()},
        "judged": {"questions": len(judged), "yes_share": _yes_share(judged)},
        "teachers": [asdict(judge(source, questions=judged, unseen=unseen)) for source in facts.sources],
        "kappas": [asdict(each) for each in kappas(facts.sources, questions=judged)],
        "overlaps": _lines(overlaps(own, combinations(own, 2), matches)),
        "overlaps_read": _lines(overlaps(read, combinations(read, 2), matches)),
        "overlaps_named": _lines(overlaps(facts.named, between, matches)),
        "crossings": len(found),
        "crossings_shown": [asdict(each) for each in found[:LISTED]],
        "exemplars": [asdict(each) for each in exemplars_in(own, exemplars=facts.exemplars, read=read)],
        "class_shares": [dict(each) for each in facts.filters],
        "max_shift": facts.max_shift,
        "notes": list(facts.notes),
    }
    plain: dict[str, Any] = json.loads(summary_json(figures))
    return plain


def headline(figures: Mapping[str, Any]) -> Remark:
    """The page's title: how many teachers may teach."""
    teachers = figures["teachers"]
    biased = [each["name"] for each in teachers if each["finding"] == Finding.BIASED]
    if not teachers:
        return Remark("warn", "No teacher's replies to judge")
    if biased:
        return Remark("fail", f"{len(biased)} of {len(teachers)} teachers {'is' if len(biased) == 1 else 'are'} biased")
    return Remark("pass", "No teacher is biased" if len(teachers) > 1 else "The teacher is not biased")


def verdict(teacher: Mapping[str, Any], figures: Mapping[str, Any]) -> Remark:
    """What the figures say about one teacher, in words."""
    name, base = teacher["name"], figures["judged"]["yes_share"]
    if teacher["finding"] == Finding.SILENT:
        return Remark("fail", f"{name} gives no verdict at all.")
    if teacher["finding"] == Finding.FILTERED:
        share = teacher["steps"][0]["yes_share"]
        return Remark(
            "warn",
            f"{name} agrees with gold on every question: its replies were filtered by gold or carry gold's label, so they show neither its skill nor its bias. "
            f"Its questions are {percent(share)} yes where all are {percent(base)}.",
        )
    shift, kept = teacher["shift"], teacher["steps"][-1]["yes_share"]
    said = f"says yes {percent(teacher['yes_rate'])} of the time where gold has {percent(teacher['gold_yes_rate'])} ({points(shift)} points, "
    said += f"{p_text(teacher['shift_p'], name='p')}; up to {100 * MOST_SHIFT:g} are allowed)"
    after = f"Keeping what agrees with gold would turn {percent(teacher['steps'][0]['yes_share'])} yes into {percent(kept)}."
    if teacher["finding"] == Finding.BIASED:
        return Remark("fail", f"{name} is biased towards {'yes' if shift > 0 else 'no'}: it {said}. {after}")
    lean = f"leans towards {'yes' if shift > 0 else 'no'} within the limit" if teacher["shift_p"] < ALPHA else "is fair"
    return Remark("pass", f"{name} {lean}: it {said}. {after}")


def remarks(figures: Mapping[str, Any]) -> list[Remark]:
    """What is wrong or worth knowing beside the teachers' bias."""
    return [*_about_replies(figures), *_about_questions(figures), *(Remark("quiet", note) for note in figures["notes"])]


def _about_replies(figures: Mapping[str, Any]) -> list[Remark]:
    found = []
    for each in figures["teachers"]:
        name, answered = each["name"], each["answered"]
        lost = each["replies"] - answered
        if lost > _MANY * each["replies"]:
            found.append(Remark("warn", f"{name} gives no readable verdict in {lost:,} of {each['replies']:,} replies; they count as wrong."))
        if each["unstated"] > _MANY * answered or each["unstated_cut"]:
            cut = f"; {each['unstated_cut']} cut in mid-sentence" if each["unstated_cut"] else ""
            found.append(Remark("warn", f"{name}: {each['unstated']:,} of {answered:,} verdicts stand only in the file, the reply itself gives none{cut}."))
        if each["contradicted"] > _MANY * answered:
            found.append(Remark("warn", f"{name}: {each['contradicted']:,} of {answered:,} verdicts in the file say the opposite of the reply's own words."))
    return found


def _about_questions(figures: Mapping[str, Any]) -> list[Remark]:
    found = []
    read = figures["overlaps_read"]
    same, alike, in_file = _doubles(read, "same_id", "same_text"), _doubles(read, "most"), _doubles(figures["overlaps"], "most")
    if same:
        found.append(Remark("fail", f"Questions that the pipeline reads in two splits: {same:,}. Take one side out of the question file."))
    elif alike:
        found.append(Remark("warn", f"Questions of one split that are much like one of another: {alike:,}. See Overlap whether one gives the other away."))
    elif in_file:
        found.append(Remark("pass", f"Questions that stand in two splits of the file: {in_file:,}; the pipeline reads each in one."))
    else:
        found.append(Remark("pass", "No question stands in two splits, by id, text, word 5-grams or characters."))
    if leaks := [_leak(each) for each in figures["overlaps_named"] if {"train", "test"} == {each[side].rpartition("/")[2] for side in ("left", "right")}]:
        found.append(Remark("warn", f"The published splits are different draws; never train on one and test on another: {'; '.join(leaks)}."))
    tested = [each for each in figures["exemplars"] if each["read"]]
    if tested:
        found.append(Remark("warn", f"Worked examples of the recorded prompts that the pipeline reads: {len(tested)} in {tested[0]['part']}."))
    return found


def _doubles(lines: Sequence[Mapping[str, Any]], *measures: str) -> int:
    return sum(max(each[name] for name in measures) for each in lines)


def _leak(overlap: Mapping[str, Any]) -> str:
    train, test = ("left", "right") if overlap["left"].endswith("/train") else ("right", "left")
    return f"{overlap[train]} holds {overlap['same_id']:,} of the {overlap[f'{test}_size']:,} questions of {overlap[test]}"


def _unseen(parts: Mapping[str, Sequence[Question]], *, judged: Sequence[Question], exemplars: frozenset[str]) -> dict[str, str]:
    """Why questions of the data are not judged, by id."""
    seen = {question.qid for question in judged}
    return {
        question.qid: _EXEMPLAR if question.qid in exemplars else _TEST if split == "test" else _DUPLICATE
        for split, questions in parts.items()
        for question in questions
        if question.qid not in seen
    }


def _split(sampled: Sampled) -> dict[str, Any]:
    return {"questions": len(sampled.questions), "yes_share": _yes_share(sampled.questions), "excluded": sampled.excluded}


def _yes_share(questions: Sequence[Question]) -> float:
    return sum(question.answer == "yes" for question in questions) / len(questions) if questions else 0.0


def _lines(found: Sequence[Overlap]) -> list[dict[str, Any]]:
    return [{**asdict(each), "most": each.most} for each in found]
