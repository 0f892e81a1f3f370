"""The attribute stage in a real run: made once, cached, and taken up where it was killed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.contracts.artifacts import read_rows
from tasks.contracts.rows import TokenShare
from tests.flows.pipeline import Pipeline

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
CHANGES = {
    "recipe.attribute.questions": 2, "recipe.grade.controls": [], "recipe.grade.side_arms": [], "recipe.grade.calibrate": False,
    "recipe.pair.max_new_tokens": 35, "recipe.grade.max_new_tokens": 35, "recipe.guards.allow": ["verdict_fits"],
}  # fmt: skip


def record(pipeline: Pipeline) -> dict[str, Any]:
    (path,) = pipeline.root.glob("data/attribute/*/artifact.json")
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_a_killed_attribution_keeps_its_chains_and_a_second_run_computes_nothing(pipeline: Pipeline) -> None:
    def explaining() -> bool:
        return any(pipeline.root.glob("data/.work/attribute-*/result-1.json"))

    pipeline.changes |= CHANGES
    pipeline.run(until="train")
    pipeline.kill_when(explaining, until="evaluate")
    kept = {path: path.stat().st_mtime_ns for path in pipeline.root.glob("data/.work/attribute-*/*-chains.parquet")}
    assert kept
    assert not list(pipeline.root.glob("data/attribute/*/artifact.json"))
    pipeline.run(until="evaluate")
    made = pipeline.made_at()
    found = record(pipeline)["summary"]
    assert {(text["model"], text["draft"]) for text in found["texts"]} == {("track_b", "own"), ("aligned", "own"), ("aligned", "shuffled")}
    assert found["evidence"]["verdict"] == "underpowered" or found["evidence"]["masses"]["aligned"]["mass"] < 0.2
    assert found["evidence"]["within_tolerance"] == sum(text["complete"] for text in found["texts"]) / 6
    (path,) = pipeline.root.glob("data/attribute/*/part-0.parquet")
    tokens = read_rows(path, TokenShare)
    assert {token.role for token in tokens} >= {"template", "question", "draft_other"}
    assert all(token.attribution == 0.0 for token in tokens if token.role == "template")
    pipeline.run(until="evaluate")
    assert pipeline.made_at() == made
