"""The child process of a job: `python -m tasks.training.worker JOB_DIR [--until-stdin-closes]`.

Does the steps of JOB_DIR/job.json in order. Progress goes to standard output as JSON lines, everything else to standard error. Each kind of
step imports what it needs: answering questions must not wait for the trainers to load.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from tasks.contracts.failures import JobFailed, SocratuneError
from tasks.contracts.jobs import AlignStep, AnswerStep, AttributeStep, ConsultStep, ConvertStep, Job, ReferenceStep, ScoreStep, SftStep, Step, StepResult
from tasks.training import processes
from tasks.training.progress import Failure, Progress, Report, write_event
from tasks.training.results import is_finished, write_result

TOLD = 3  # exit code of a failure that was told to the parent
ORPHANED = 4


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tasks.training.worker", description="Do the steps of a training job.")
    parser.add_argument("folder", type=Path, help="folder that holds job.json and the inputs")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end at once when standard input closes: the parent is gone")
    options = parser.parse_args(arguments)
    events = _claim_stdout()
    if options.until_stdin_closes:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        job = _read_job(options.folder)
        _connect(job)
        run_steps(job, options.folder.resolve(), events)
    except SocratuneError as error:
        write_event(events, Failure(error=type(error).__name__, message=str(error)))
        with contextlib.suppress(OSError):  # the log may lie on the disk that is full
            traceback.print_exc()
        return TOLD
    return 0


def run_steps(job: Job, folder: Path, events: TextIO) -> None:
    """Do what is not done yet. Once a step runs, all later ones run too: they may read what it wrote."""
    done = next((index for index, step in enumerate(job.steps) if not is_finished(folder, index, step)), len(job.steps))
    processes.wait()  # nobody writes before all have looked
    for index, step in enumerate(job.steps[done:], start=done):
        started = time.monotonic()
        summary = _do(step, folder, _reporter(events, index, getattr(step, "name", step.kind)))
        seconds = time.monotonic() - started
        if processes.rank() == 0:
            write_result(folder, step, StepResult(index=index, kind=step.kind, out=step.out, seconds=seconds, summary=summary))
        processes.wait()


def _do(step: Step, folder: Path, report: Report) -> dict[str, Any]:
    """Run one step; returns its summary."""
    if not isinstance(step, ConvertStep):
        from tasks.training.device import hold_memory

        hold_memory(step.machine)
    match step:
        case ConvertStep():
            from tasks.training.student import convert_gguf

            return convert_gguf(step, folder, report) if processes.rank() == 0 else {}
        case AnswerStep():
            from tasks.training.generation import run_answer

            return run_answer(step, folder, report)
        case ReferenceStep():
            from tasks.training.reference import run_reference

            return run_reference(step, folder, report)
        case ScoreStep():
            from tasks.training.reference import run_score

            return run_score(step, folder, report)
        case SftStep():
            from tasks.training.sft import run_sft

            return run_sft(step, folder, report)
        case AlignStep():
            from tasks.training.align import run_align

            return run_align(step, folder, report)
        case ConsultStep():
            from tasks.training.consulting import run_consult

            return run_consult(step, folder, report)
        case AttributeStep():
            from tasks.training.attribution import run_attribute

            return run_attribute(step, folder, report)


def _reporter(events: TextIO, index: int, name: str) -> Report:
    def report(done: int, total: int, note: str) -> None:
        if processes.rank() == 0:
            write_event(events, Progress(step=index, name=name, done=done, total=total, note=note))

    return report


def _connect(job: Job) -> None:
    """Join the other processes of the job, where there are any."""
    if processes.world() > 1:
        from tasks.training.device import choose_device

        device = next(step.machine.device for step in job.steps if not isinstance(step, ConvertStep))
        processes.connect(cpu=choose_device(device).type == "cpu")


def _read_job(folder: Path) -> Job:
    path = folder / "job.json"
    try:
        return Job.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise JobFailed(f"{path} is not a job this version understands ({error}); write it again with this version of the project") from error


def _claim_stdout() -> TextIO:
    """Keep standard output for events; whatever a library prints goes to standard error."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _end_with_parent() -> None:
    """The parent holds the other end of standard input, so it closes however the parent dies, SIGKILL included."""
    while os.read(0, 1024):  # not sys.stdin: its lock would be held while the interpreter shuts down
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
