"""Pairs of clarifying questions for a blinded judge, what its replies mean, and what all of them together show."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tasks.contracts.asks import Answer, Ask
from tasks.contracts.evidence import JudgeEvidence
from tasks.contracts.failures import DataError
from tasks.contracts.fingerprint import fingerprint
from tasks.contracts.recipes import Judge, Teacher
from tasks.contracts.rows import Judgement, Outcome, Prediction
from tasks.logic.benchmarks import Benchmark
from tasks.logic.benchmarks.judge_talk import Preferred
from tasks.logic.scores import Finding
from tasks.logic.statistics import Interval, cohens_kappa, paired_bootstrap
from tasks.logic.teaching import replies_as_json

CLAIM = 0.10  # of the net win rate, fixed before anything is judged
MOST_INCONSISTENT = 0.35  # share of pairs whose winner changes with the order; with more, the judge reads the order and not the questions
FEWEST_PAIRS = 100  # the interval of the net is then 16 to 20 points wide on either side; with fewer pairs nothing is decided
FEWEST_EVENTS = 10  # wins, and losses, for each coefficient of a logistic fit (Peduzzi et al. 1996)
ATTEMPTS = 2  # asks before an unreadable ruling is kept as such
WINNERS = ("new", "old", "tie")


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The clarifying questions of two models for the same question, blinded."""

    qid: str
    question: str
    new: tuple[str, ...]
    old: tuple[str, ...]

    @property
    def settled(self) -> str:
        """The winner where none has to be asked: equal sets tie, and a model that asked nothing loses to one that asked; else ""."""
        if sorted(map(str.casefold, self.new)) == sorted(map(str.casefold, self.old)):
            return "tie"
        if not self.new or not self.old:
            return "new" if self.new else "old"
        return ""


class Report(NamedTuple):
    """What the judge's rulings show, and what a reader must know besides."""

    evidence: JudgeEvidence
    notes: list[str]


def as_teacher(recipe: Judge) -> Teacher:
    """The judge as one who is asked like a teacher: the same endpoint, ledger, pace and budget. Greedy, and a simulated one knows no errors of facts."""
    return Teacher(
        kind="openai" if recipe.kind == "openai" else "simulated",
        model=recipe.model,
        samples=1,
        temperature=0.0,
        max_tokens=recipe.max_tokens,
        ask=True,
        select="all",
        select_share=1.0,
        attempts=ATTEMPTS,
        response_format="auto",
        recordings=(),
        error_rate=0.0,
        no_bias=0.0,
    )


def contests(new: Sequence[Prediction], old: Sequence[Prediction], *, arm: str, size: int, benchmark: Benchmark) -> list[Contest]:
    """The first `size` (0 = all) questions that both models answered under `arm`, with the clarifying questions of their chains.

    Raises DataError where they share no question.
    """
    before = {row.qid: row for row in old if row.arm == arm}
    shared = [row for row in new if row.arm == arm and row.qid in before][: size or None]
    if not shared:
        raise DataError(f"the aligned model and Track B share no answer of the {arm} arm, so a judge has nothing to compare; raise recipe.grade.arm_questions")

    def asked(row: Prediction) -> tuple[str, ...]:
        return benchmark.blinded(benchmark.parse_skeleton(row.text).asked)

    return [Contest(qid=row.qid, question=row.question, new=asked(row), old=asked(before[row.qid])) for row in shared]


def judge_asks(pairs: Sequence[Contest], *, recipe: Judge, benchmark: Benchmark) -> list[Ask]:
    """Two asks for each contest that is not settled: `new` shown first, then `old`. The order of the sets makes another prompt, so another ledger key."""
    as_json = _as_json(recipe)
    schema = benchmark.judge_schema if as_json else None
    orders = [(pair, *order) for pair in pairs if not pair.settled for order in ((pair.new, pair.old), (pair.old, pair.new))]
    return [
        Ask(
            qid=pair.qid,
            sample=0,
            messages=benchmark.judge_messages(pair.question, first=first, second=second, as_json=as_json),
            hinted=False,
            schema=schema,
        )
        for pair, first, second in orders
    ]


