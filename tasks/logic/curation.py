"""Which teacher replies become training rows, and what that does to the classes.

Filtering by agreement with gold hands the teacher's bias to the labels, so a question is by default never dropped: where no reply of
the teacher's own agrees with gold, the reply it gave knowing the answer is used, and where there is none, a template over the gold facts.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, Protocol

from tasks.contracts.failures import UnbalancedCorpus
from tasks.contracts.rows import Curated, Outcome, Question, Taught, Verdict


class Rationale(Protocol):
    """Clarifying questions, their answers and a reasoning sentence, without the verdict."""

    @property
    def asked(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def answered(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def reasoning(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class FilterStep:
    """Questions per class after one step of curation. `yes_share` is kept as a number because reports and gates read it."""

    step: str
    yes: int
    no: int

    @property
    def yes_share(self) -> float:
        """Share of "yes" among the questions that are left; 0 where none is."""
        return self.yes / (self.yes + self.no) if self.yes + self.no else 0.0


@dataclass(frozen=True, kw_only=True)
class Curation:
    """Curated rows and the class counts that led to them."""

    rows: list[Curated]
    steps: tuple[FilterStep, ...]


def curate(
    taught: Sequence[Taught],
    *,
    template: Callable[[Question], Rationale],
    disagreement: Literal["drop", "resample", "rationalise", "consensus"],
    rationalised_weight: float,
    pair_share: float,
    seed: int,
) -> Curation:
    """Turn teacher replies into training rows.

    Per question: every agreeing reply of the teacher's own; else, unless `disagreement` is "drop", its reply given the gold facts;
    else the template. `pair_share` of the questions, stratified by class and kind, get the role "pair" and are kept from SFT.
    """
    groups: dict[str, list[Taught]] = defaultdict(list)
    for row in taught:
        groups[row.qid].append(row)
    votes = {qid: consensus([row.verdict for row in rows if not row.hinted and row.outcome == Outcome.OK]) for qid, rows in groups.items()}
    roles = assign_roles([rows[0] for rows in groups.values()], pair_share=pair_share, seed=seed)
    parsed = [rows for rows in groups.values() if any(row.outcome == Outcome.OK and not row.hinted for row in rows)]
    agreed = {qid: _distinct(row for row in rows if _agrees(row) and not row.hinted) for qid, rows in groups.items()}
    kept: list[Curated] = []
    for qid, rows in groups.items():
        if agreed[qid]:
            kept += [_curated(row, provenance="agreed", weight=1.0, role=roles[qid]) for row in agreed[qid]]
        elif disagreement == "rationalise":
            kept.append(_rationalised(rows, template=template, weight=rationalised_weight, role=roles[qid]))
    kept = [replace(row, consensus=votes[row.qid].verdict, consensus_margin=votes[row.qid].margin) for row in kept]
    steps = (
        _count("asked", (rows[0] for rows in groups.values())),
        _count("reply with a verdict", (rows[0] for rows in parsed)),
        _count("teacher agrees with gold", (rows[0] for qid, rows in groups.items() if agreed[qid])),
        _count(f"after {disagreement}", {row.qid: row for row in kept}.values()),
    )
    return Curation(rows=kept, steps=steps)


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


def check_balance(steps: Sequence[FilterStep], *, max_shift: float) -> None:
    """Raise UnbalancedCorpus when curation moved the share of "yes" by more than `max_shift`, or emptied a class."""
    before, after = steps[0], steps[-1]
    shift = abs(after.yes_share - before.yes_share)
    if shift > max_shift or (before.yes and not after.yes) or (before.no and not after.no):
        raise UnbalancedCorpus(
            f"curation moved the share of yes from {before.yes_share:.1%} to {after.yes_share:.1%} (allowed: {max_shift:.1%}); "
            f"kept {after.yes} of {before.yes} yes and {after.no} of {before.no} no. "
            "Use recipe.curate.disagreement=rationalise, a less biased teacher, or raise recipe.curate.max_shift knowingly"
        )


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


def _agrees(row: Taught) -> bool:
    return row.outcome == Outcome.OK and row.verdict == row.answer and bool(row.reasoning)


def _distinct(rows: Iterable[Taught]) -> list[Taught]:
    """Rows with different reasoning; the first of equals."""
    return list({" ".join(row.reasoning.lower().split()): row for row in reversed(list(rows))}.values())[::-1]


def _rationalised(rows: Sequence[Taught], *, template: Callable[[Question], Rationale], weight: float, role: str) -> Curated:
    for row in rows:
        if row.hinted and _agrees(row):
            return _curated(row, provenance="rationalised", weight=weight, role=role)
    first = rows[0]
    written = template(first)
    return _curated(
        first,
        provenance="template",
        weight=weight,
        role=role,
        asked=written.asked,
        answered=written.answered,
        reasoning=written.reasoning,
        verdict=first.answer,
        asked_source="gold",
    )


def _curated(row: Taught, *, provenance: str, weight: float, role: str, **replaced: Any) -> Curated:
    values = {field.name: getattr(row, field.name) for field in fields(Taught)}
    return Curated(
        **{**values, **replaced, "provenance": provenance, "weight": weight, "verdict_factor": 1.0, "role": role, "consensus": "", "consensus_margin": 0.0}
    )


def _count(step: str, rows: Iterable[Question]) -> FilterStep:
    answers = [row.answer for row in rows]
    return FilterStep(step=step, yes=answers.count("yes"), no=answers.count("no"))
