"""Start a job in a child process and follow it. No torch here: the parent may be a Prefect worker or a command line."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tasks.contracts import failures
from tasks.contracts.artifacts import write_atomically
from tasks.contracts.failures import JobFailed, SocratuneError
from tasks.contracts.jobs import ConvertStep, Job, StepResult
from tasks.training.progress import Failure, Progress, read_event
from tasks.training.results import read_result

PROJECT = Path(__file__).resolve().parents[2]
LOG = "log.txt"
LOG_LINES = 25
POLL_SECONDS = 0.2  # how late a cancellation may be noticed; Python delivers it between two waits


def run_job(job: Job, folder: Path, *, on_progress: Callable[[Progress], None], cancelled: threading.Event | None = None) -> list[StepResult]:
    """Do the job's steps in a child process working in `folder`; returns their results, in order.

    Steps that an earlier run finished there are not repeated, and a training step resumes from its newest complete checkpoint. The child
    ends when this process does, however it dies, and when this call is left by an exception or through `cancelled`.
    Raises the child's own SocratuneError (GuardError, StudentError, ...), or JobFailed with the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "job.json", job.model_dump_json(indent=1))
    with (folder / LOG).open("ab") as log:
        child = subprocess.Popen(
            [*_starter(job), "-m", "tasks.training.worker", str(folder.resolve()), "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            cwd=PROJECT,
            env=_environment(_processes(job)),
        )
    try:
        failure = _follow(child, on_progress, cancelled)
        code = child.wait()
    finally:
        _end(child)
    if failure is not None:
        raise _known(failure)
    if code != 0:
        raise JobFailed(_explain(code, folder))
    return [read_result(folder, index) for index in range(len(job.steps))]


def _processes(job: Job) -> int:
    return max((step.machine.processes for step in job.steps if not isinstance(step, ConvertStep)), default=1)


def _starter(job: Job) -> list[str]:
    """Python, or torchrun where the job is to run in several processes of this machine."""
    count = _processes(job)
    return [sys.executable] if count == 1 else [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]


def _environment(processes: int) -> dict[str, str]:
    """The child finds the project whatever the parent's folder, never asks a hub, and sees as many GPUs as it has processes."""
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(processes)))).split(",")[:processes]
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def _follow(child: subprocess.Popen[str], on_progress: Callable[[Progress], None], cancelled: threading.Event | None) -> Failure | None:
    """Pass on progress until the child closes its output; returns the failure that it reported, if any."""
    assert child.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    failure = None
    while True:
        if cancelled is not None and cancelled.is_set():
            raise JobFailed("The training job was cancelled; run again to resume from its last complete checkpoint.")
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            return failure
        event = read_event(line)
        if isinstance(event, Failure):
            failure = failure or event  # of several processes, the first to give up knows why
        else:
            on_progress(event)


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _end(child: subprocess.Popen[str]) -> None:
    """Leave no child behind; a finished one is only collected."""
    if child.poll() is None:
        child.kill()
    child.wait()
    if child.stdin is not None:
        child.stdin.close()


def _known(failure: Failure) -> SocratuneError:
    kind = getattr(failures, failure.error, JobFailed)
    return kind(failure.message) if isinstance(kind, type) and issubclass(kind, SocratuneError) else JobFailed(failure.message)


def _explain(code: int, folder: Path) -> str:
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    cause = f"ended with exit code {code}"
    if code < 0:
        cause = f"was killed by signal {-code}; if memory ran out, lower execution.train.batch_tokens or execution.train.generate_batch"
    return f"The training job in {folder} {cause}. Run again to resume. The end of its log ({folder / LOG}):\n" + "\n".join(lines)
