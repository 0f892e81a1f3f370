"""Experiments through the whole pipeline: an attribution that is killed and goes on; changed drafts, a twin on the same pairs, the family in the record.

The tests of this file share one artifact root and are run in the order in which they stand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.artifacts import read_rows
from tasks.contracts.rows import Pair, Prediction, TokenShare
from tests.flows.pipeline import Pipeline

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
ARMS = ["no_draft", "shuffled_draft", "neutral_draft", "draft_questions", "draft_verdict"]
CHANGES = {
    "recipe.ablate.arms": ARMS, "recipe.ablate.questions": 6, "recipe.ablate.matched": True, "recipe.pair.arms": ["reasoning", "rewrite"],
    "recipe.grade.controls": [], "recipe.grade.side_arms": [], "recipe.grade.calibrate": False,
    "recipe.attribute.questions": 2, "recipe.pair.max_new_tokens": 35, "recipe.grade.max_new_tokens": 35, "recipe.guards.allow": ["verdict_fits"],
}  # fmt: skip


def records(root: Path, pattern: str) -> list[dict[str, Any]]:
    paths = sorted(root.glob(f"{pattern}/artifact.json"))
    return [{**json.loads(path.read_text(encoding="utf-8")), "folder": path.parent} for path in paths]


def test_an_attribution_that_was_killed_goes_on_and_a_second_run_computes_nothing(pipeline: Pipeline) -> None:
    def explaining() -> bool:
        return any(pipeline.root.glob("data/.work/attribute-*/result-1.json"))

    pipeline.changes |= CHANGES
    pipeline.run(until="train")
    pipeline.kill_when(explaining, until="evaluate")
    assert any(pipeline.root.glob("data/.work/attribute-*/*-completions.parquet"))
    assert not list(pipeline.root.glob("data/attribute/*/artifact.json"))
    pipeline.run(until="evaluate")
    made = pipeline.made_at()
    (explained,) = records(pipeline.root, "data/attribute/*")
    found = explained["summary"]
    assert {(text["model"], text["draft"]) for text in found["texts"]} == {("track_b", "own"), ("aligned", "own"), ("aligned", "shuffled")}
    assert found["evidence"]["verdict"] == "underpowered" or found["evidence"]["masses"]["aligned"]["mass"] < 0.2
    assert found["evidence"]["within_tolerance"] == sum(text["complete"] for text in found["texts"]) / 6
    (path,) = pipeline.root.glob("data/attribute/*/part-0.parquet")
    tokens = read_rows(path, TokenShare)
    assert {token.role for token in tokens} >= {"template", "question", "draft_other"}
    assert all(token.attribution == 0.0 for token in tokens if token.role == "template")
    pipeline.run(until="evaluate")
    assert pipeline.made_at() == made


def test_changed_drafts_are_read_and_compared_with_a_twin(pipeline: Pipeline) -> None:
    pipeline.run()
    (graded,) = records(pipeline.root, "data/grade/*")
    draft = graded["summary"]["draft"]
    assert [each["name"] for each in draft["comparisons"]] == [
        "full_draft_vs_no_draft", "full_draft_vs_shuffled_draft", "full_draft_vs_neutral_draft", "no_draft_vs_shuffled_draft",
        "draft_questions_vs_draft_verdict", "full_draft_vs_aligned_no_draft",
    ]  # fmt: skip
    assert {each["n"] for each in draft["comparisons"]} == {6}
    assert draft["verdict"] == "underpowered"
    read = {record["recipe"]["model"]: record for record in records(pipeline.root, "data/predict/*")}
    arms = [row.arm for row in read_rows(read["aligned"]["folder"] / "part-0.parquet", Prediction)]
    changed = {"rewrite", "no_draft", "shuffled_draft_1", "shuffled_draft_2", "neutral_draft", "draft_questions", "draft_verdict"}
    assert {arm: arms.count(arm) for arm in changed} == dict.fromkeys(changed, 6)
    assert read["aligned_no_draft"]["recipe"]["arms"] == {"no_draft": 6}
    assert draft["unmatched"] == read["aligned"]["summary"]["unmatched"]
    same_twin(pipeline, draft)
    assert json.loads((max(pipeline.root.glob("data/runs/*")) / "summary.json").read_text(encoding="utf-8"))["models"]["aligned"]["arms"]["rewrite"]["n"] == 6


def same_twin(pipeline: Pipeline, draft: dict[str, Any]) -> None:
    """The twin was aligned on the same rows for as many steps, from the same reference, which read the bare prompts anew."""
    (pairs,), (bare,) = records(pipeline.root, "data/pair/*"), records(pipeline.root, "data/pair-no-draft/*")
    shown, without = (read_rows(record["folder"] / "part-0.parquet", Pair) for record in (pairs, bare))
    assert [(pair.qid, pair.chosen, pair.rejected, pair.disagreement) for pair in shown] == [
        (pair.qid, pair.chosen, pair.rejected, pair.disagreement) for pair in without
    ]
    assert draft["confounded"] == (not any(pair.arm == "rewrite" for pair in shown))
    for before, after in zip(shown, without, strict=True):
        moved = before.arm == "rewrite"
        assert (after.arm == "no_draft") == moved
        assert (before.prompt != after.prompt) == moved
        assert (abs(before.reference_chosen - after.reference_chosen) > 1e-3) == moved
    aligned = records(pipeline.root, "models/align/*")
    assert len(aligned) == 2
    assert len({(record["summary"]["steps"], record["summary"]["pairs"]) for record in aligned}) == 1
