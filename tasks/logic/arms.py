"""Arms made of other answers: several sampled chains, or the direct answer where it is sure and reasoning where it is not."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.contracts.rows import Arm, Completion, Drafted, Prediction, Request, Verdict
from tasks.logic.asking import prediction
from tasks.logic.benchmarks import Benchmark
from tasks.logic.calibration import enough_distance, folds, one_standard_error_threshold
from tasks.logic.scores import is_right

Cost = Mapping[str, float]  # tokens_per_question, ms_per_question


def self_consistency(rows: Sequence[Drafted], chains: Sequence[Completion], *, model: str, benchmark: Benchmark) -> list[Prediction]:
    """The majority of each question's chains (Wang et al. 2023, arXiv 2203.11171). A chain without a verdict has no vote.

    On a tie the first chain with a verdict decides; without any vote there is no verdict. The text is the first chain with the winning verdict.
    """
    own = _by_question(chains)
    return [_majority(row, own[row.qid], model=model, benchmark=benchmark) for row in rows]


def _majority(row: Drafted, chains: Sequence[Completion], *, model: str, benchmark: Benchmark) -> Prediction:
    votes = [benchmark.parse(chain.text, cut=chain.cut) for chain in chains]
    lead = votes.count(Verdict.YES) - votes.count(Verdict.NO)
    first = next((vote for vote in votes if vote is not Verdict.UNPARSED), Verdict.UNPARSED)
    winner = Verdict.YES if lead > 0 else Verdict.NO if lead < 0 else first
    told = prediction(row, chains[votes.index(winner)], model=model, benchmark=benchmark)
    reason = f"no verdict in any of {len(chains)} chains" if winner is Verdict.UNPARSED else ""
    return replace(told, arm=Arm.SELF_CONSISTENCY, tokens=_tokens(chains), margin=lead / len(chains), reason=reason)


def soft_requests(rows: Sequence[Drafted], chains: Sequence[Completion], *, benchmark: Benchmark) -> list[Request]:
    """Yes or no after each chain of these questions without its verdict, in the order of the chains; cut chains are asked too."""
    prompts = {row.qid: benchmark.prompt(Arm.REASONING, row) for row in rows}
    return [
        Request(
            qid=chain.qid,
            arm=Arm.SOFT,
            sample=chain.sample,
            prompt=prompts[chain.qid],
            prefix=benchmark.before_verdict(chain.text),
            yes_choices=benchmark.yes_choices,
            no_choices=benchmark.no_choices,
        )
        for chain in chains
        if chain.qid in prompts
    ]


def soft(rows: Sequence[Drafted], chains: Sequence[Completion], judged: Sequence[Completion], *, model: str, benchmark: Benchmark) -> list[Prediction]:
    """Soft self-consistency: yes where the mean over chains of P(yes | question, chain) is above one half; the margin is its log-odds.

    `judged` answers `soft_requests` of these rows. The text is the first chain that leads to the verdict, with that verdict.
    """
    own, after = _by_question(chains), _by_question(judged)
    return [_mean(row, own[row.qid], after[row.qid], model=model, benchmark=benchmark) for row in rows]


def _mean(row: Drafted, chains: Sequence[Completion], judged: Sequence[Completion], *, model: str, benchmark: Benchmark) -> Prediction:
    margins = np.array([each.margin for each in judged])
    # Sums of logs of sigmoid(margin) and sigmoid(-margin): a mean that rounds to 1 would have no log-odds.
    margin = float(np.logaddexp.reduce(-np.logaddexp(0, -margins)) - np.logaddexp.reduce(-np.logaddexp(0, margins)))
    leading = next((place for place, each in enumerate(margins) if (each > 0) == (margin > 0)), 0)
    told = prediction(row, judged[leading], model=model, benchmark=benchmark)
    verdict = Verdict.YES if margin > 0 else Verdict.NO
    return replace(told, arm=Arm.SOFT, verdict=verdict, tokens=_tokens(chains), cut=chains[leading].cut, margin=margin, reason="")


def calibrated(direct: Sequence[Prediction], dev: Sequence[Prediction]) -> tuple[list[Prediction], list[float]]:
    """Direct answers at thresholds chosen on `dev` direct answers of the same model, in the order given, and these thresholds, one a fold."""
    made: dict[str, Prediction] = {}
    thresholds = []
    for fold in folds((row.qid for row in direct), (row.qid for row in dev)):
        tau = _threshold([row for row in dev if row.qid in fold.known])
        thresholds.append(tau)
        made |= {row.qid: replace(_moved(row, tau), arm=Arm.CALIBRATED) for row in direct if row.qid in fold.asked}
    return [made[row.qid] for row in direct], thresholds


def _threshold(rows: Sequence[Prediction]) -> float:
    return one_standard_error_threshold([row.margin for row in rows], [row.answer == Verdict.YES for row in rows])


def _moved(row: Prediction, tau: float) -> Prediction:
    """A direct answer whose margin is counted from `tau`."""
    verdict = Verdict.YES if row.margin > tau else Verdict.NO
    text = row.text if verdict == row.verdict else f"{row.text} (margin {row.margin:+.2f}, threshold {tau:+.2f}: {verdict})"
    return replace(row, margin=row.margin - tau, verdict=verdict, text=text)


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """The adaptive arm's answers, what was chosen for each fold, and the share of questions that reasoned."""

    predictions: list[Prediction]
    thresholds: list[float]  # of the direct margin
    distances: list[float]  # from the threshold, from which on the direct answer is taken; inf = reasoning always
    reasoned: float


