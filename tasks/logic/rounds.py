"""A round of the self-guided loop as one row: what it was made of, what its student showed, and what the gate said."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields

from tasks.contracts.recipes import Gate
from tasks.contracts.rounds import Attempt, Gauged, Round, Tails
from tasks.contracts.rows import Pair, Prediction, Verdict
from tasks.logic.gates import Standing, gate, hardest_third, standing
from tasks.logic.loops import best_before
from tasks.logic.round_pairs import fresh_pairs
from tasks.logic.tails import no_tails, tails


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a round is, apart from its figures; the fields of Round with these names."""

    number: int
    parent: str
    student: str
    digest: str
    seed: int
    minutes: float
    dollars: float
    started_at: str
    flow_run: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Rows behind a round. `source`: the start student's samples of the train questions, which tell difficulty; `first`: the first alignment's pairs."""

    attempts: Sequence[Attempt]
    source: Sequence[Attempt]
    pairs: Sequence[Pair]
    first: Sequence[Pair]
    read: Sequence[Prediction]  # the round's student on dev
    parent: Sequence[Prediction]
    gauged: Sequence[Gauged]


@dataclass(frozen=True, kw_only=True)
class _Counts:
    questions: int = 0
    samples: int = 0
    pairs: int = 0
    replayed: int = 0


_UNKNOWN = Standing(**{field.name: math.nan for field in fields(Standing)})


def opening(entry: Entry, *, read: Sequence[Prediction], hardest: Collection[str]) -> Round:
    """Round 0: the student that the loop starts from, beside itself."""
    return _row(entry, "start", (), _Counts(), standing(read, read, hardest=hardest, gauged=()), no_tails())


def given_up(entry: Entry, *, why: str) -> Round:
    """A round that came to no student."""
    return _row(entry, "reverted", (why,), _Counts(), _UNKNOWN, no_tails())


def judged(entry: Entry, evidence: Evidence, *, start: Sequence[Prediction], dev_attempts: Sequence[Attempt], rounds: Sequence[Round], recipe: Gate) -> Round:
    """A finished round by the gate. `start` is the start student's reading of dev, `dev_attempts` its samples there, `rounds` those before."""
    hardest = hardest_third(dev_attempts, start)
    found = standing(evidence.read, evidence.parent, hardest=hardest, gauged=evidence.gauged)
    parent = standing(evidence.parent, evidence.parent, hardest=hardest, gauged=())
    begun = standing(start, start, hardest=hardest, gauged=())
    gold_yes = sum(row.answer == Verdict.YES for row in evidence.read) / len(evidence.read)
    best = best_before(rounds, parent=entry.parent, accuracy=parent.accuracy)
    checks = gate(found, parent=parent, start=begun, best=best, gold_yes=gold_yes, recipe=recipe)
    reasons = tuple(check.said for check in checks if not check.passed)
    fresh = fresh_pairs(evidence.pairs, evidence.first)
    counts = _Counts(
        questions=len({row.qid for row in evidence.attempts}),
        samples=len(evidence.attempts),
        pairs=len(evidence.pairs),
        replayed=len(evidence.pairs) - len(fresh),
    )
    spread = tails(fresh, attempts=evidence.attempts, source=evidence.source, gauged=evidence.gauged)
    return _row(entry, "reverted" if reasons else "accepted", reasons, counts, found, spread)


def _row(entry: Entry, verdict: str, reasons: tuple[str, ...], counts: _Counts, found: Standing, spread: Tails) -> Round:
    return Round(**asdict(entry), **asdict(found), **asdict(spread), **asdict(counts), verdict=verdict, reasons=reasons)
