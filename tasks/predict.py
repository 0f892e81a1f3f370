"""Predict stage: one model's answers to one split, under each arm it is read in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contracts.artifacts import ModelRef, TableRef, read_rows
from tasks.contracts.jobs import AnswerStep
from tasks.contracts.readings import SAMPLED, Chains
from tasks.contracts.recipes import Student
from tasks.contracts.rows import Arm, Completion, Drafted, Prediction, Request
from tasks.logic.arms import reading_costs, self_consistency, soft, soft_requests
from tasks.logic.asking import arm_requests, greedy_requests, predictions, settled
from tasks.logic.benchmarks import get_benchmark
from tasks.stage import Table, Work, table_stage


@table_stage("predict", version=4, run_name="predict {model} on {split}")
async def predict(
    work: Work,
    *,
    model: str,
    split: str,
    questions: TableRef[Drafted],
    student: ModelRef,
    adapter: ModelRef | None,
    arms: Mapping[str, int],
    chains: Chains | None,
    benchmark: str,
    max_new_tokens: int,
    unparsed: str,
    allow: tuple[str, ...],
    numbers: Student,
    seed: int,
) -> Table[Prediction]:
    """Greedy answers, and answers of `chains` for the sampled arms; `arms` says how many questions each arm reads, 0 = all.

    A reading of a test split goes into the register; the record says by arm which drafts could not be changed as intended.
    """
    wording = get_benchmark(benchmark)
    rows = work.root.read(questions, Drafted)
    read = {arm: rows[: size or None] for arm, size in arms.items()}
    drawn = max((read.get(arm, []) for arm in SAMPLED), key=len)
    weights = work.weights(student, adapter, numbers)

    def step(name: str, requests: Sequence[Request], *, temperature: float = 0.0) -> AnswerStep:
        return work.answering(
            requests, name=f"{model} on {split}, {name}", weights=weights, max_new_tokens=max_new_tokens, temperature=temperature, allow=allow, seed=seed
        )

    asked = {arm: greedy_requests(some, arm=arm, benchmark=wording, seed=seed) for arm, some in read.items() if arm not in SAMPLED}
    greedy = [request for requests, _ in asked.values() for request in requests]
    steps = {"greedy": step("greedy", greedy)} if greedy else {}
    if chains is not None:
        sampled = arm_requests(drawn, arm=Arm.REASONING, benchmark=wording, samples=chains.samples)
        steps["chains"] = step("chains", sampled, temperature=chains.temperature)
    replies, done = await _answers(work, steps)
    if Arm.SOFT in read:
        steps["after chains"] = step("after chains", soft_requests(read[Arm.SOFT], replies["chains"], benchmark=wording))
        replies, done = await _answers(work, steps)
    made = predictions(rows, replies.get("greedy", []), model=model, benchmark=wording)
    made += self_consistency(read.get(Arm.SELF_CONSISTENCY, []), replies.get("chains", []), model=model, benchmark=wording)
    made += soft(read.get(Arm.SOFT, []), replies.get("chains", []), replies.get("after chains", []), model=model, benchmark=wording)
    if split == "test":
        work.root.register_test_read({"model": model, "arms": dict(arms), "questions": questions.digest, "key": work.address.key})
    cost = reading_costs(made, seconds={name: each["seconds"] for name, each in done.items()})
    unmatched = {arm: reasons for arm, (_, reasons) in asked.items() if reasons}
    return Table(settled(made, unparsed=unparsed), Prediction, {"cost": cost, "steps": done, "unmatched": unmatched})


async def _answers(work: Work, steps: Mapping[str, AnswerStep]) -> tuple[dict[str, list[Completion]], dict[str, dict[str, Any]]]:
    """Replies and summaries of all steps by name; a step that was run before is not run again."""
    done = dict(zip(steps, await work.run(*steps.values()), strict=True))
    return {name: read_rows(work.folder / each.out, Completion) for name, each in done.items()}, {name: each.summary for name, each in done.items()}
