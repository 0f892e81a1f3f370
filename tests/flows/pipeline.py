"""The real command line in a real process group on a real Prefect server, to be run, watched and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).resolve().parents[2]
PROFILE = PROJECT / "tests" / "profiles" / "tiny.yaml"
PATIENCE_SECONDS = 240
LOOK_EVERY_SECONDS = 0.02


@dataclass
class Pipeline:
    """One artifact root, run by the command line. `environment` points at the server and the teacher."""

    root: Path
    student: Path
    environment: Mapping[str, str]
    changes: dict[str, Any] = field(default_factory=dict)

    def command(self, *, until: str, changes: Mapping[str, Any]) -> list[str]:
        """The command line of a run."""
        settings = {"execution.root": str(self.root), "recipe.student.model": str(self.student), **self.changes, **changes}
        sets = [part for path, value in settings.items() for part in ("--set", f"{path}={json.dumps(value)}")]
        return [sys.executable, "-m", "flows.cli", "run", str(PROFILE), "--until", until, *sets]

    def start(self, *, until: str = "report", **changes: Any) -> subprocess.Popen[str]:
        """Start a run and return its process."""
        return subprocess.Popen(
            self.command(until=until, changes=changes),
            cwd=PROJECT,
            env=self.whole_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def whole_environment(self) -> dict[str, str]:
        """What a run sees."""
        return {**os.environ, **self.environment, "OMP_NUM_THREADS": "1"}

    def failed(self, *, until: str, changes: Mapping[str, Any]) -> str:
        """Run to a failure; returns what it said, on one line."""
        command = self.command(until=until, changes=changes)
        done = subprocess.run(command, cwd=PROJECT, env=self.whole_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())

    def run(self, *, until: str = "report", changes: Mapping[str, Any] | None = None) -> None:
        """Run to the end; a failed run fails the test with what it said."""
        done = subprocess.run(
            self.command(until=until, changes=changes or {}),
            cwd=PROJECT,
            env=self.whole_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def kill_when(self, ready: Callable[[], bool], *, until: str) -> list[psutil.Process]:
        """Start a run, SIGKILL it as soon as `ready()`, and return the children it had."""
        process = self.start(until=until)
        wait_for(lambda: ready() or process.poll() is not None)
        assert process.poll() is None, f"the run ended before it could be killed: {process.communicate()[1]}"
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        return children

    def artifacts(self) -> dict[str, str]:
        """Digest of every finished artifact by its folder."""
        records = [*self.root.glob("data/*/*/artifact.json"), *self.root.glob("models/*/*/artifact.json")]
        return {str(path.parent.relative_to(self.root)): json.loads(path.read_text(encoding="utf-8"))["digest"] for path in records}

    def made_at(self) -> dict[str, str]:
        """When every finished artifact was made."""
        records = [*self.root.glob("data/*/*/artifact.json"), *self.root.glob("models/*/*/artifact.json")]
        return {str(path.parent.relative_to(self.root)): json.loads(path.read_text(encoding="utf-8"))["created_at"] for path in records}

    def summary(self) -> dict[str, Any]:
        """The newest run's summary."""
        newest = max(self.root.glob("data/runs/*/summary.json"))
        return json.loads(newest.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def wait_for(condition: Callable[[], bool]) -> None:
    """Look until `condition()` holds; fails after a long while, so that a hang is not one."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(LOOK_EVERY_SECONDS)  # what is waited for needs the processor
