"""Jobs whose children are forked from a process that has torch loaded: the same work, and no other ways to fail."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import psutil
import pytest
import torch

from tasks.contracts.failures import GuardError, JobFailed
from tasks.contracts.jobs import Job, Step
from tasks.training import launch, nursery
from tasks.training.launch import run_job
from tasks.training.nursery import Nurseries
from tests.flows.pipeline import wait_for
from tests.training.jobs import PLAIN, align_recipe, align_step, answer_step, examples, pairs, reference_step, requests, sft_step, weights, workers

pytestmark = pytest.mark.skipif(launch._may_have_gpu(), reason="no warm starts where a GPU may be used")


def nurseries() -> list[int]:
    """Process numbers of this process's nurseries."""
    return [child.pid for child in psutil.Process().children() if "tasks.training.nursery" in child.cmdline()]


def ignore(progress: object) -> None:
    """A listener that hears nothing."""


def answers(folder: Path, tiny: Path, count: int = 2) -> Job:
    folder.mkdir(exist_ok=True)
    return Job(steps=(answer_step(folder, tiny, requests(count)),))


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nurseries of this test alone, for it spoils them."""
    own = Nurseries()
    monkeypatch.setattr(launch, "_nurseries", own)
    yield
    own.close()


def chain(folder: Path, tiny: Path) -> Job:
    """Every kind of random draw: initial weights, dropout, order, sampled answers."""
    folder.mkdir()
    steps = (
        sft_step(folder, tiny, examples(16)),
        reference_step(folder, tiny, pairs(12)),
        align_step(folder, tiny, [], align_recipe(PLAIN, PLAIN, nll_weight=0.2, learning_rate=5e-3)),
        answer_step(folder, tiny, requests(5), weights=weights(tiny, adapter="aligned"), temperature=1.0, allow=("template",)),
    )
    return Job(steps=steps)


def outputs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for kind in ("safetensors", "parquet") for path in folder.rglob(f"*.{kind}")}


def test_a_forked_child_computes_what_a_fresh_one_does(tiny, tmp_path, monkeypatch):
    run_job(answers(tmp_path / "before", tiny), tmp_path / "before", on_progress=ignore)
    (warm,) = nurseries()
    run_job(chain(tmp_path / "forked", tiny), tmp_path / "forked", on_progress=ignore)
    assert nurseries() == [warm]
    monkeypatch.setattr(launch, "_may_have_gpu", lambda: True)
    run_job(chain(tmp_path / "fresh", tiny), tmp_path / "fresh", on_progress=ignore)
    forked, fresh = outputs(tmp_path / "forked"), outputs(tmp_path / "fresh")
    assert forked.keys() >= {"adapter/adapter_model.safetensors", "aligned/adapter_model.safetensors", "completions.parquet"}
    assert forked["adapter/adapter_model.safetensors"] != forked["aligned/adapter_model.safetensors"]
    assert forked == fresh


def test_a_killed_child_is_explained_and_the_next_jobs_run(tiny, tmp_path):
    def kill(progress: object) -> None:
        (child,) = workers(tmp_path / "killed")
        child.kill()

    with pytest.raises(JobFailed, match="killed by signal 9"):
        run_job(answers(tmp_path / "killed", tiny, 4000), tmp_path / "killed", on_progress=kill)
    before = nurseries()
    (tmp_path / "tripped" / "adapter").mkdir(parents=True)
    (tmp_path / "tripped" / "adapter" / "history.json").write_text('{"completion_tokens": {"direct": 61}}')
    step = answer_step(tmp_path / "tripped", tiny, requests(1), weights=weights(tiny, adapter="adapter"))
    with pytest.raises(GuardError, match="direct up to 61 tokens"):
        run_job(Job(steps=(step,)), tmp_path / "tripped", on_progress=ignore)
    with ThreadPoolExecutor() as pool:  # two jobs at a time
        folders = [tmp_path / "one", tmp_path / "two"]
        done = list(pool.map(lambda folder: run_job(answers(folder, tiny), folder, on_progress=ignore), folders))
    assert [result.kind for (result,) in done] == ["answer", "answer"]
    assert nurseries() == before
    assert not workers(tmp_path / "*")


def test_a_job_that_is_cancelled_while_torch_loads_harms_no_later_one(tiny, tmp_path, others):
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(JobFailed, match="cancelled"):
        run_job(answers(tmp_path / "first", tiny), tmp_path / "first", on_progress=ignore, cancelled=cancelled)
    run_job(answers(tmp_path / "second", tiny), tmp_path / "second", on_progress=ignore)
    assert not (tmp_path / "first" / "completions.parquet").exists()
    assert not workers(tmp_path / "*")


def test_another_environment_needs_another_nursery(tiny, tmp_path, monkeypatch, others):
    seen = [set(nurseries())]
    for number, (name, value) in enumerate((("PREFECT_API_URL", "http://one"), ("PREFECT_API_URL", "http://two"), ("OMP_NUM_THREADS", "3"))):
        monkeypatch.setenv(name, value)
        run_job(answers(tmp_path / str(number), tiny), tmp_path / str(number), on_progress=ignore)
        seen.append(set(nurseries()))
    ((first,), second, (third,)) = seen[1] - seen[0], seen[2] - seen[1], seen[3] - seen[2]
    assert first != third
    assert not second
    assert psutil.Process(third).environ()["OMP_NUM_THREADS"] == "3"


def test_a_nursery_that_is_killed_costs_time_and_one_line(tiny, tmp_path, caplog, others):
    before = set(nurseries())

    def kill(progress: object) -> None:
        for pid in set(nurseries()) - before:
            os.kill(pid, signal.SIGKILL)

    with caplog.at_level(logging.WARNING):
        (result,) = run_job(answers(tmp_path, tiny, 40), tmp_path, on_progress=kill)
    assert (tmp_path / result.out).is_file()
    assert [record.name for record in caplog.records] == ["tasks.training.launch"]
    assert "the next job starts another" in caplog.text
    run_job(answers(tmp_path / "next", tiny), tmp_path / "next", on_progress=ignore)
    (another,) = set(nurseries()) - before  # so only the job that it was killed under loaded torch anew
    os.kill(another, signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        run_job(answers(tmp_path / "last", tiny), tmp_path / "last", on_progress=ignore)
    assert "from here on every job" in caplog.text  # twice is no accident
    assert set(nurseries()) <= before


BROKEN = "raise RuntimeError('cannot be loaded')"
BUSY = "import threading; threading.Timer(60, print).start()"


@pytest.mark.parametrize(("code", "told"), [(BROKEN, "cannot be loaded"), (BUSY, "threads beside the one that is to fork: 1")], ids=["broken", "busy"])
def test_a_nursery_that_cannot_fork_safely_costs_time_and_one_line(tiny, tmp_path, monkeypatch, caplog, others, code, told):
    (tmp_path / "strange.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(nursery, "COMMON", ("strange",))
    with caplog.at_level(logging.WARNING):
        (result,) = run_job(answers(tmp_path, tiny), tmp_path, on_progress=ignore)
    assert (tmp_path / result.out).is_file()
    assert len(caplog.records) == 1
    assert told in (tmp_path / "log.txt").read_text()


ENDLESS = "import pathlib, time; pathlib.Path({!r}).touch(); time.sleep(600)"
PARENT = """
import os, pathlib, sys
from tasks.training import nursery
nursery.COMMON = ("strange",)
nursery.Nurseries().fork(pathlib.Path(), kinds=["answer"], log=open(os.devnull, "wb"), cwd=pathlib.Path(), environment=dict(os.environ))
sys.stdin.read()
"""


def test_a_nursery_that_still_loads_ends_with_its_parent(tmp_path):
    loading = tmp_path / "loading"
    (tmp_path / "strange.py").write_text(ENDLESS.format(str(loading)))
    path = os.pathsep.join([str(tmp_path), str(launch.PROJECT)])
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=launch.PROJECT, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as parent:
        wait_for(loading.exists)
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    assert children
    assert not psutil.wait_procs(children, timeout=15)[1]


def test_children_draw_apart():
    drawn = set()
    with torch.random.fork_rng():
        for _ in range(2):
            torch.manual_seed(1)
            np.random.seed(1)
            nursery._draw_apart()
            drawn |= {torch.initial_seed(), np.random.random()}
    assert len(drawn) == 4


def test_every_kind_of_step_has_its_modules_named() -> None:
    (union, _) = get_args(Step)
    assert nursery.NEEDS.keys() == {kind.model_fields["kind"].default for kind in get_args(union)}
