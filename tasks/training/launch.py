"""Start a job in a child process and follow it. No torch here: the parent may be a Prefect worker or a command line."""

from __future__ import annotations

import logging
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
from tasks.training.nursery import ForkedChild, Nurseries, NurseryError
from tasks.training.progress import Failure, Progress, read_event
from tasks.training.results import read_result

logger = logging.getLogger(__name__)

Child = subprocess.Popen[str] | ForkedChild
PROJECT = Path(__file__).resolve().parents[2]
LOG = "log.txt"
LOG_LINES = 25
POLL_SECONDS = 0.2  # how late a cancellation may be noticed; Python delivers it between two waits
_nurseries = Nurseries()


def run_job(job: Job, folder: Path, *, on_progress: Callable[[Progress], None], cancelled: threading.Event | None = None) -> list[StepResult]:
    """Do the job's steps in a child process working in `folder`; returns their results, in order.

    Steps that an earlier run finished there are not repeated, and a training step resumes from its newest complete checkpoint. The child
    ends when this process does, however it dies, and when this call is left by an exception or through `cancelled`.
    Raises the child's own SocratuneError (GuardError, StudentError, ...), or JobFailed with the end of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "job.json", job.model_dump_json(indent=1))
    try:
        failure, code = _see_through(_fork(job, folder) or _spawn(job, folder), on_progress, cancelled)
    except NurseryError as error:
        later = "the next job starts another" if _nurseries.lose() else "from here on every job loads torch for itself, in some seconds more"
        logger.warning("%s (%s says why); this job loads torch for itself, %s", error, folder / LOG, later)
        failure, code = _see_through(_spawn(job, folder), on_progress, cancelled)
    if failure is not None:
        raise _known(failure)
    if code != 0:
        raise JobFailed(_explain(code, folder))
    return [read_result(folder, index) for index in range(len(job.steps))]


def _fork(job: Job, folder: Path) -> ForkedChild | None:
    """A child that has torch loaded from the start, where that is safe: in one process and without a GPU, for CUDA does not survive a fork."""
    machines = [step.machine for step in job.steps if not isinstance(step, ConvertStep)]
    if _processes(job) > 1 or any(machine.device == "cuda" for machine in machines) or _may_have_gpu() or not hasattr(os, "pidfd_open"):
        return None
    with (folder / LOG).open("ab") as log:
        return _nurseries.fork(folder.resolve(), kinds={step.kind for step in job.steps}, log=log, cwd=PROJECT, environment=_environment(1))


def _may_have_gpu() -> bool:
    """Whether this machine shows the device files of NVIDIA (its boards and WSL included) or AMD. Nobody asks torch: that would load it here."""
    return any(path for pattern in ("nvidia*", "nvhost*", "nvgpu", "dxg", "kfd") for path in Path("/dev").glob(pattern))


def _spawn(job: Job, folder: Path) -> subprocess.Popen[str]:
    """A child that starts from nothing: Python, or torchrun where the job is to run in several processes of this machine."""
    count = _processes(job)
    starter = [sys.executable] if count == 1 else [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [*starter, "-m", "tasks.training.worker", str(folder.resolve()), "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            cwd=PROJECT,
            env=_environment(count),
        )


def _processes(job: Job) -> int:
    return max((step.machine.processes for step in job.steps if not isinstance(step, ConvertStep)), default=1)


def _environment(processes: int) -> dict[str, str]:
    """The child finds the project whatever the parent's folder, never asks a hub, and sees as many GPUs as it has processes.

    What Prefect and pytest tell the parent, anew for each run and test, is not for the child: a nursery serves one environment.
    """
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(processes)))).split(",")[:processes]
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTEST_"))}
    return {**own, **quiet, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def _see_through(child: Child, on_progress: Callable[[Progress], None], cancelled: threading.Event | None) -> tuple[Failure | None, int]:
    """Follow a child to its end; returns the failure that it reported, if any, and its exit code."""
    try:
        return _follow(child, on_progress, cancelled), child.wait()
    finally:
        _end(child)


def _follow(child: Child, on_progress: Callable[[Progress], None], cancelled: threading.Event | None) -> Failure | None:
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


def _end(child: Child) -> None:
    """Leave no child behind; a finished one is only collected."""
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
