"""The self-guided loop's state: open it for a firing, end a round by the gate's verdict, move the pointer to its accepted student."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from prefect import task
from prefect.runtime import flow_run

from tasks.contracts.artifacts import ArtifactRoot, ModelRef, write_atomically
from tasks.contracts.failures import DataError
from tasks.contracts.loops import PAGE, START, LoopFolder, Move, round_label
from tasks.contracts.outcomes import Firing, Origin, RoundMade, Students, read_run
from tasks.contracts.recipes import Recipe
from tasks.contracts.rounds import Attempt, Gauged, Round
from tasks.contracts.rows import Pair, Prediction, Verdict
from tasks.foresee import foreseen
from tasks.logic.gates import hardest_third
from tasks.logic.loops import Turn, best_round, lineage, made_up, next_turn, stop_reason
from tasks.logic.report.loop_words import loop_rows
from tasks.logic.rounds import Entry, Evidence, given_up, judged, opening
from tasks.logic.scores import compare
from tasks.stage import YEARS, Context

_BY_HAND = ("promote", "rollback")


@dataclass(frozen=True)
class Opened:
    """A loop that is this firing's alone: what is stored, what its next round is given, and why there is none to make ("" = there is)."""

    folder: LoopFolder
    rounds: tuple[Round, ...]
    parent: Move
    turn: Turn
    began: datetime
    stopped: str  # why the stop rule ended the loop, "" = it did not
    made_up: bool  # a round was made since this firing was due

    @property
    def parent_reading(self) -> str:
        """What the parent's predictions are called."""
        return self.parent.label.replace(" ", "-")


@asynccontextmanager
async def opened(context: Context, *, profile: str, recipe: Recipe, start: ModelRef) -> AsyncIterator[Opened]:
    """Hold the loop until the block ends; another firing waits, in this process or any other of this machine, and a killed one lets go."""
    folder = LoopFolder(context.root, profile, start)
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / "lock", timeout=YEARS, thread_local=False)
    await asyncio.to_thread(lock.acquire)
    try:
        rounds, due = folder.rounds, flow_run.scheduled_start_time
        yield Opened(
            folder=folder,
            rounds=tuple(rounds),
            parent=folder.accepted,
            turn=next_turn(rounds, recipe=recipe.loop, align=recipe.align, seed=recipe.seed),
            began=datetime.now(UTC),
            stopped=_why_stopped(context, folder, recipe),
            made_up=bool(due) and made_up(_stamp(due), rounds),
        )
    finally:
        lock.release()


@task(name="gate", task_run_name="gate of round {loop.turn.number}", persist_result=False)
async def conclude(context: Context, *, loop: Opened, recipe: Recipe, origin: Origin, made: RoundMade | None, why: str) -> Firing:
    """Judge the round, keep its row, move the pointer, write the page. Without `made` the round came to no student, and `why` says so."""
    from tasks.logic.report.loop_page import render_loop

    root, folder = context.root, loop.folder
    start, dev_attempts = root.read(origin.read, Prediction), root.read(origin.dev_attempts, Attempt)
    readings: dict[str, Sequence[Prediction]] = {START: start}
    rounds = list(loop.rounds) or [opening(_entry(context, loop, folder.start, number=0), read=start, hardest=hardest_third(dev_attempts, start))]
    if made is None:
        row = given_up(_entry(context, loop, None, number=loop.turn.number), why=why)
    else:
        evidence = _evidence(root, origin, made)
        entry = _entry(context, loop, made.student, number=loop.turn.number)
        row = judged(entry, evidence, start=start, dev_attempts=dev_attempts, rounds=rounds, recipe=recipe.loop.gate)
        readings |= {loop.parent.label: evidence.parent, round_label(row.number): evidence.read}
        if row.verdict == "accepted":
            folder.move(label=round_label(row.number), adapter=made.student, why="gate", at=_now())
    folder.keep([*rounds, row])
    stopped = _why_stopped(context, folder, recipe)
    if stopped:
        _settle_on_best(folder)
    held = folder.accepted.label
    gain = None if held == START or held not in readings else compare("over_start", readings[held], start, resamples=recipe.grade.bootstrap, seed=recipe.seed)
    gold_yes = sum(each.answer == Verdict.YES for each in start) / len(start)
    page = render_loop(folder.rounds, name=folder.name, accepted=held, stopped=stopped, gold_yes=gold_yes, recipe=recipe.loop.gate, over_start=gain)
    write_atomically(folder.path / PAGE, page)
    return told(folder, verdict=row.verdict, number=row.number, reasons=row.reasons, stopped=stopped)


