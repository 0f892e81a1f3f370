"""Which teacher replies become training rows, and what that does to the classes.

Filtering by agreement with gold hands the teacher's bias to the labels. A recipe says what becomes of a question on which no reply agrees:
it is left out ("drop"; "resample" where the teacher has been asked again before; "consensus" where the majority must be gold as well), or it
keeps the reply given knowing the answer, else a template over the gold facts ("rationalise"). Every step is counted by class.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

from tasks.contracts.failures import GuardError
from tasks.contracts.recipes import Curate
from tasks.contracts.rows import Curated, Drafted, Outcome, Question, Taught, Verdict
from tasks.logic.balance import FilterStep, count_classes, rebalance, trained_classes
from tasks.logic.rationales import distinct, pasted, sound, validated

MOST_TEMPLATED = 0.5  # of the questions that were asked about


class Rationale(Protocol):
    """Clarifying questions, their answers and a reasoning sentence, without the verdict."""

    @property
    def asked(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def answered(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def reasoning(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Curation:
    """Curated rows and the counts that led to them.

    `steps` count questions; `trained`, what each track of fine-tuning will see, weights and repeats counted. `reasonings` says how many agreeing
    replies were mended or turned away, by reason; `pasted`, how many of those kept stand under another question too.
    """

    rows: list[Curated]
    steps: tuple[FilterStep, ...]
    trained: tuple[FilterStep, ...]
    reasonings: dict[str, int]
    pasted: int


def curate(drafted: Sequence[Drafted], taught: Sequence[Taught], *, template: Callable[[Question], Rationale], recipe: Curate, seed: int) -> Curation:
    """Turn teacher replies to the `drafted` questions into training rows.

    Per question: every agreeing reply of the teacher's own whose reasoning is of use; else what `recipe.disagreement` says. A question without any
    reply, because nobody asked, keeps a row without reasoning. `recipe.pair_share` of the questions, stratified by class and kind, get the role
    "pair" and are kept from SFT; the others are rebalanced to the share of yes that all of them had.
    """
    replies = _by_question(taught)
    votes = {qid: consensus([row.verdict for row in rows if _usable(row) and not row.hinted]) for qid, rows in replies.items()}
    agreed = [row for row in taught if _agrees(row)]
    of_use, counts = sound(agreed, min_words=recipe.min_words, max_words=recipe.max_words)
    confirmed, doubts = validated(of_use) if recipe.validate_with == "teacher" else (of_use, Counter())
    chosen, repeats = distinct(confirmed, near_duplicate=recipe.near_duplicate, most=recipe.rationales)
    majority = {row.qid for row in drafted if row.qid in votes and votes[row.qid].verdict == row.answer}
    usable = [row for row in chosen if recipe.disagreement != "consensus" or row.qid in majority]

    roles = assign_roles(drafted, pair_share=recipe.pair_share, seed=seed)
    kept = _kept(drafted, replies, _by_question(usable), template=template, recipe=recipe)
    kept = [_voted(replace(row, role=roles[row.qid]), votes) for row in kept]
    source = count_classes("questions", drafted)
    balanced = rebalance(kept, how=recipe.rebalance, target_yes_share=source.yes_share, seed=seed)

    def left(step: str, rows: Iterable[Question]) -> FilterStep:
        qids = {row.qid for row in rows}
        return count_classes(step, (row for row in drafted if row.qid in qids))

    steps = (
        source,
        left("asked", taught),
        left("reply with a verdict", (row for row in _own(taught) if _usable(row))),
        left("teacher agrees with gold", _own(agreed)),
        left("reasoning of use", _own(of_use)),
        *([left("reasoning validated", _own(confirmed))] if recipe.validate_with == "teacher" else []),
        *([left("majority is gold", _own(usable))] if recipe.disagreement == "consensus" else []),
        left(f"after {recipe.disagreement}", kept),
    )
    others = pasted([row for row in kept if row.provenance in ("agreed", "rationalised")], near_duplicate=recipe.near_duplicate, seed=seed)
    return Curation(rows=balanced, steps=steps, trained=trained_classes(balanced), reasonings=dict(counts + doubts + repeats), pasted=others)


def templated_share(rows: Sequence[Curated]) -> float:
    """Of the questions that were asked about, how many are taught from a template whose replies were bought and could not be used.

    Raises GuardError where it is most of them: then the templates would be the teacher.
    """
    asked = {row.qid for row in rows if row.provenance != "unasked"}
    vain = {row.qid for row in rows if row.provenance == "template" and row.outcome in (Outcome.CUT, Outcome.REFUSED, Outcome.UNPARSED)}
    if len(vain) > MOST_TEMPLATED * len(asked):
        raise GuardError(
            f"{len(vain)} of {len(asked)} questions would be taught from templates because their replies cannot be used; "
            "look at the notes of the teach stage, raise recipe.teacher.max_tokens or choose another teacher, or set recipe.curate.disagreement=drop"
        )
    return len(vain) / len(asked) if asked else 0.0


class Consensus(NamedTuple):
    """What most usable samples say, and by what share of them it leads."""

    verdict: str
    margin: float


def consensus(verdicts: Sequence[str]) -> Consensus:
    """Majority among replies that can be used, with its margin as a share of them; unparsed and 0 where there is none."""
    lead = verdicts.count(Verdict.YES) - verdicts.count(Verdict.NO)
    if not lead:
        return Consensus(Verdict.UNPARSED, 0.0)
    return Consensus(Verdict.YES if lead > 0 else Verdict.NO, abs(lead) / len(verdicts))


def assign_roles(questions: Sequence[Question], *, pair_share: float, seed: int) -> dict[str, str]:
    """Role "sft" or "pair" by qid: within each class every (1 / pair_share)-th question, kinds in turn, so that small strata are not rounded away."""
    roles: dict[str, str] = {}
    for answer in sorted({question.answer for question in questions}):
        members = [question for question in questions if question.answer == answer]
        ordered = sorted(members, key=lambda each: (each.kind, hashlib.sha256(f"{seed}:{each.qid}".encode()).digest()))
        for rank, question in enumerate(ordered):
            held = math.floor((rank + 1) * pair_share) > math.floor(rank * pair_share)
            roles[question.qid] = "pair" if held else "sft"
    return roles


def _by_question(rows: Iterable[Taught]) -> dict[str, list[Taught]]:
    groups: dict[str, list[Taught]] = defaultdict(list)
    for row in rows:
        groups[row.qid].append(row)
    return dict(groups)


def _own(rows: Iterable[Taught]) -> list[Taught]:
    """Replies given without knowing the answer."""
    return [row for row in rows if not row.hinted]


def _usable(row: Taught) -> bool:
    return row.outcome == Outcome.OK


def _agrees(row: Taught) -> bool:
    return _usable(row) and row.verdict == row.answer and bool(row.reasoning)


def _kept(
    drafted: Sequence[Drafted],
    replies: Mapping[str, Sequence[Taught]],
    usable: Mapping[str, Sequence[Taught]],
    *,
    template: Callable[[Question], Rationale],
    recipe: Curate,
) -> list[Curated]:
    """Rows in the order of the questions, roles and votes still empty."""
    kept: list[Curated] = []
    for question in drafted:
        chosen = usable.get(question.qid, ())
        hinted = next((row for row in chosen if row.hinted), None)
        if question.qid not in replies:
            kept.append(_unasked(question))
        elif own := _own(chosen):
            kept += [_curated(row, provenance="agreed", weight=1.0) for row in own]
        elif recipe.disagreement == "rationalise":
            weight = recipe.rationalised_weight
            first = replies[question.qid][0]
            kept.append(_curated(hinted, provenance="rationalised", weight=weight) if hinted else _from_template(first, template(first), weight=weight))
    return kept


def _voted(row: Curated, votes: Mapping[str, Consensus]) -> Curated:
    vote = votes.get(row.qid, Consensus(Verdict.UNPARSED, 0.0))
    return replace(row, consensus=vote.verdict, consensus_margin=vote.margin)


def _curated(row: Taught, *, provenance: str, weight: float) -> Curated:
    values: dict[str, Any] = {field.name: getattr(row, field.name) for field in fields(Taught)}
    return Curated(
        **values, provenance=provenance, weight=weight, direct_weight=1.0, verdict_factor=1.0, role="", consensus=Verdict.UNPARSED, consensus_margin=0.0
    )


def _from_template(first: Taught, written: Rationale, *, weight: float) -> Curated:
    """The gold facts in the place of a reply."""
    told = replace(first, asked=written.asked, answered=written.answered, reasoning=written.reasoning, verdict=first.answer, asked_source="gold")
    return _curated(told, provenance="template", weight=weight)


def _unasked(question: Drafted) -> Curated:
    """A question that nobody asked the teacher about: its gold label, and no reasoning."""
    nothing: dict[str, Any] = {field.name: "" for field in fields(Taught)} | {field.name: getattr(question, field.name) for field in fields(Drafted)}
    nothing |= {"sample": 0, "verdict": Verdict.UNPARSED, "asked": (), "answered": (), "hinted": False, "attempts": 0, "status": 0}
    return _curated(Taught(**nothing), provenance="unasked", weight=1.0)
