"""Teach stage: the teacher answers the student's drafts through the ledger; where it disagrees with gold it is asked again, and its reasoning is checked.

Questions go in shards, one Prefect task each; all shards of a process ask through one caller, so that pace and budget are those of the whole.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from prefect.logging import get_run_logger

from tasks.contracts.artifacts import TableRef
from tasks.contracts.recipes import Teacher
from tasks.contracts.rows import Drafted, Taught
from tasks.desk import ask_in_shards, desk, refuse_gaps
from tasks.gateways.kinds import open_teacher
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.teaching import asks_for, check_asks, checked_rows, disagreements, further_asks, reply_counts, talk_of, taught_rows
from tasks.stage import Table, Work, table_stage


@table_stage("teach", version=3, run_name="teach")
async def teach(
    work: Work,
    *,
    drafted: TableRef[Drafted],
    benchmark: str,
    recipe: Teacher,
    recordings: tuple[Path, ...],
    rationalise: bool,
    resamples: int,
    validate: bool,
    seed: int,
) -> Table[Taught]:
    """`recipe.samples` replies a question. Where none of them agrees with gold: `resamples` more, and with `rationalise` one given the gold facts.

    With `validate`, every usable reply then has its reasoning checked twice (`check_asks`).
    """
    talk = talk_of(recipe, benchmark=get_benchmark(benchmark))
    rows = work.root.read(drafted, Drafted)
    pace = work.execution.teacher
    async with (
        open_teacher(recipe, recordings=recordings, pace=pace, seed=seed) as teacher,
        desk(work, recipe=recipe, teacher=teacher, pace=pace) as caller_for,
    ):
        caller = caller_for(talk.problem)
        answers, usage = await ask_in_shards(work, asks_for(rows, talk=talk, samples=range(recipe.samples), hint=False), caller, "ask")
        refuse_gaps(answers, allowed=pace.max_failed_share)
        taught = taught_rows(rows, answers, talk=talk)
        wrong, hints = disagreements(rows, taught), rationalise and teacher.can_take_hints
        asks = further_asks(wrong, talk=talk, samples=recipe.samples, resamples=resamples, rationalise=hints)
        more, spent = await ask_in_shards(work, asks, caller, "ask again with the facts" if hints else "ask again")
        answers, usage, taught = answers + more, usage + spent, taught + taught_rows(rows, more, talk=talk)
        checker = caller_for(lambda _: None)  # a check that finds nothing to follow is an answer too
        checks, spent = await ask_in_shards(work, check_asks(taught, talk=talk, seed=seed) if validate else [], checker, "check the reasoning")
        damaged = sorted(caller.mended | checker.mended)
    if checks:
        taught, usage = checked_rows(taught, checks, talk=talk), usage + spent
    if damaged:
        get_run_logger().warning("%d replies in the ledger failed their checksum and were bought again", len(damaged))
    summary = {"usage": asdict(usage), "damaged": damaged, **reply_counts(taught, samples=recipe.samples)}
    return Table(taught, Taught, summary, partial=not all(answer.final for answer in (*answers, *checks)))
