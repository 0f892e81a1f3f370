"""How far a running stage is: told to Prefect as a progress artifact and to whoever listens (the command line's bars)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

SECONDS_BETWEEN_REPORTS = 1.0


class Progress(NamedTuple):
    """How far a stage is. `note` is what a person would like to know meanwhile: loss, dollars, rate."""

    stage: str
    done: int
    total: int
    note: str


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


@asynccontextmanager
async def reporting(label: str, take: Callable[[], Progress | None]) -> AsyncIterator[None]:
    """Move a Prefect progress artifact and the listener along while the block runs; a stage that ends well ends full.

    `take` gives the newest progress since it was last asked, None where there is none.
    """
    tell = _listener.get() or (lambda progress: None)
    tell(Progress(label, 0, 0, "started"))
    bar = _Bar()
    reporter = asyncio.create_task(_report(take, bar, tell))
    try:
        yield
        tell(Progress(label, 1, 1, "done"))
    finally:
        reporter.cancel()
        await asyncio.gather(reporter, return_exceptions=True)
    if bar.artifact is not None:
        last = take() or bar.latest  # with its note: what it cost in the end
        await bar.show(last._replace(done=last.total))


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


async def _report(take: Callable[[], Progress | None], bar: _Bar, tell: Callable[[Progress], None]) -> None:
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_REPORTS)
        latest = take()
        if latest is not None:
            tell(latest)
            await bar.show(latest)
