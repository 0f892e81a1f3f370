"""Runs over one artifact root that are struck one after the other, and what came of each blow."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from flows.stopping import STOPPED
from tasks.gateways.simulated_server import SimulatedServer, serve_simulated
from tests.flows.pipeline import PROJECT, Pipeline

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
GONE_WITHIN = {signal.SIGINT: 10.0, signal.SIGTERM: 10.0, signal.SIGKILL: 15.0}  # seconds
MOST_LINES = 3  # after the signal: an empty one, the last one, and one that was on its way
AFTERWARDS = 1.0  # seconds in which calls are still counted
GIVEN_UP = 60.0  # seconds after which what still lives is killed
SPAN = 6.0  # seconds over which the signals of a part fall
IN_FLIGHT = 4
MARK = "SIGNALS_BENCH"
LATENCY = 0.8  # seconds, so that teaching lasts
ORDER = ("nothing yet", "start", "draft", "teach", "training", "prediction", "end")
STAGES = {
    "sample": "draft", "draft": "draft", "select": "teach", "teach": "teach", "curate": "teach", "finetune": "training", "pair": "training",
    "align": "training", "predict": "prediction",
}  # fmt: skip
CHANGES: dict[str, Any] = {
    "recipe.teacher.kind": "openai", "recipe.teacher.model": "gpt-4", "recipe.teacher.error_rate": None, "recipe.teacher.no_bias": None,
    "execution.teacher.price": {"input": 1.0, "cached_input": None, "output": 2.0}, "execution.teacher.max_in_flight": IN_FLIGHT,
}  # fmt: skip


@dataclass
class CountingServer(SimulatedServer):
    """A teacher that remembers when it was called."""

    arrivals: list[float] = field(default_factory=list)

    def instead(self, body: dict[str, Any]) -> None:
        self.arrivals.append(time.monotonic())


@dataclass
class Blow:
    """One signal and what came of it."""

    server: str
    signal: signal.Signals
    part: str
    moment: float
    gone: float
    lines: int
    calls: int
    misses: list[str]

    def in_words(self) -> str:
        """On one line."""
        what = f"{self.server:9} {self.signal.name:7} in {self.part:10} after {self.moment:4.1f} s"
        came = f"gone in {self.gone:4.1f} s, {self.lines} lines, {self.calls} calls"
        return f"{what}: {came}" + "".join(f"; MISSED: {miss}" for miss in self.misses)


@dataclass
class Series:
    """One root, one teacher, one kind of Prefect server."""

    name: str
    pipeline: Pipeline
    teacher: CountingServer
    log: Path
    seed: int = 0
    struck_in_teach: int = 0

    def strike(self, number: signal.Signals, *, part: str, luck: random.Random) -> Blow:
        """Run, send the signal at a random moment from the beginning of `part` on, and look. A run that ends before it makes way for one of the next seed."""
        while True:
            mark, delay = uuid.uuid4().hex, luck.random() * SPAN
            with self._running(mark) as process:
                begun = time.monotonic()
                _wait(process, lambda: ORDER.index(self._part()) >= ORDER.index(part))
                self._pass(process, delay)
                if process.poll() is None:
                    return self._struck(process, number, mark=mark, moment=time.monotonic() - begun)
            assert process.returncode == 0, self.log.read_text()
            self.seed += 1

    def _pass(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        until = time.monotonic() + seconds
        _wait(process, lambda: time.monotonic() >= until)

    def undisturbed(self) -> list[str]:
        """Run to the end; says what was wrong with it and with what the teacher was paid for."""
        with self._running(uuid.uuid4().hex) as process:
            code = process.wait()
        bought, different, kept = sum(self.teacher.seen.values()), len(self.teacher.seen), self._kept()
        twice, lost = bought - different, IN_FLIGHT * self.struck_in_teach
        sys.stdout.write(
            f"{self.name}: {self.seed + 1} runs ended; {bought} replies bought, {twice} of them twice; at most {lost} were in flight at a signal\n"
        )
        faults = [] if code == 0 else [f"{self.name}: the undisturbed run ended with {code}: {self.log.read_text()}"]
        faults += [] if kept == different else [f"{self.name}: {kept} replies are in the ledger, {different} were bought"]
        return faults + ([] if twice <= lost else [f"{self.name}: {twice} replies were bought twice, {lost} at most were in flight at a signal"])

    def _struck(self, process: subprocess.Popen[bytes], number: signal.Signals, *, mark: str, moment: float) -> Blow:
        part, said, called = self._part(), len(self._lines()), len(self.teacher.arrivals)
        self.struck_in_teach += part == "teach"
        started = time.monotonic()
        _send(process, number)
        gone, last = _followed(process, mark, since=started)
        time.sleep(AFTERWARDS)
        lines, calls = self._lines()[said:], self.teacher.arrivals[called:]
        misses = {
            f"gone within {GONE_WITHIN[number]:.0f} s, the last was {last[:120]}": gone <= GONE_WITHIN[number],
            f"exit code {CODES[number]}, not {process.returncode}": process.returncode == CODES[number],
            f"{len(calls)} calls, where {IN_FLIGHT} could be on their way": len(calls) <= IN_FLIGHT,
            "a traceback": not any("Traceback" in line for line in lines),
            f"{len(lines)} lines": len(lines) <= MOST_LINES,
            f"last line {lines[-1:]}": number == signal.SIGKILL or lines[-1:] == [STOPPED],
        }
        return Blow(self.name, number, part, moment, gone, len(lines), len(calls), [miss for miss, held in misses.items() if not held])

    @contextmanager
    def _running(self, mark: str) -> Iterator[subprocess.Popen[bytes]]:
        """A run that goes on in the root, in a session of its own, as a terminal gives one; everything that it starts carries `mark` in its environment."""
        command = self.pipeline.command(until="report", changes={"recipe.seed": self.seed})
        with self.log.open("w") as log:
            process = subprocess.Popen(
                command, cwd=PROJECT, env={**self.pipeline.whole_environment(), MARK: mark}, stdout=log, stderr=log, start_new_session=True
            )  # fmt: skip
        try:
            yield process
        finally:
            for each in _alive(mark):
                each.kill()
            process.wait()

    def _lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def _part(self) -> str:
        """Where the run is: what it said last that it started, of what belongs to a part. Before its first words it is Python that is interrupted."""
        said = [STAGES.get(line.split()[0].rstrip(":"), "") for line in self._lines() if ": started" in line]
        return next((part for part in reversed(said) if part), ORDER[bool(self._lines())])

    def _kept(self) -> int:
        with closing(sqlite3.connect(self.pipeline.root / "data" / "ledger.sqlite")) as db:
            return int(db.execute("SELECT count(*) FROM replies").fetchone()[0])


@contextmanager
def series(folder: Path, *, name: str, student: Path, api: str) -> Iterator[Series]:
    """A series with a teacher of its own; `api` is the address of the standing server, "" where each run starts one."""
    folder.mkdir(parents=True, exist_ok=True)
    teacher = CountingServer(error_rate=0.3, no_bias=0.8, latency=LATENCY)
    with serve_simulated(teacher) as url:
        prefect = {"PREFECT_API_URL": api} if api else {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
        environment = {
            **prefect, "PREFECT_HOME": str(folder / "prefect"), "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-of-the-bench", "NO_PROXY": "127.0.0.1",
            "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        yield Series(name, Pipeline(root=folder / "root", student=student, environment=environment, changes=CHANGES), teacher, folder / "said")


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """A terminal's Ctrl-C reaches every process of its group, a `kill` one alone."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


def _followed(process: subprocess.Popen[bytes], mark: str, *, since: float) -> tuple[float, str]:
    """Seconds until all is gone, and what lived longest."""
    last = ""
    while (alive := _alive(mark) or process.poll() is None) and time.monotonic() < since + GIVEN_UP:
        if isinstance(alive, list):
            with suppress(psutil.Error):
                last = " ".join(alive[-1].cmdline())
        time.sleep(0.1)
    return time.monotonic() - since, last


def _alive(mark: str) -> list[psutil.Process]:
    """Processes that a run started, children of children too."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            found += [each] if each.environ().get(MARK) == mark and each.status() != psutil.STATUS_ZOMBIE else []
    return found


def _wait(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Until `condition()` holds or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.02)
