"""Experiment trackers get what training logs, through the real child process and transformers' own callback.

No tracker is a dependency, so a package named trackio that writes what it is told into a file stands in for it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tasks.contracts.jobs import Job
from tasks.training.launch import run_job
from tests.training.jobs import MACHINE, align_recipe, align_step, examples, pairs, reference_step, sft_step

TRACKIO = """
import contextvars, json, os

__version__ = "0.30.0"
class _Config(dict):
    def update(self, *values, **settings):
        pass

config = _Config()

class context_vars:
    current_space_id = contextvars.ContextVar("space", default=None)
    current_run = contextvars.ContextVar("run", default=None)

def _write(kind, value):
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps([kind, value]) + "\\n")

def init(**settings):
    _write("init", settings)

def log(figures):
    _write("log", figures)

def finish():
    _write("finish", {})
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "packages" / "trackio").mkdir(parents=True)
    (tmp_path / "packages" / "trackio" / "__init__.py").write_text(TRACKIO)
    path = [str(tmp_path / "packages"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("TOLD", str(tmp_path / "told.jsonl"))
    return tmp_path / "told.jsonl"


def runs(told: Path) -> list[tuple[dict, list[dict]]]:
    """Settings and logged figures of every tracked run, in order."""
    found: list[tuple[dict, list[dict]]] = []
    for kind, value in map(json.loads, told.read_text().splitlines()):
        if kind == "init":
            found.append((value, []))
        elif kind == "log":
            found[-1][1].append(value)
    return found


def test_every_logged_step_of_both_trainers_reaches_a_tracker(tiny, tmp_path, told):
    machine = MACHINE.model_copy(update={"report_to": ("trackio",)})
    sft = sft_step(tmp_path, tiny, examples(16), machine=machine)
    reference = reference_step(tmp_path, tiny, pairs(8))
    align = align_step(tmp_path, tiny, [], align_recipe(), machine=machine)
    done = run_job(Job(steps=(sft, reference, align)), tmp_path, on_progress=lambda each: None)
    (first, learned), (second, preferred) = runs(told)
    assert [(each["project"], each["name"], each["space_id"]) for each in (first, second)] == [("socratune", "sft", None), ("socratune", "align", None)]
    for result, logged in ((done[0], learned), (done[2], preferred)):
        told_losses = [each["train/raw_loss"] for each in logged if "train/raw_loss" in each]
        assert told_losses == [point["loss"] for point in result.summary["history"]]
    assert [each["train/gap"] for each in preferred if "train/gap" in each] == [point["gap"] for point in done[2].summary["history"]]


def test_nobody_is_told_by_default(tiny, tmp_path, told):
    run_job(Job(steps=(sft_step(tmp_path, tiny, examples(8)),)), tmp_path, on_progress=lambda each: None)
    assert not told.exists()
