"""Attribute stage: what the verdicts of Track B and the aligned model rest on, by integrated gradients over the rewrite prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from tasks.contracts.artifacts import ArtifactRoot, ModelRef, TableRef, read_rows, write_rows
from tasks.contracts.jobs import TEXTS, TOKENS, AnswerStep, AttributeStep
from tasks.contracts.recipes import Attribute, Student
from tasks.contracts.rows import Arm, Attributable, Attributed, Completion, Drafted, TokenShare
from tasks.logic.ablations import shuffled
from tasks.logic.asking import arm_requests
from tasks.logic.attribution import attributables, attribution_evidence
from tasks.logic.benchmarks import get_benchmark
from tasks.stage import Table, Work, table_stage

BEFORE, AFTER = "track_b", "aligned"


@table_stage("attribute", version=3, run_name="attribute {split}")
async def attribute(
    work: Work,
    *,
    split: str,
    questions: TableRef[Drafted],
    student: ModelRef,
    before: ModelRef,
    after: ModelRef,
    benchmark: str,
    recipe: Attribute,
    max_new_tokens: int,
    bootstrap: int,
    allow: tuple[str, ...],
    numbers: Student,
    seed: int,
) -> Table[TokenShare]:
    """Attributions of each token of every model's own greedy chain and the prompt before it, for the first questions of `split`.

    The aligned model is also given drafts of other questions. Where nothing was aligned, or no epoch was better than Track B, its texts stand for both.
    """
    wording = get_benchmark(benchmark)
    rows = work.root.read(questions, Drafted)[: recipe.questions]
    same = same_weights(work.root, before, after)
    sides = [(AFTER, "own", after, rows), (AFTER, "shuffled", after, shuffled(rows, seed=seed)[0])]
    sides += [] if same else [(BEFORE, "own", before, rows)]

    def answer(model: str, draft: str, adapter: ModelRef, asked: Sequence[Drafted]) -> AnswerStep:
        requests, weights = arm_requests(asked, arm=Arm.REWRITE, benchmark=wording), work.weights(student, adapter, numbers)
        return work.answering(requests, name=f"{model} with {draft} drafts", weights=weights, max_new_tokens=max_new_tokens, allow=allow, seed=seed)

    def explain(model: str, draft: str, adapter: ModelRef, asked: Sequence[Drafted], answered: AnswerStep) -> AttributeStep:
        file, chains = f"{model}-{draft}", read_rows(work.folder / answered.out, Completion)
        write_rows(work.folder / f"{file}-texts.parquet", attributables(asked, chains, model=model, draft=draft, benchmark=wording), Attributable)
        return AttributeStep(
            name=f"why {model} says so, {draft} drafts",
            weights=work.weights(student, adapter, numbers),
            requests=f"{file}-texts.parquet",
            recipe=recipe,
            machine=work.machine,
            out=f"{file}-attributed",
        )

    answers = [answer(*side) for side in sides]
    await work.run(*answers)
    done = (await work.run(*answers, *(explain(*side, answered) for side, answered in zip(sides, answers, strict=True))))[len(answers) :]
    texts = [row for each in done for row in read_rows(work.folder / each.out / TEXTS, Attributed)]
    tokens = [row for each in done for row in read_rows(work.folder / each.out / TOKENS, TokenShare)]
    if same:
        texts += [replace(row, model=BEFORE) for row in texts if row.draft == "own"]
        tokens += [replace(row, model=BEFORE) for row in tokens if row.draft == "own"]
    if split == "test":
        work.root.register_test_read({"model": AFTER, "arms": {"rewrite": len(rows)}, "questions": questions.digest, "key": work.address.key})
    evidence = attribution_evidence(texts, tokens, questions=len(rows), before=BEFORE, after=AFTER, resamples=bootstrap, seed=seed)
    steps = {each.out: {**each.summary, "wall_seconds": each.seconds} for each in done}
    return Table(tokens, TokenShare, {"evidence": asdict(evidence), "texts": [asdict(text) for text in texts], "steps": steps})


def same_weights(root: ArtifactRoot, *models: ModelRef) -> bool:
    """Whether models are equal but for their histories, as they are where preference training kept its start."""
    weights = [{name: entry["sha256"] for name, entry in root.record(model)["files"].items() if name.endswith(".safetensors")} for model in models]
    return all(each == weights[0] for each in weights)
