"""Supervised objectives through the whole pipeline: epochs chosen on dev, arguments for the other verdict read, guards switched off in the open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flows.pipeline import Pipeline

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
CHANGES = {
    "recipe.sft.select_questions": 4, "recipe.sft.counterfactual_weight": 0.5, "recipe.sft.epochs": 3, "recipe.pair.max_new_tokens": 35,
    "recipe.sft.lora": {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["o_proj", "down_proj"]},
    "recipe.grade.max_new_tokens": 35, "recipe.guards.allow": ["lora_coverage", "verdict_fits"],
    "recipe.grade.controls": [], "recipe.grade.side_arms": [], "recipe.grade.calibrate": False,
}  # fmt: skip


def records(root: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in root.glob(f"{pattern}/artifact.json")]


def test_a_recipe_that_chooses_epochs_reads_wrong_arguments_and_allows_two_faults(pipeline: Pipeline) -> None:
    pipeline.run(until="evaluate", changes=CHANGES)
    tracks = {record["recipe"]["track"]: record for record in records(pipeline.root, "models/finetune/*")}
    for record in tracks.values():
        summary, table = record["summary"], record["summary"]["selection"]
        assert [each["n"] for each in table] == [4] * len(table)
        assert summary["kept_epoch"] == max(table, key=lambda each: (each["correct"], -each["epoch"]))["epoch"]
        assert "dev" in record["inputs"]
    assert tracks["track_b"]["summary"]["counterfactuals"] > 0
    assert "taught" in tracks["track_b"]["inputs"]
    assert "taught" not in tracks["track_a"]["inputs"]
    assert tracks["track_a_matched"]["summary"]["steps"] == tracks["track_b"]["summary"]["steps"]
    assert {name: record["summary"]["allowed"].keys() for name, record in tracks.items()} == {
        "track_a": {"lora_coverage"}, "track_a_matched": {"lora_coverage"}, "track_b": {"lora_coverage", "verdict_fits"},
    }  # fmt: skip
    read = {record["recipe"]["model"]: record["summary"]["steps"]["greedy"]["allowed"].keys() for record in records(pipeline.root, "data/predict/*")}
    assert (read["zero_shot"], read["track_b"]) == (set(), {"verdict_fits"})
