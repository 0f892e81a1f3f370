"""What a person sees while a run goes on: on a terminal a bar for the stage and one for the run, elsewhere plain lines, at least one a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

from flows.countdown import Countdown
from tasks import watch
from tasks.watch import State, in_one_line

LINE_EVERY = 60.0  # seconds
_TICK = 1.0
_ROOMY = 72  # columns of a terminal that holds bars
_NAME = 26  # columns of a stage's name
RUN = "the whole run"


@contextmanager
def bars(console: Console, *, stages: Sequence[str] = (), before: Mapping[str, float] | None = None) -> Iterator[None]:
    """While the block runs, each stage is told as it starts, goes on and ends, with the time left of it and of the run, whose `stages` are expected."""
    countdown = Countdown(stages, before=before or {})
    with Bars(console, countdown) if console.is_terminal else Lines(console, countdown) as shown, watch.listen(shown.hear), _ticking(shown.tick):
        yield


@contextmanager
def _ticking(tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` every second while the block runs: a stage that says nothing still has a time left."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(_TICK):
            tick()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Lines:
    """One plain line where a stage starts, ends or is reused, and one a minute while it runs."""

    def __init__(self, console: Console, countdown: Countdown, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._countdown, self._clock = console, countdown, clock
        self._running: dict[str, watch.Progress] = {}
        self._said = clock()
        self._lock = threading.RLock()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to put back."""

    def hear(self, said: watch.Progress) -> None:
        """Take in one word about a stage."""
        with self._lock:
            self._countdown.hear(said, now=self._clock())
            if said.state in (State.STARTED, State.RUNNING):
                self._running[said.stage] = said
            else:
                self._running.pop(said.stage, None)
            if said.state is not State.RUNNING:
                self._print(in_one_line(said) + (f"; {self._whole()}" if said.state is State.STARTED and self._whole() else ""))

    def tick(self) -> None:
        """Once in a while: say where a stage stands if nothing was said for a minute."""
        with self._lock:
            now = self._clock()
            if not self._running or now - self._said < LINE_EVERY:
                return
            for stage, last in list(self._running.items()):
                line = in_one_line(last._replace(state=State.RUNNING), left=self._countdown.stage_left(stage, now=now))
                self._print(f"{line}; {self._whole()}" if self._whole() else line)

    def _whole(self) -> str:
        left = self._countdown.run_left(now=self._clock())
        return "" if left is None else in_one_line(watch.Progress(RUN, self._countdown.ended, self._countdown.total, ""), left=left)

    def _print(self, line: str) -> None:
        self._said = self._clock()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Bars:
    """A line for each stage that ended, a bar for the one that runs and one for the run. Notes give way first where columns are few."""

    def __init__(self, console: Console, countdown: Countdown, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._countdown, self._clock, self._lock = countdown, clock, threading.RLock()
        self._ids: dict[str, TaskID] = {}
        roomy = console.width >= _ROOMY

        def column(text: str, *, width: int | None = None) -> TextColumn:
            return TextColumn(text, markup=False, table_column=Column(no_wrap=True, width=width, overflow="ellipsis"))

        self._bars = Progress(
            SpinnerColumn(table_column=Column(width=1)),
            column("{task.description}", width=_NAME if roomy else 18),
            *([BarColumn(bar_width=8, table_column=Column(width=8))] if roomy else []),
            column("{task.fields[counts]}"), column("{task.fields[elapsed]}"), column("{task.fields[left]}"),
            TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=console, expand=True,
        )  # fmt: skip

    @property
    def renderable(self) -> RenderableType:
        """What stands at the foot of the terminal."""
        return self._bars.get_renderable()

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        self._bars.stop()

    def hear(self, said: watch.Progress) -> None:
        """Take in one word about a stage."""
        with self._lock:
            now = self._clock()
            self._countdown.hear(said, now=now)
            if said.state in (State.STARTED, State.RUNNING):
                if said.stage not in self._ids:
                    self._ids[said.stage] = self._add(said.stage)
                self._bars.update(self._ids[said.stage], counts=f"{said.done}/{said.total}" if said.total else "", note=said.note)
            else:
                if said.stage in self._ids:
                    self._bars.remove_task(self._ids.pop(said.stage))
                self._bars.console.print(in_one_line(said), markup=False, highlight=False)
            self._show(now)

    def tick(self) -> None:
        """Once in a while: move the times on."""
        with self._lock:
            self._show(self._clock())

    def _add(self, name: str) -> TaskID:
        if RUN in self._ids:  # it stands last
            self._bars.remove_task(self._ids.pop(RUN))
        return self._bars.add_task(name, total=1.0, counts="", elapsed="", left="", note="")

    def _show(self, now: float) -> None:
        for stage, task in self._ids.items():
            if stage != RUN:
                left, elapsed = self._countdown.stage_left(stage, now=now), self._countdown.elapsed(stage, now=now)
                self._bars.update(task, completed=elapsed / max(elapsed + left, 1e-9), elapsed=clock_text(elapsed), left=f"{clock_text(left)} left")
        whole = self._countdown.run_left(now=now)
        if whole is not None:
            if RUN not in self._ids:
                self._ids[RUN] = self._add(RUN)
            counts, share = f"{self._countdown.ended}/{self._countdown.total}", self._countdown.ended / max(self._countdown.total, 1)
            self._bars.update(self._ids[RUN], completed=share, counts=counts, left=f"{clock_text(whole)} left")


def clock_text(seconds: float) -> str:
    """75.2 -> "1:15", 4000 -> "1:06:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