def told(folder: LoopFolder, *, verdict: str, number: int | None, reasons: tuple[str, ...], stopped: str) -> Firing:
    """What a firing came to."""
    page = folder.path / PAGE
    return Firing(round=number, verdict=verdict, reasons=reasons, stopped=stopped, accepted=folder.accepted.label, folder=str(folder.path), page=str(page))


def _evidence(root: ArtifactRoot, origin: Origin, made: RoundMade) -> Evidence:
    return Evidence(
        attempts=root.read(made.attempts, Attempt),
        source=root.read(origin.attempts, Attempt),
        pairs=root.read(made.pairs, Pair),
        first=root.read(origin.pairs, Pair),
        read=root.read(made.read, Prediction),
        parent=root.read(made.parent, Prediction),
        gauged=root.read(made.gauged, Gauged),
    )


def _entry(context: Context, loop: Opened, student: ModelRef | None, *, number: int) -> Entry:
    minutes = (datetime.now(UTC) - loop.began).total_seconds() / 60 if number else 0.0
    return Entry(
        number=number,
        parent=loop.parent.label if number else START,
        student=student.path if student else "",
        digest=student.digest if student else "",
        seed=loop.turn.seed if number else loop.turn.seed - loop.turn.number,
        minutes=minutes,
        dollars=minutes / 60 * context.execution.loop.usd_per_hour,
        started_at=_stamp(loop.began),
        flow_run=str(flow_run.id or ""),
    )


def _why_stopped(context: Context, folder: LoopFolder, recipe: Recipe) -> str:
    since = max((move.rounds for move in folder.moves if move.why in _BY_HAND), default=0)
    return stop_reason(folder.rounds, since=since, recipe=recipe.loop.stop, total_minutes=context.execution.loop.total_minutes)


def _settle_on_best(folder: LoopFolder) -> None:
    """A loop that ends itself ends on the student that was right most often: the gate's last one, or a round that it descends from."""
    if folder.accepted.why != "gate":
        return
    best = best_round(lineage(folder.rounds, folder.accepted.label))
    label = round_label(best.number)
    if label != folder.accepted.label:
        folder.move(label=label, adapter=folder.root.model_at(best.student), why="best", at=_now())


def history(folder: LoopFolder) -> list[dict[str, object]]:
    """The rounds as rows of a table."""
    return loop_rows(folder.rounds)


def promote(folder: LoopFolder, target: str) -> Move:
    """Set the pointer to a round's student (its number) or to the aligned student of a run (its folder). Raises DataError where there is none."""
    at = _now()
    if target.isdecimal():
        rounds = {each.number: each for each in folder.rounds}
        chosen = rounds.get(int(target))
        if chosen is None or not chosen.student:
            known = ", ".join(str(number) for number, each in rounds.items() if each.student) or "none yet; socratune loop makes one"
            raise DataError(f"{folder.name} has no round {target} with a student; rounds that have one: {known}")
        return folder.move(label=round_label(chosen.number), adapter=folder.root.model_at(chosen.student), why="promote", at=at)
    run = Path(target)
    stages = {line["stage"]: line["artifact"] for line in read_run(run)["stages"]}
    adapter = folder.root.model_at(stages["align"])
    if adapter.base != folder.start.base:
        raise DataError(f"{target} was trained from {adapter.base}, this loop's student is {folder.start.base}: an adapter fits its own student alone")
    return folder.move(label=run.name, adapter=adapter, why="promote", at=at)


def roll_back(folder: LoopFolder) -> Move:
    """Take back the pointer's last move."""
    return folder.roll_back(at=_now())


def follow(context: Context, students: Students, *, profile: str, start: str) -> Students:
    """The aligned student as the loop of these students has it: the accepted one where it has moved, else as trained."""
    if foreseen() is not None and not students.adapters[start].digest:
        return students
    folder = LoopFolder(context.root, profile, students.adapters[start])
    held = folder.accepted
    if held.label == START:
        return students
    return students.model_copy(update={"adapters": {**students.adapters, "aligned": held.adapter}, "accepted": held.label})


def _now() -> str:
    return _stamp(datetime.now(UTC))


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
