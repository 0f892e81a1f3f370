"""Explore stage: what a student makes of questions whose answers are known, several times each, and which of its chains carry their verdict."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.logging import get_run_logger

from tasks.contracts.artifacts import ModelRef, TableRef, read_rows
from tasks.contracts.jobs import AnswerStep
from tasks.contracts.recipes import Explore, Student
from tasks.contracts.rounds import Attempt
from tasks.contracts.rows import Arm, Completion, Curated, Drafted, Request
from tasks.logic.asking import arm_requests
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.exploring import attempts, explored, explored_questions, extra_requests, hard_questions, reading_requests
from tasks.stage import Table, Work, table_stage


@table_stage("explore", version=2, run_name="explore {split}")
async def explore(
    work: Work,
    *,
    split: str,
    drafted: TableRef[Drafted],
    curated: TableRef[Curated] | None,
    student: ModelRef,
    adapter: ModelRef,
    benchmark: str,
    recipe: Explore,
    max_new_tokens: int,
    allow: tuple[str, ...],
    numbers: Student,
    seed: int,
) -> Table[Attempt]:
    """Samples of each question, more of the hard ones, and a fresh pass of the same student over every reasoning.

    With `curated` the first `recipe.questions`, those held out of SFT before others; without it all rows of `drafted`.
    """
    wording, arm = get_benchmark(benchmark), Arm(recipe.arm)
    rows = work.root.read(drafted, Drafted)
    if curated is not None:
        rows = explored_questions(rows, work.root.read(curated, Curated), most=recipe.questions)
    weights = work.weights(student, adapter, numbers)

    def step(name: str, requests: Sequence[Request], *, temperature: float) -> AnswerStep:
        return work.answering(
            requests, name=f"explore {split}, {name}", weights=weights, max_new_tokens=max_new_tokens, temperature=temperature, allow=allow, seed=seed
        )

    steps = [step("samples", arm_requests(rows, arm=arm, benchmark=wording, samples=recipe.samples), temperature=recipe.temperature)]
    done = await work.run(*steps)
    said = read_rows(work.folder / done[0].out, Completion)
    hard = hard_questions(rows, said, below=recipe.hard_below, benchmark=wording)
    if extra := extra_requests(hard, recipe=recipe, benchmark=wording):
        steps.append(step("extra", extra, temperature=recipe.temperature))
        done = await work.run(*steps)
        said += read_rows(work.folder / done[1].out, Completion)
    readings: list[Completion] = []
    if recipe.follows:
        asked = reading_requests(rows, said, arm=arm, benchmark=wording, seed=seed)
        (*_, read) = await work.run(*steps, step("readings", asked, temperature=0.0))
        readings = read_rows(work.folder / read.out, Completion)
    made = attempts(rows, said, readings, follows=recipe.follows, benchmark=wording)
    seconds = sum(sum(each.summary["seconds"].values()) for each in done)
    summary = explored(made, hard=len(hard), seconds=seconds, follows=recipe.follows)
    get_run_logger().info("%d samples in %.0f s, %.2f a second", len(made), seconds, summary["samples_per_second"])
    return Table(made, Attempt, summary)
