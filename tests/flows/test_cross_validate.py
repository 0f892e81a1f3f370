"""Cross-validation through the command line: every question tested once, the comparisons of all folds pooled. Ids are public, texts are made up."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from tasks.contracts.artifacts import read_rows
from tasks.contracts.rows import Prediction
from tests.flows.pipeline import PROJECT, Pipeline

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
STORED = json.loads(files("tasks.logic.benchmarks").joinpath("strategyqa_splits.json").read_text(encoding="utf-8"))
ROWS = [
    {"qid": row.split()[0], "question": f"Is heron {number} grey?", "answer": number % 2 == 0, "facts": ["Some herons are grey."]}
    for number, row in enumerate(STORED["questions"])
    if row.split()[0] not in STORED["exemplars"]
][:32]
CHANGES = {
    "recipe.benchmark": "strategyqa", "recipe.sample": {"train": 0, "dev": 0, "test": 0, "entity_disjoint": 0, "kinds": None, "path": None, "split": "hub"},
    "recipe.teacher.kind": "recorded", "recipe.teacher.samples": 1, "recipe.curate.max_shift": 1.0, "recipe.align.select_questions": 2,
    "recipe.grade.controls": [], "recipe.grade.side_arms": [], "recipe.grade.calibrate": False,
    "recipe.pair.max_new_tokens": 35, "recipe.grade.max_new_tokens": 35, "recipe.guards.allow": ["verdict_fits"],
}  # fmt: skip


def test_every_question_is_tested_once_and_the_folds_are_pooled(pipeline: Pipeline, tmp_path: Path) -> None:
    source, replies = tmp_path / "questions.json", tmp_path / "replies.jsonl"
    source.write_text(json.dumps(ROWS), encoding="utf-8")
    said = [{**row, "reasoning": "Some herons are grey, and this one is one of them."} for row in ROWS]
    replies.write_text("\n".join(json.dumps(row) for row in said), encoding="utf-8")
    root = tmp_path / "root"
    whole = pipeline.command(until="report", changes={**CHANGES, "execution.root": str(root), "recipe.teacher.recordings": [str(replies)]})
    settings = whole[whole.index("--set") :]
    command = [*whole[:3], "cross-validate", whole[4], "--folds", "2", *settings, "--set", f"recipe.sample.path={source}"]
    done = subprocess.run(command, cwd=PROJECT, env=pipeline.whole_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| track_b_vs_track_a | **all** | {len(ROWS)} |" in done.stdout
    assert len(list(root.glob("data/runs/*/summary.json"))) == 2
    read = [row for path in root.glob("data/predict/*/part-*.parquet") for row in read_rows(path, Prediction) if row.model == "track_b"]
    assert Counter(row.qid for row in read if row.split == "test") == dict.fromkeys((row["qid"] for row in ROWS), 1)
