"""How far a running stage is: told to Prefect as a progress artifact and to whoever listens (the command line's bars)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from tasks.logic.stage_words import ended, under_way

SECONDS_BETWEEN_REPORTS = 1.0


class State(StrEnum):
    """What a word about a stage says."""

    STARTED = "started"
    RUNNING = "running"
    DONE = "done"
    REUSED = "reused"
    FAILED = "failed"
    STOPPED = "stopped"


class Progress(NamedTuple):
    """How far a stage is. `note` is what a person would like to know meanwhile: loss, dollars, rate; at the end its key figures.

    `share` of the whole stage, where that is not done / total: a stage may do several things one after another; None = not known.
    """

    stage: str
    done: int
    total: int
    note: str
    state: State = State.RUNNING
    seconds: float = 0.0  # at the end: how long it took, when it was made
    share: float | None = None


NOTHING = Progress("", 0, 0, "")
_listener: ContextVar[Callable[[Progress], None] | None] = ContextVar("progress_listener", default=None)


@contextmanager
def listen(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Send every stage's progress to `listener` while the block runs (the command line's progress bars)."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(progress: Progress) -> None:
    """Tell whoever listens."""
    (_listener.get() or _nobody)(progress)


def _nobody(progress: Progress) -> None:
    """Where nobody listens."""


@asynccontextmanager
async def reporting(label: str, take: Callable[[], Progress | None]) -> AsyncIterator[None]:
    """Move a Prefect progress artifact and the listener along while the block runs; a stage that ends well ends full. Its end is told by who knows its figures.

    `take` gives the newest progress since it was last asked, None where there is none.
    """
    tell(Progress(label, 0, 0, "", State.STARTED))
    bar = _Bar()
    reporter = asyncio.create_task(_report(take, bar))
    try:
        yield
    except BaseException as error:
        tell(Progress(label, 0, 0, "", State.STOPPED if isinstance(error, asyncio.CancelledError) else State.FAILED))
        raise
    finally:
        reporter.cancel()
        await asyncio.gather(reporter, return_exceptions=True)
    if bar.artifact is not None:
        last = take() or bar.latest  # with its note: what it cost in the end
        await bar.show(last._replace(done=last.total))


def in_one_line(said: Progress, *, left: float | None = None) -> str:
    """Where a stage stands, for a log or a file; `left`: seconds that it still takes."""
    if said.state in (State.DONE, State.REUSED):
        return ended(said.stage, reused=said.state is State.REUSED, seconds=said.seconds, figures=said.note)
    if said.state is State.RUNNING:
        return under_way(said.stage, done=said.done, total=said.total, left=left, note=said.note)
    return f"{said.stage}: {said.state}"


@dataclass
class _Bar:
    """A Prefect progress artifact, made when there is first something to show."""

    artifact: Any = None
    latest: Progress = NOTHING

    async def show(self, progress: Progress) -> None:
        self.latest = progress
        share = 100.0 * progress.done / max(progress.total, 1)
        text = f"{progress.stage}: {progress.done} of {progress.total} {progress.note}".strip()
        if self.artifact is None:
            self.artifact = await acreate_progress_artifact(progress=share, description=text)
        else:
            await aupdate_progress_artifact(self.artifact, progress=share, description=text)


async def _report(take: Callable[[], Progress | None], bar: _Bar) -> None:
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_REPORTS)
        latest = take()
        if latest is not None:
            tell(latest)
            await bar.show(latest)
