"""The class gate in a real run: a biased teacher stops it, and what a recipe allows is told in the record instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.gateways.simulated_server import SimulatedServer, serve_simulated
from tests.flows.pipeline import Pipeline

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
DROPPING: dict[str, Any] = {"recipe.curate.disagreement": "drop", "recipe.curate.pair_share": 0.0, "recipe.teacher.samples": 1}


@pytest.fixture(scope="module")
def teacher() -> Iterator[tuple[SimulatedServer, str]]:
    server = SimulatedServer(error_rate=0.9, no_bias=1.0)  # says no to nearly everything
    with serve_simulated(server) as url:
        yield server, url


def curated(pipeline: Pipeline) -> list[dict[str, Any]]:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in pipeline.root.glob("data/curate/*/artifact.json")]
    return [record["summary"] for record in records]


def test_a_biased_teacher_stops_the_run_unless_the_recipe_allows_it(pipeline: Pipeline) -> None:
    said = pipeline.failed(until="teach", changes=DROPPING)
    assert "curation moved the share of yes from 50.0%" in said
    assert "after drop:" in said
    assert not curated(pipeline)
    pipeline.run(until="teach", changes={**DROPPING, "recipe.guards.allow": ["class_balance"]})
    (allowed,) = curated(pipeline)
    assert allowed["allowed"]["class_balance"].startswith("curation moved the share of yes from 50.0%")
    assert allowed["keep_rates"][-1]["p_value"] < 0.05
