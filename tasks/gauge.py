"""Gauge stage: how likely three students find a round's texts, from which chosen log-ratio, drift and perplexity are read off."""

from __future__ import annotations

from collections import Counter

from tasks.contracts.artifacts import ModelRef, TableRef, read_rows, write_rows
from tasks.contracts.jobs import ScoreStep
from tasks.contracts.recipes import Student
from tasks.contracts.rounds import Gauged, Likelihood, Spoken
from tasks.contracts.rows import Arm, Completion, Drafted, Pair
from tasks.logic.asking import arm_requests
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.gauging import gauged, gauged_texts, read_by
from tasks.stage import Table, Work, table_stage


@table_stage("gauge", version=2, run_name="gauge a round's student")
async def gauge(
    work: Work,
    *,
    pairs: TableRef[Pair],
    first: TableRef[Pair],
    dev: TableRef[Drafted],
    student: ModelRef,
    candidate: ModelRef,
    accepted: ModelRef,
    track_b: ModelRef,
    benchmark: str,
    arm: str,
    questions: int,
    max_new_tokens: int,
    allow: tuple[str, ...],
    numbers: Student,
    seed: int,
) -> Table[Gauged]:
    """What the candidate draws at temperature 1 on the first `questions` of dev, and the texts chosen in this round and in the first alignment.

    Temperature 1, so that the mean log-ratio of its own texts is an estimate of its divergence from Track B.
    """
    asked = arm_requests(work.root.read(dev, Drafted)[:questions], arm=Arm(arm), benchmark=get_benchmark(benchmark))
    weights = work.weights(student, candidate, numbers)
    drawing = work.answering(asked, name="draw on dev", weights=weights, max_new_tokens=max_new_tokens, temperature=1.0, allow=allow, seed=seed)
    (drawn,) = await work.run(drawing)
    replies = read_rows(work.folder / drawn.out, Completion)
    texts = gauged_texts(work.root.read(pairs, Pair), work.root.read(first, Pair), asked, replies)
    steps = {}
    for reader, adapter in {"candidate": candidate, "accepted": accepted, "track_b": track_b}.items():
        if not write_rows(work.folder / f"{reader}.parquet", read_by(texts, reader), Spoken):
            continue
        steps[reader] = ScoreStep(
            name=f"read by {reader}",
            weights=work.weights(student, adapter, numbers),
            texts=f"{reader}.parquet",
            machine=work.machine,
            out=f"{reader}-likelihoods.parquet",
        )
    (_, *read) = await work.run(drawing, *steps.values())
    found = {reader: read_rows(work.folder / each.out, Likelihood) for reader, each in zip(steps, read, strict=True)}
    summary = {"texts": Counter(text.role for text in texts), "cut": sum(reply.cut for reply in replies), "tokens": sum(reply.tokens for reply in replies)}
    return Table(gauged(texts, found), Gauged, summary)
