"""The teach stage of very many questions on a real Prefect server: how many task runs, how long, how much memory. Every reply is in the ledger."""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from tasks.contracts.artifacts import Address, ArtifactRoot, TableRef
from tasks.contracts.profiles import load_profile
from tasks.contracts.rows import Drafted, Taught
from tasks.gateways.kinds import open_teacher, settings_of
from tasks.gateways.ledger import Ledger
from tasks.gateways.simulated_knowledge import ECHO
from tasks.gateways.teacher import Reply, first_request
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.teaching import asks_for, talk_of
from tasks.stage import Context
from tasks.teach import teach
from tests.bench.teacher.processes import PROJECT

BENCHMARK = "strategyqa"


def rows(count: int) -> list[Drafted]:
    empty = {"split": "train", "kind": "", "term": "", "description": "", "answer": "yes", "facts": (), "decomposition": (), "entities": ()}
    draft = {"draft": "Answer: Yes", "draft_verdict": "yes", "draft_questions": ("How many days has a year?",), "drafter": "d"}
    return [Drafted(qid=str(number), question=f"Is {number} larger than the number of days in a year?", **empty, **draft) for number in range(count)]


def main(folder: Path, count: int) -> dict[str, float]:
    profile = load_profile("demo", folder=PROJECT / "deployments" / "profiles", overrides={"execution.root": str(folder)})
    recipe, seed = profile.recipe.teacher, 0
    context = Context(root=ArtifactRoot(folder), execution=profile.execution)
    drafted = context.root.save_table(Address(stage="draft", version=1, recipe={}, inputs={}), rows(count), Drafted, summary={}, seconds=0.0)
    teacher = open_teacher(recipe, recordings=(), pace=profile.execution.teacher, seed=seed)
    reply = Reply(text=ECHO.text(), finish_reason="stop", model=recipe.model, tokens_in=150, tokens_out=60, request_id="r", seconds=0.1)
    with Ledger(folder / profile.execution.ledger, budget_usd=None) as ledger, ledger.transaction():
        for ask in asks_for(rows(count), talk=talk_of(recipe, benchmark=get_benchmark(BENCHMARK)), samples=range(1), hint=False):
            ledger.put(first_request(ask, settings_of(recipe)).key(teacher.source(ask)), reply, source=teacher.source(ask), usd=0.0, mode="online")

    @flow(name="teach-many")
    async def many() -> TableRef[Taught]:
        return await teach(
            context, drafted=drafted, benchmark=BENCHMARK, recipe=recipe, recordings=(), rationalise=False, resamples=0, validate=False, seed=seed
        )

    async def run() -> dict[str, float]:
        started = time.perf_counter()
        taught = await many()
        wall, seen = time.perf_counter() - started, -1
        async with get_client() as client:
            while True:  # the server learns of tasks through events, a little later
                task_runs = (await client.request("POST", "/task_runs/count", json={})).json()
                if task_runs == seen:
                    return {"questions": taught.rows, "task_runs": task_runs, "wall": wall}
                seen = task_runs
                await asyncio.sleep(3)

    with prefect_test_harness(server_startup_timeout=120):
        found = asyncio.run(run())
    return {**found, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