def preference_problem(benchmark: Benchmark) -> Callable[[str], str | None]:
    """What says why a judge's reply cannot be used, None where it can."""

    def problem(text: str) -> str | None:
        return "it names no one winner at its end" if benchmark.parse_preference(text) is Preferred.UNPARSED else None

    return problem


def judgements(pairs: Sequence[Contest], answers: Sequence[Answer], *, benchmark: Benchmark) -> list[Judgement]:
    """One row a contest, from the answers to their `judge_asks`. A pair of which either order has no readable ruling is unparsed."""
    rulings = iter(answers)
    rows = []
    for pair in pairs:
        first, second, judge = pair.settled, pair.settled, ""
        if not pair.settled:
            one, other = next(rulings), next(rulings)
            first = _winner(one, shown=("new", "old"), benchmark=benchmark)
            second = _winner(other, shown=("old", "new"), benchmark=benchmark)
            judge = one.model or other.model
        winner = "unparsed" if "unparsed" in (first, second) else first if first == second else "tie"
        rows.append(Judgement(qid=pair.qid, question=pair.question, new=pair.new, old=pair.old, first=first, second=second, winner=winner, judge=judge))
    return rows


def _winner(answer: Answer, *, shown: tuple[str, str], benchmark: Benchmark) -> str:
    preferred = benchmark.parse_preference(answer.text) if answer.outcome == Outcome.OK else Preferred.UNPARSED
    return {Preferred.FIRST: shown[0], Preferred.SECOND: shown[1]}.get(preferred, preferred.value)


def judge_report(rows: Sequence[Judgement], *, recipe: Judge, teacher: str, labels: dict[str, str], benchmark: Benchmark, resamples: int, seed: int) -> Report:
    """All rulings as evidence. `net` = (wins - losses) / n over the pairs with a readable ruling; ties count for neither side.

    A judge whose winner changes with the order on more than 35 % of the pairs it ruled on, or that cannot be read on more than 35 %, is unusable, and then
    nothing is decided. Otherwise: pass when net >= 0.10 and its bootstrap interval lies above 0, fail when the interval lies below 0.10, and underpowered
    for all else and below 100 pairs. `labels` are a person's winners by question.
    """
    read = [row for row in rows if row.winner != "unparsed"]
    ruled = [row for row in read if row.judge]
    unparsed, winners = len(rows) - len(read), [row.winner for row in read]
    wins, losses = winners.count("new"), winners.count("old")
    net = (wins - losses) / max(len(read), 1)
    won, lost = [each == "new" for each in winners], [each == "old" for each in winners]
    interval = paired_bootstrap(won, lost, resamples=resamples, seed=seed) if read else Interval(-1.0, 1.0)
    inconsistent = sum(row.first != row.second for row in ruled) / max(len(ruled), 1)
    usable = inconsistent <= MOST_INCONSISTENT and unparsed <= MOST_INCONSISTENT * (len(ruled) + unparsed)
    longer = np.array([_words(row.new) - _words(row.old) for row in read], dtype=np.float64)
    fitted = net_at_equal_length(winners, longer)
    table = [[sum(labels.get(row.qid) == human and row.winner == ruling for row in ruled) for ruling in WINNERS] for human in WINNERS]
    kappa = cohens_kappa(table) if any(map(any, table)) else None
    evidence = JudgeEvidence(
        judge=", ".join(sorted({row.judge for row in rows} - {""})) or "nobody (no pair needed a judge)",
        prompt=fingerprint(benchmark.judge_instructions(as_json=_as_json(recipe))),
        n=len(read),
        wins=wins,
        ties=winners.count("tie"),
        losses=losses,
        unparsed=unparsed,
        net=net,
        ci_low=interval.low,
        ci_high=interval.high,
        inconsistent=inconsistent,
        usable=usable,
        words=float(longer.mean()) if read else 0.0,
        net_at_equal_length=net if fitted is None else fitted,
        verdict=_verdict(len(read), net, interval) if usable else Finding.UNDERPOWERED,
        human_n=sum(map(sum, table)),
        kappa=kappa.value if kappa else None,
        kappa_low=kappa.interval.low if kappa else None,
        kappa_high=kappa.interval.high if kappa else None,
    )
    unasked = sum(row.winner == "tie" and not row.judge for row in rows)
    return Report(evidence, _notes(evidence, unasked=unasked, recipe=recipe, teacher=teacher, fitted=fitted is not None))


