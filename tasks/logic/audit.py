"""Is this teacher fit to teach, and are these questions apart? Figures over replies and questions before anything is trained on them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any, Protocol

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Outcome, Question, Taught, Verdict
from tasks.logic.curation import consensus
from tasks.logic.scores import YES_NO
from tasks.logic.statistics import cohens_kappa, mcnemar, wilson

MOST_SHIFT = 0.07  # ALGORITHMS 7.2: a teacher whose share of yes is further from gold's hands its bias to the labels
_FEW = 30  # a teacher may be right on this many questions by itself
_SENTENCE_ENDS = tuple(".!?…")
_WORD = re.compile(r"\w+")
_CLOSING = "\"'”’)]}*_`>| \t\n"


class Finding(StrEnum):
    """What the figures say about a teacher."""

    FAIR = "fair"
    BIASED = "biased"
    FILTERED = "filtered"  # every reply agrees with gold, which no teacher does: its bias cannot be seen any more
    SILENT = "silent"  # not one verdict


class ParsedReply(Protocol):
    """A teacher's reply taken apart: its verdict, and why it cannot be used ("" = it can)."""

    @property
    def verdict(self) -> Verdict: ...  # noqa: D102
    @property
    def problem(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One reply as the pipeline reads it. `stated` is the verdict that its own words give, `broken` says that they end in mid-sentence."""

    qid: str
    outcome: str
    verdict: str
    stated: str
    broken: bool


@dataclass(frozen=True, kw_only=True)
class Source:
    """All replies that came from one place: a recorded file, or a model in a taught table."""

    name: str
    kind: str  # recorded | taught
    heard: tuple[Heard, ...]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What the replies of one source are worth. Shares are 0 to 1, None where there is nothing to share; no verdict counts as wrong.

    `true_yes` (TPR) and `true_no` (TNR) are what agreement with gold would keep of each class; `yes_rate` and `gold_yes_rate` are over the replies with a
    verdict, so that silence is not taken for bias; `shift_p` is the exact McNemar test of that shift.
    """

    name: str
    kind: str
    replies: int
    questions: int
    answered: int
    unparsed: int
    cut: int
    no_reply: int
    unstated: int  # answered, but only by the file's verdict: the words themselves give none
    unstated_cut: int  # of these, words that end in mid-sentence
    contradicted: int  # the words say the opposite of the file's verdict
    left_out: Mapping[str, int]  # replies that are not judged, by reason
    true_yes: float | None
    true_no: float | None
    balanced_accuracy: float | None
    yes_rate: float | None
    gold_yes_rate: float | None
    shift: float | None
    shift_p: float
    agreement: float
    ci_low: float
    ci_high: float
    agreement_answered: float | None
    finding: Finding
    steps: tuple[Mapping[str, Any], ...]  # questions by class: asked, with a verdict, with an agreeing one


@dataclass(frozen=True, kw_only=True)
class Kappa:
    """How far two sources give the same verdict beyond chance (Cohen 1960), over the `n` questions that both answered, with a 95 % interval."""

    left: str
    right: str
    n: int
    agreement: float
    kappa: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, kw_only=True)
class Exemplar:
    """A worked example of the recorded prompts that is itself a question of the data. `part` is its split; `read` says that the pipeline reads it there."""

    qid: str
    question: str
    part: str
    read: bool


def hear(qid: str, *, words: str, text: str, parse: Callable[[str], ParsedReply]) -> Heard:
    """Read a recorded reply: `words` are the teacher's own, `text` is what the pipeline sees, which may end with the verdict of the file."""
    read, broken = parse(text), ends_mid_sentence(words)
    outcome = Outcome.OK if not read.problem else Outcome.CUT if broken else Outcome.UNPARSED
    verdict = read.verdict if outcome is Outcome.OK else Verdict.UNPARSED
    return Heard(qid=qid, outcome=outcome, verdict=verdict, stated=parse(words).verdict, broken=broken)


def taught_sources(rows: Sequence[Taught]) -> list[Source]:
    """The teacher's own replies of a taught table by model name. Those that knew gold are left out, and so are rows without any reply, which name no model."""
    by_model: defaultdict[str, list[Heard]] = defaultdict(list)
    for row in rows:
        if row.teacher and not row.hinted:
            broken = ends_mid_sentence(row.reply)
            by_model[row.teacher].append(Heard(qid=row.qid, outcome=row.outcome, verdict=row.verdict, stated=row.verdict, broken=broken))
    return [Source(name=f"{model} (taught)", kind="taught", heard=tuple(heard)) for model, heard in by_model.items()]


def ends_mid_sentence(text: str) -> bool:
    """Whether there are words and the last of them are no whole sentence: no full stop, with or without closing marks, and no yes or no."""
    said = text.rstrip(_CLOSING)
    return bool(said) and not said.endswith(_SENTENCE_ENDS) and _WORD.findall(said.casefold())[-1:] not in (["yes"], ["no"])


