"""Teach stage: the teacher answers the student's drafts through the ledger; disagreements are asked again with the gold facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tasks.contracts.artifacts import TableRef
from tasks.contracts.asks import Ask, Usage
from tasks.contracts.recipes import Teacher
from tasks.contracts.rows import Drafted, Outcome, Taught
from tasks.gateways.kinds import open_teacher
from tasks.gateways.ledger import Ledger
from tasks.gateways.limits import Limiter
from tasks.gateways.teacher import Settings, ask_all
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.teaching import asks_for, disagreements, taught_rows
from tasks.stage import Table, Work, table_stage


@table_stage("teach", version=1, run_name="teach")
async def teach(
    work: Work,
    *,
    drafted: TableRef[Drafted],
    benchmark: str,
    recipe: Teacher,
    recordings: tuple[Path, ...],
    rationalise: bool,
    seed: int,
) -> Table[Taught]:
    """`recipe.samples` replies a question; with `rationalise`, one more given the gold facts where none of them agrees with gold."""
    wording = get_benchmark(benchmark)
    rows = work.root.read(drafted, Drafted)
    pace = work.execution.teacher
    settings = Settings(model=recipe.model, temperature=recipe.temperature, max_tokens=recipe.max_tokens, attempts=recipe.attempts)
    limiter = Limiter(requests_per_minute=pace.requests_per_minute, tokens_per_minute=pace.tokens_per_minute, max_in_flight=pace.max_in_flight)
    usage = Usage()
    async with open_teacher(recipe, recordings=recordings, timeout_seconds=pace.timeout_seconds, seed=seed) as teacher:
        with Ledger(work.root.path / work.execution.ledger, budget_usd=pace.budget_usd) as ledger:

            async def ask(asks: Sequence[Ask], note: str) -> list[Taught]:
                nonlocal usage
                answers, spent = await ask_all(
                    asks,
                    teacher=teacher,
                    ledger=ledger,
                    limiter=limiter,
                    settings=settings,
                    judge=lambda text: wording.parse_teacher_reply(text).problem or None,
                    progress=lambda done, total: work.progress(done, total, note),
                )
                usage += spent
                return taught_rows(rows, answers, benchmark=wording)

            taught = await ask(asks_for(rows, benchmark=wording, samples=recipe.samples, hint=False), "questions asked")
            if rationalise and teacher.can_take_hints:
                taught += await ask(asks_for(disagreements(rows, taught), benchmark=wording, samples=1, hint=True), "disagreements asked again")
    outcomes = [row.outcome for row in taught]
    summary = {"usage": asdict(usage), "outcomes": {each.value: outcomes.count(each) for each in Outcome}, "hinted": sum(row.hinted for row in taught)}
    return Table(taught, Taught, summary)