def judge_counts(pairs: Sequence[Contest]) -> dict[str, int]:
    """How many pairs were put to the judge, and how the others were settled without it."""
    settled = Counter(pair.settled for pair in pairs)
    silent = sum(not pair.new and not pair.old for pair in pairs)
    return {
        "asked": settled[""],
        "equal": settled["tie"] - silent,
        "neither_asked": silent,
        "new_asked_nothing": settled["old"],
        "old_asked_nothing": settled["new"],
    }


def net_at_equal_length(winners: Sequence[str], longer: npt.NDArray[np.float64]) -> float | None:
    """The net that two sets of equally many words would have; None where the rulings do not support a fit.

    logit P(new wins | somebody wins) = a + b * longer, fitted over wins and losses; the net at `longer` = 0 is (2 P - 1) times the share that was decided.
    No fit with fewer than ten wins or losses, lengths that do not vary, or lengths that separate the winners.
    """
    from statsmodels.discrete.discrete_model import Logit  # a second to import, which only a judged run pays

    decided = np.array([winner in ("new", "old") for winner in winners], dtype=bool)
    won = np.array([winner == "new" for winner in winners], dtype=np.float64)[decided]
    lengths = longer[decided]
    if min(won.sum(), len(won) - won.sum()) < FEWEST_EVENTS or np.ptp(lengths) == 0:
        return None
    covariates = np.column_stack([np.ones(len(won)), lengths / np.abs(lengths).max()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # separation and a singular Hessian are warnings to statsmodels
        try:
            intercept = float(Logit(won, covariates).fit(disp=0).params[0])
        except (Warning, np.linalg.LinAlgError, ArithmeticError):
            return None
    return float(np.tanh(intercept / 2)) * len(won) / len(winners)  # 2 sigmoid(a) - 1


def _verdict(n: int, net: float, interval: Interval) -> Finding:
    if n < FEWEST_PAIRS:
        return Finding.UNDERPOWERED
    if net >= CLAIM and interval.low > 0:
        return Finding.PASS
    return Finding.FAIL if interval.high < CLAIM else Finding.UNDERPOWERED


def _notes(evidence: JudgeEvidence, *, unasked: int, recipe: Judge, teacher: str, fitted: bool) -> list[str]:
    notes = {
        "the judge's winner changes with the order too often, or its rulings cannot be read too often, for it to be believed": not evidence.usable,
        f"fewer than {FEWEST_PAIRS} pairs decide nothing: raise recipe.judge.questions": evidence.n < FEWEST_PAIRS,
        f"on {unasked} of {evidence.n} pairs both models asked the same, or nothing, so nobody was asked: these tie": 2 * unasked > evidence.n,
        "too few wins or losses, or lengths that do not vary or that tell them apart: the net at equal length is the plain net": not fitted,
        f"the judge is the teacher's own model ({teacher}), whose wording the student learned: better ask another family": recipe.model == teacher,
        "a simulated judge counts shared words: its figures show that the experiment works, and nothing about the students": recipe.kind == "simulated",
    }
    return [note for note, holds in notes.items() if holds]


def _as_json(recipe: Judge) -> bool:
    return replies_as_json("auto", model=recipe.model)


def _words(asked: Sequence[str]) -> int:
    return sum(len(question.split()) for question in asked)
