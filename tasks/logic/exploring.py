"""What a student is asked about questions whose answers are known, and which of its samples are worth learning from (ALGORITHMS 5.2, 5.4, 6.2).

A right verdict is no proof of reasoning where chance is right half the time. So a fresh pass of the same student reads each reasoning without its verdict,
once under its own question and once under another one: the verdict must follow from the first and not from the second.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from tasks.contracts.recipes import Explore
from tasks.contracts.rounds import Attempt
from tasks.contracts.rows import Arm, Completion, Curated, Drafted, Request, Verdict
from tasks.logic.asking import arm_requests
from tasks.logic.benchmarks import Benchmark

AFTER, ELSEWHERE = "after", "elsewhere"  # arms of the two readings


def explored_questions(drafted: Sequence[Drafted], curated: Sequence[Curated], *, most: int) -> list[Drafted]:
    """At most `most` questions (0 = all), those held out of SFT first: on the others a student has seen the teacher's chain."""
    held = {row.qid for row in curated if row.role == "pair"}
    return sorted(drafted, key=lambda row: row.qid not in held)[: most or None]


def hard_questions(rows: Sequence[Drafted], completions: Sequence[Completion], *, below: float, benchmark: Benchmark) -> list[Drafted]:
    """Questions on which a smaller share of the samples than `below` is right; a sample without a verdict is not."""
    right: dict[str, list[bool]] = defaultdict(list)
    answers = {row.qid: row.answer for row in rows}
    for each in completions:
        right[each.qid].append(benchmark.parse(each.text, cut=each.cut) == answers[each.qid])
    return [row for row in rows if sum(right[row.qid]) < below * len(right[row.qid])]


def extra_requests(rows: Sequence[Drafted], *, recipe: Explore, benchmark: Benchmark) -> list[Request]:
    """Further samples; they are numbered on from the first ones, and draws depend on the number, so none repeats a first draw."""
    further = arm_requests(rows, arm=Arm(recipe.arm), benchmark=benchmark, samples=recipe.extra_samples)
    return [replace(request, sample=recipe.samples + request.sample) for request in further]


def reading_requests(rows: Sequence[Drafted], completions: Sequence[Completion], *, arm: Arm, benchmark: Benchmark, seed: int) -> list[Request]:
    """Yes or no after the reasoning of every sample that has a verdict (arm `AFTER`), and after reasoning for the other verdict (arm `ELSEWHERE`).

    That is a sample of another question, drawn with the seed: a student that follows its reasoning is moved by it, one that knows its verdict beforehand
    is not. Reasoning for the same verdict could not tell the two apart. Where no other question has the other verdict there is nothing to read elsewhere.
    """
    verdicts = {(each.qid, each.sample): benchmark.parse(each.text, cut=each.cut) for each in completions}
    said = [each for each in completions if verdicts[each.qid, each.sample] is not Verdict.UNPARSED]
    prompts = {row.qid: benchmark.prompt(arm, row) for row in rows}
    rng = random.Random(seed)
    against = {verdict: [each for each in said if verdicts[each.qid, each.sample] is not verdict] for verdict in (Verdict.YES, Verdict.NO)}
    requests = []
    for each in said:
        requests.append(_reading(each, AFTER, prompts[each.qid], each.text, benchmark))
        if others := [other for other in against[verdicts[each.qid, each.sample]] if other.qid != each.qid]:
            requests.append(_reading(each, ELSEWHERE, prompts[each.qid], rng.choice(others).text, benchmark))
    return requests


def _reading(sample: Completion, arm: str, prompt: str, text: str, benchmark: Benchmark) -> Request:
    return Request(
        qid=sample.qid,
        arm=arm,
        sample=sample.sample,
        prompt=prompt,
        prefix=benchmark.before_verdict(text),
        yes_choices=benchmark.yes_choices,
        no_choices=benchmark.no_choices,
    )


def attempts(
    rows: Sequence[Drafted], completions: Sequence[Completion], readings: Sequence[Completion], *, follows: float, benchmark: Benchmark
) -> list[Attempt]:
    """Samples beside gold, by question and number. `readings` answers `reading_requests`; what was not read is nan."""
    by_qid = {row.qid: row for row in rows}
    order = {row.qid: place for place, row in enumerate(rows)}
    margins = {(each.qid, each.sample, each.arm): each.margin for each in readings}
    made = []
    for each in sorted(completions, key=lambda each: (order[each.qid], each.sample)):
        row, verdict = by_qid[each.qid], benchmark.parse(each.text, cut=each.cut)
        after, elsewhere = (_probability(verdict, margins.get((each.qid, each.sample, arm), math.nan)) for arm in (AFTER, ELSEWHERE))
        attempt = Attempt(
            qid=row.qid,
            split=row.split,
            sample=each.sample,
            text=each.text,
            tokens=each.tokens,
            cut=each.cut,
            answer=row.answer,
            verdict=verdict,
            after=after,
            elsewhere=elsewhere,
            valid=False,
        )
        made.append(replace(attempt, valid=not fault(attempt, follows=follows)))
    return made


def fault(attempt: Attempt, *, follows: float) -> str:
    """Why a sample is no example to follow whatever its answer, "" where it may be one. `follows` 0 asks for a verdict and no more."""
    if attempt.verdict == Verdict.UNPARSED:
        return "stopped by the token limit" if attempt.cut else "no verdict"
    if not follows:
        return ""
    if not attempt.after >= follows:
        return "verdict does not follow from its reasoning"
    if not attempt.elsewhere < follows:
        return "no other verdict's reasoning to read" if math.isnan(attempt.elsewhere) else "verdict stands against another question's reasoning"
    return ""


def explored(made: Sequence[Attempt], *, hard: int, seconds: float, follows: float) -> dict[str, object]:
    """The figures of an exploration; `seconds` are those of sampling alone."""
    return {
        "questions": len({each.qid for each in made}),
        "samples": len(made),
        "hard": hard,
        "right": sum(each.verdict == each.answer for each in made),
        "valid": sum(each.valid for each in made),
        "right_and_valid": sum(each.valid and each.verdict == each.answer for each in made),
        "tokens": sum(each.tokens for each in made),
        "seconds": seconds,
        "samples_per_second": len(made) / seconds if seconds else 0.0,
        "turned_away": dict(Counter(reason for each in made if (reason := fault(each, follows=follows)))),
    }


def _probability(verdict: Verdict, margin: float) -> float:
    """Of a verdict, from the log-odds of yes; nan without either."""
    if verdict is Verdict.UNPARSED:
        return math.nan
    return 0.5 * (1 + math.tanh((margin if verdict is Verdict.YES else -margin) / 2))  # the logistic function, which has no exponent to overflow
