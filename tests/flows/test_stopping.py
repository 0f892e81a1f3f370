"""Runs that are stopped while they have children: one by Ctrl-C, and the least that has Prefect's temporary server by every signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from flows.stopping import STOPPED
from tasks.gateways.temporary_server import server_fault
from tests.flows.pipeline import PROJECT, Pipeline, wait_for
from tests.tiny_student import make_tiny_student

pytestmark = [pytest.mark.slow]
IGNORED = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
WORK = """
import asyncio
from flows.stopping import Stoppable
with Stoppable() as stoppable:
    from prefect import flow
    stoppable.run(flow(asyncio.Event().wait)())
"""
NURSERY, SERVER = "tasks.training.nursery", "prefect.server.api.server:create_app"


@contextmanager
def started(command: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has a session of its own, as a terminal gives one, and says to `folder/said` what it says."""
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=PROJECT, env={**os.environ, **environment}, stdout=said, stderr=said, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def children_with(process: subprocess.Popen[bytes], word: str) -> list[psutil.Process]:
    """All that the process started, as soon as that is among them."""
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = psutil.Process(process.pid).children(recursive=True)
        with suppress(psutil.Error):
            return any(word in each.cmdline() for each in found)
        return False

    wait_for(lambda: process.poll() is not None or look())
    assert process.poll() is None
    return found


def _api(children: list[psutil.Process]) -> str:
    """Where the temporary server among them answers."""
    [words] = [words for words in (each.cmdline() for each in children) if SERVER in words]
    return f"http://127.0.0.1:{words[words.index('--port') + 1]}/api"


def assert_stopped(process: subprocess.Popen[bytes], children: list[psutil.Process], folder: Path, *, code: int) -> None:
    """It ended in time and with one line, and nothing that it started is left."""
    assert process.wait(timeout=10) == code, (folder / "said").read_text()
    text = (folder / "said").read_text()
    assert "Traceback" not in text
    assert code < 0 or text.splitlines()[-1] == STOPPED
    assert not psutil.wait_procs(children, timeout=15)[1]


def test_ctrl_c_ends_a_run_and_the_training_that_begins(prefect_server: None, tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL

    pipeline = Pipeline(root=tmp_path / "root", student=make_tiny_student(tmp_path / "student"), environment={})
    with started(pipeline.command(until="teach", changes={}), tmp_path, PREFECT_API_URL=PREFECT_API_URL.value(), OMP_NUM_THREADS="1") as process:
        children = children_with(process, NURSERY)
        os.killpg(process.pid, signal.SIGINT)
        assert_stopped(process, children, tmp_path, code=130)


@pytest.mark.parametrize(
    ("number", "code", "before"),
    [(signal.SIGINT, 130, ["-c", IGNORED, sys.executable]), (signal.SIGTERM, 143, []), (signal.SIGKILL, -9, [])],
    ids=["Ctrl-C, inherited as ignored", "SIGTERM", "SIGKILL"],
)
def test_a_temporary_server_ends_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int, before: list[str]) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    home = {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true"}
    with started([sys.executable, *before, "-c", WORK], tmp_path, **home) as process:
        children = children_with(process, SERVER)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            wait_for(lambda: "its own secret" in (server_fault(_api(children)) or ""))  # what a web page could ask is refused, too
            process.send_signal(number)
        assert_stopped(process, children, tmp_path, code=code)