def adaptive(read: Sequence[Prediction], dev: Sequence[Prediction], *, questions: int, calibrate: bool) -> Adapted:
    """The direct answer where its margin is far enough from the threshold, else the greedy reasoning answer, for the first `questions` (0 = all).

    Both the threshold (0 unless `calibrate`) and the distance are chosen on `dev`, the same model's reading of dev; where that is the very reading to
    answer, each half of its questions is answered by what was chosen on the other. An answer that reasoned has paid for its direct answer too.
    """
    fast, slow = _arm(read, Arm.DIRECT), _arm(read, Arm.REASONING)
    dev_fast, dev_slow = _arm(dev, Arm.DIRECT), _arm(dev, Arm.REASONING)
    asked = [qid for qid in fast if qid in slow][: questions or None]
    made: dict[str, Prediction] = {}
    thresholds, distances = [], []
    for fold in folds(asked, dev_fast.keys() & dev_slow.keys()):
        known = sorted(fold.known)
        tau = _threshold([dev_fast[qid] for qid in known]) if calibrate else 0.0
        sure = [_moved(dev_fast[qid], tau) for qid in known]
        limit = enough_distance([abs(row.margin) for row in sure], [is_right(row) for row in sure], [is_right(dev_slow[qid]) for qid in known])
        thresholds.append(tau)
        distances.append(limit)
        made |= {qid: _either(_moved(fast[qid], tau), slow[qid], limit) for qid in fold.asked}
    answers = [made[qid] for qid in asked]
    return Adapted(
        predictions=answers,
        thresholds=thresholds,
        distances=distances,
        reasoned=sum(math.isnan(row.margin) for row in answers) / len(answers) if answers else 0.0,
    )


def _either(fast: Prediction, slow: Prediction, limit: float) -> Prediction:
    if abs(fast.margin) >= limit:
        return replace(fast, arm=Arm.ADAPTIVE)
    return replace(slow, arm=Arm.ADAPTIVE, tokens=fast.tokens + slow.tokens)


def reading_costs(made: Sequence[Prediction], *, seconds: Mapping[str, Mapping[str, float]]) -> dict[str, Cost]:
    """What each arm of one reading takes a question, from the seconds of its steps by arm.

    Steps: "greedy"; "chains", which both sampled arms share; "after chains", which only the soft arm needs.
    """
    rows: dict[str, list[Prediction]] = defaultdict(list)
    for row in made:
        rows[row.arm].append(row)
    drawn = max(len(rows[Arm.SELF_CONSISTENCY]), len(rows[Arm.SOFT]), 1)
    chains, judging = (sum(seconds.get(step, {}).values()) for step in ("chains", "after chains"))
    took = {arm: seconds.get("greedy", {}).get(arm, 0.0) / max(len(found), 1) for arm, found in rows.items()}
    took[Arm.SELF_CONSISTENCY] = chains / drawn
    took[Arm.SOFT] = chains / drawn + judging / max(len(rows[Arm.SOFT]), 1)
    return {str(arm): {"tokens_per_question": _mean_tokens(found), "ms_per_question": 1000 * took[arm]} for arm, found in rows.items() if found}


def adaptive_cost(made: Adapted, parts: Mapping[str, Cost]) -> Cost:
    """What the adaptive arm takes a question: the direct answer always, reasoning where it was asked for."""
    took = parts[Arm.DIRECT]["ms_per_question"] + made.reasoned * parts[Arm.REASONING]["ms_per_question"]
    return {"tokens_per_question": _mean_tokens(made.predictions), "ms_per_question": took}


def _mean_tokens(rows: Sequence[Prediction]) -> float:
    return sum(row.tokens for row in rows) / len(rows) if rows else 0.0


def _tokens(chains: Sequence[Completion]) -> int:
    return sum(chain.tokens for chain in chains)


def _arm(rows: Sequence[Prediction], arm: Arm) -> dict[str, Prediction]:
    return {row.qid: row for row in rows if row.arm == arm}


def _by_question(completions: Sequence[Completion]) -> dict[str, list[Completion]]:
    found: dict[str, list[Completion]] = defaultdict(list)
    for completion in completions:
        found[completion.qid].append(completion)
    return found
