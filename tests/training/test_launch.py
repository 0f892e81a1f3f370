"""Jobs as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tasks.contracts.artifacts import read_rows
from tasks.contracts.failures import GuardError, JobFailed
from tasks.contracts.jobs import Job
from tasks.contracts.rows import Completion
from tasks.training.launch import PROJECT, run_job
from tasks.training.progress import Progress
from tests.training.jobs import answer_step, examples, requests, sft_step, weights, workers

PARENT = """
import os, sys
from pathlib import Path
from tasks.contracts.jobs import Job
from tasks.training.launch import run_job
folder = Path(sys.argv[1])
run_job(Job.model_validate_json((folder / "wanted.json").read_text()), folder, on_progress=lambda each: print(each.done, flush=True))
"""


def test_a_chain_of_steps_runs_in_a_child_and_is_not_repeated(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = answer_step(tmp_path, tiny, requests(6))
    seen: list[Progress] = []
    results = run_job(Job(steps=(first,)), tmp_path, on_progress=seen.append)
    assert {(each.step, each.name, each.total) for each in seen} == {(0, "ask", 6)}
    done = [each.done for each in seen]
    assert done == sorted(done)
    assert {4, 6} < set(done), "a batch is told as its tokens are made, and when it is answered"
    seen.clear()
    both = run_job(Job(steps=(first, first.model_copy(update={"out": "more.parquet", "temperature": 1.0}))), tmp_path, on_progress=seen.append)
    assert both[0] == results[0]
    assert {each.step for each in seen} == {1}
    assert len(read_rows(tmp_path / both[1].out, Completion)) == 6
    assert workers(tmp_path) == []


def trained(folder: Path, history: str) -> Path:
    """A folder that looks like an adapter as far as its history goes."""
    (folder / "adapter").mkdir()
    (folder / "adapter" / "history.json").write_text(history)
    return folder


def test_a_guard_that_the_child_trips_reaches_the_caller_as_itself(tiny, tmp_path):
    trained(tmp_path, json.dumps({"completion_tokens": {"direct": 61}}))
    step = answer_step(tmp_path, tiny, requests(1), weights=weights(tiny, adapter="adapter"))
    with pytest.raises(GuardError, match="direct up to 61 tokens"):
        run_job(Job(steps=(step,)), tmp_path, on_progress=lambda each: None)


def test_a_crash_carries_the_end_of_the_log(tiny, tmp_path):
    trained(tmp_path, "torn")
    step = answer_step(tmp_path, tiny, requests(1), weights=weights(tiny, adapter="adapter"))
    with pytest.raises(JobFailed, match=r"(?s)ended with exit code 1.*JSONDecodeError"):
        run_job(Job(steps=(step,)), tmp_path, on_progress=lambda each: None)


def test_an_error_while_listening_ends_the_child(tiny, tmp_path):
    def listener(each: Progress) -> None:
        raise RuntimeError("the listener is gone")

    with pytest.raises(RuntimeError, match="listener"):
        run_job(Job(steps=(answer_step(tmp_path, tiny, requests(4000)),)), tmp_path, on_progress=listener)
    assert workers(tmp_path) == []


def test_cancelling_ends_the_child(tiny, tmp_path):
    cancelled = threading.Event()
    job = Job(steps=(answer_step(tmp_path, tiny, requests(4000)),))
    with pytest.raises(JobFailed, match="cancelled"):
        run_job(job, tmp_path, on_progress=lambda each: cancelled.set(), cancelled=cancelled)
    assert workers(tmp_path) == []


def test_killing_the_parent_ends_the_child_and_the_next_run_resumes(tiny, tmp_path):
    step = sft_step(tmp_path, tiny, examples(16))
    step = step.model_copy(update={"recipe": step.recipe.model_copy(update={"epochs": 400})})
    (tmp_path / "wanted.json").write_text(Job(steps=(step,)).model_dump_json())
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)}
    )
    assert parent.stdout is not None
    reached = next(done for done in map(int, parent.stdout) if done >= 4)
    (child,) = workers(tmp_path)
    family = psutil.Process(parent.pid).children(recursive=True)
    assert child in family
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert psutil.wait_procs(family, timeout=20)[1] == []
    marks = [json.loads(path.read_text()) for path in tmp_path.glob(".adapter.work/checkpoint-*/complete.json")]
    assert marks
    first: list[int] = []

    class Enough(Exception):
        pass

    def listener(each: Progress) -> None:
        first.append(each.done)
        raise Enough

    with pytest.raises(Enough):
        run_job(Job(steps=(step,)), tmp_path, on_progress=listener)
    assert first[0] > 1
    assert first[0] >= reached - 4