def judge(source: Source, *, questions: Sequence[Question], unseen: Mapping[str, str]) -> Teacher:
    """Figures of one source over labelled `questions`; `unseen` says why questions of other ids are not judged (test, exemplar), by id.

    Raises DataError when no reply belongs to `questions`.
    """
    gold = {question.qid: question.answer for question in questions}
    left_out = Counter(unseen.get(each.qid, "not in the question file") for each in source.heard if each.qid not in gold)
    heard = [each for each in source.heard if each.qid in gold]
    if not heard:
        raise DataError(
            f"none of {len(source.heard)} replies of {source.name} belongs to a question that is judged ({dict(left_out)}); check recipe.sample.path"
        )
    cells = Counter((gold[each.qid], each.verdict) for each in heard)
    outcomes = Counter(each.outcome for each in heard)
    yes, no = (sum(count for (truth, _), count in cells.items() if truth == name) for name in YES_NO)
    right, answered = cells["yes", "yes"] + cells["no", "no"], outcomes[Outcome.OK]
    true_yes, true_no = _share(cells["yes", "yes"], yes), _share(cells["no", "no"], no)
    said_yes, gold_yes = cells["yes", "yes"] + cells["no", "yes"], cells["yes", "yes"] + cells["yes", "no"]
    asked = len({each.qid for each in heard})
    interval = wilson(round(right / len(heard) * asked), asked)  # several replies to one question are not independent, so questions are what counts
    shift = (said_yes - gold_yes) / answered if answered else None
    return Teacher(
        name=source.name,
        kind=source.kind,
        replies=len(heard),
        questions=asked,
        answered=answered,
        unparsed=outcomes[Outcome.UNPARSED],
        cut=outcomes[Outcome.CUT],
        no_reply=outcomes[Outcome.REFUSED] + outcomes[Outcome.FAILED],
        unstated=sum(_unstated(each) for each in heard),
        unstated_cut=sum(_unstated(each) and each.broken for each in heard),
        contradicted=sum(each.outcome == Outcome.OK and each.stated not in (each.verdict, Verdict.UNPARSED) for each in heard),
        left_out=dict(sorted(left_out.items())),
        true_yes=true_yes,
        true_no=true_no,
        balanced_accuracy=None if true_yes is None or true_no is None else (true_yes + true_no) / 2,
        yes_rate=_share(said_yes, answered),
        gold_yes_rate=_share(gold_yes, answered),
        shift=shift,
        shift_p=mcnemar(cells["no", "yes"], cells["yes", "no"]),
        agreement=right / len(heard),
        ci_low=interval.low,
        ci_high=interval.high,
        agreement_answered=_share(right, answered),
        finding=_finding(shift, perfect=right == len(heard) > _FEW),
        steps=_steps(heard, gold),
    )


def kappas(sources: Sequence[Source], *, questions: Sequence[Question]) -> list[Kappa]:
    """Every pair of sources that answered some of `questions` both; several replies to a question count as their majority, a tie as none."""
    known = {question.qid for question in questions}
    verdicts = {source.name: _verdicts(source, known) for source in sources}
    pairs = ((left, right, sorted(verdicts[left].keys() & verdicts[right].keys())) for left, right in combinations(verdicts, 2))
    return [_kappa(left, right, [(verdicts[left][qid], verdicts[right][qid]) for qid in shared]) for left, right, shared in pairs if shared]


def exemplars_in(parts: Mapping[str, Sequence[Question]], *, exemplars: frozenset[str], read: Mapping[str, Sequence[Question]]) -> list[Exemplar]:
    """Where worked examples stand in `parts` (splits by name, nothing left out); `read` are the same splits as the pipeline reads them."""
    used = {question.qid for questions in read.values() for question in questions}
    return [
        Exemplar(qid=question.qid, question=question.question, part=part, read=question.qid in used)
        for part, questions in parts.items()
        for question in questions
        if question.qid in exemplars
    ]


def _finding(shift: float | None, *, perfect: bool) -> Finding:
    if shift is None:
        return Finding.SILENT
    if perfect:
        return Finding.FILTERED
    return Finding.BIASED if abs(shift) > MOST_SHIFT else Finding.FAIR


def _verdicts(source: Source, known: set[str]) -> dict[str, str]:
    said: defaultdict[str, list[str]] = defaultdict(list)
    for each in source.heard:
        if each.outcome == Outcome.OK and each.qid in known:
            said[each.qid].append(each.verdict)
    majority = {qid: consensus(verdicts).verdict for qid, verdicts in said.items()}
    return {qid: verdict for qid, verdict in majority.items() if verdict != Verdict.UNPARSED}


def _kappa(left: str, right: str, pairs: Sequence[tuple[str, str]]) -> Kappa:
    counts = Counter(pairs)
    kappa, interval = cohens_kappa([[counts[one, other] for other in YES_NO] for one in YES_NO])
    agreement = sum(one == other for one, other in pairs) / len(pairs)
    return Kappa(left=left, right=right, n=len(pairs), agreement=agreement, kappa=kappa, ci_low=interval.low, ci_high=interval.high)


def _steps(heard: Sequence[Heard], gold: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
    """Questions by class after each step that a filter by agreement would take, in the form of the curate stage's `filters`."""
    kept = {
        "asked": {each.qid for each in heard},
        "reply with a verdict": {each.qid for each in heard if each.outcome == Outcome.OK},
        "agrees with gold": {each.qid for each in heard if each.verdict == gold[each.qid]},
    }
    counts = {step: Counter(gold[qid] for qid in qids) for step, qids in kept.items()}
    return tuple(
        {"step": step, "yes": count["yes"], "no": count["no"], "yes_share": _share(count["yes"], count.total()) or 0.0} for step, count in counts.items()
    )


def _unstated(each: Heard) -> bool:
    return each.outcome == Outcome.OK and each.stated == Verdict.UNPARSED


def _share(count: int, total: int) -> float | None:
    return count / total if total else None
