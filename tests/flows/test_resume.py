"""One story in order: a run is killed -9 in teach, in finetune and in align, finishes, and then repeats itself for nothing.

The tests of this file share one artifact root and are run in the order in which they stand.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import psutil
import pytest
from pptx import Presentation
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL

from tasks.contracts.artifacts import ArtifactRoot
from tasks.contracts.outcomes import Findings
from tasks.contracts.rows import Prediction
from tasks.gateways.simulated_teacher import SimulatedServer
from tasks.logic.benchmarks.strategyqa import score
from tests.flows.conftest import KEY, THOUGHT
from tests.flows.pipeline import Pipeline, wait_for
from tests.training.jobs import workers

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
SLOW_PACE = {"execution.teacher.requests_per_minute": 120}
IN_FLIGHT = 16


def replies(root: Path) -> int:
    """Replies in the ledger; 0 while there is none."""
    ledger = root / "data" / "ledger.sqlite"
    if not ledger.is_file():
        return 0
    with sqlite3.connect(ledger) as db:
        try:
            return int(db.execute("SELECT count(*) FROM replies").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def training(root: Path, stage: str) -> bool:
    """Whether a training job of `stage` runs in a child process."""
    return bool(workers(f"{root}/data/.work/{stage}-*"))


def assert_gone(children: list[psutil.Process]) -> None:
    wait_for(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))


def test_kill_in_teach_pays_nothing_twice(pipeline: Pipeline, teacher: tuple[SimulatedServer, str]) -> None:
    server, _ = teacher
    pipeline.changes |= SLOW_PACE
    pipeline.kill_when(lambda: replies(pipeline.root) >= 5, until="teach")
    kept, sent, before = replies(pipeline.root), server.calls, pipeline.artifacts()
    assert kept >= 5
    for path in SLOW_PACE:
        del pipeline.changes[path]
    pipeline.run(until="teach")
    paid_twice = sum(server.seen.values()) - len(server.seen)
    assert paid_twice <= sent - kept <= IN_FLIGHT
    assert before.items() <= pipeline.artifacts().items()


@pytest.mark.parametrize("stage", ["finetune", "align"])
def test_kill_in_training_leaves_no_orphan_and_keeps_earlier_stages(pipeline: Pipeline, teacher: tuple[SimulatedServer, str], stage: str) -> None:
    server, _ = teacher
    calls = server.calls
    children = pipeline.kill_when(lambda: training(pipeline.root, stage), until="train")
    assert children
    assert_gone(children)
    before = pipeline.artifacts()
    assert not any(name.startswith(f"models/{stage}") for name in before) or stage == "finetune"
    if stage == "align":
        pipeline.run()
    assert before.items() <= pipeline.artifacts().items()
    assert server.calls == calls


def test_the_finished_run_says_all_that_it_promised(pipeline: Pipeline) -> None:
    summary = pipeline.summary()
    assert summary["models"].keys() == {"zero_shot", "track_a", "track_b", "aligned"}
    assert summary["same_as"]["track_a_matched"] == "track_a", "as many steps as Track B: one model, read and tested once"
    assert summary["controls"].keys() == {"facts_only", "entity_prior"}
    names = {each["name"] for each in summary["comparisons"]}
    assert {"track_b_vs_track_a", "aligned_vs_track_b"} <= names
    assert "track_b_vs_track_a_matched" not in names
    arms = summary["models"]["track_b"]["arms"]
    assert {arm: cell["n"] for arm, cell in arms.items()} == {
        "reasoning": 8, "direct": 4, "calibrated": 4, "rewrite": 4, "self_consistency": 4, "soft": 4, "adaptive": 4,
    }  # fmt: skip
    costs = summary["costs"]["track_b"]
    assert costs.keys() == arms.keys()
    assert costs["soft"]["tokens_per_question"] == costs["self_consistency"]["tokens_per_question"] > costs["reasoning"]["tokens_per_question"] > 0
    assert costs["soft"]["ms_per_question"] > costs["self_consistency"]["ms_per_question"] > 0
    assert summary["calibration"].keys() == {"zero_shot", "track_a", "track_b", "aligned", "facts_only"}
    folder = max(pipeline.root.glob("data/runs/*"))
    assert {path.name for path in folder.iterdir()} == {
        "summary.json", "report.html", "slides.pptx", "predictions", "refs.json", "track_a.jsonl", "track_b.jsonl", "pairs.jsonl",
    }  # fmt: skip
    read = ArtifactRoot(pipeline.root)
    refs = Findings.model_validate_json((folder / "refs.json").read_text(encoding="utf-8")).predictions
    gold = {row.qid: row.answer == "yes" for row in read.read(refs["track_b/dev"], Prediction)}
    for name, model in {**summary["models"], "facts_only": summary["controls"]["facts_only"]}.items():
        said = json.loads((folder / "predictions" / f"{name}.json").read_text(encoding="utf-8"))
        figures = score(said, [{"qid": qid, "answer": gold[qid]} for qid in said])
        assert figures["accuracy"] == model["arms"][model["headline"]]["accuracy"]
    assert Presentation(str(folder / "slides.pptx")).slides


def test_a_second_run_computes_nothing(pipeline: Pipeline, teacher: tuple[SimulatedServer, str]) -> None:
    server, _ = teacher
    made, calls, runs = pipeline.made_at(), server.calls, list(pipeline.root.glob("data/runs/*"))
    pipeline.run(changes={"execution.train.generate_batch": 4, "execution.teacher.max_in_flight": 2, "execution.train.batch_tokens": 256})
    assert pipeline.made_at() == made
    assert server.calls == calls
    assert list(pipeline.root.glob("data/runs/*")) == runs, "the report of the first run says all of it"


@pytest.mark.parametrize(
    ("change", "until", "recomputed"),
    [
        ({"recipe.align.nll_weight": 0.5}, "train", {"align"}),
        ({"recipe.sample.test": 6, "recipe.grade.split": "test"}, "train", {"sample", "draft"}),
    ],
)
def test_a_change_recomputes_what_it_touches(pipeline: Pipeline, change: dict[str, Any], until: str, recomputed: set[str]) -> None:
    made = pipeline.made_at()
    pipeline.run(until=until, changes=change)
    new = pipeline.made_at().keys() - made.keys()
    assert {name.split("/")[1] for name in new} == recomputed
    assert made.items() <= pipeline.made_at().items()


async def test_neither_key_nor_thoughts_are_anywhere_and_the_log_tells_the_stages(pipeline: Pipeline) -> None:
    database = Path(PREFECT_SERVER_DATABASE_CONNECTION_URL.value().partition("///")[2])
    files = [path for folder in (pipeline.root, database.parent) for path in folder.rglob("*") if path.is_file()]
    assert {"prefect-test.db", "ledger.sqlite", "report.html"} <= {path.name for path in files}
    assert not [path for path in files if {KEY.encode() in (held := path.read_bytes()), THOUGHT.encode() in held} != {False}]
    async with get_client() as client:
        logs = [each.message for each in await client.read_logs(limit=200)]
        shown = [await client.read_flow_runs(limit=200), await client.read_task_runs(limit=200), await client.read_artifacts(limit=200), logs]
    assert all(shown)
    assert any(line.startswith("teach: finished in ") for line in logs)
    assert not any(secret in repr(shown) for secret in (KEY, THOUGHT))
