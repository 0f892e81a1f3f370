"""Pair stage: preference pairs from the Track B student's own samples, with reference log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.contracts.artifacts import ModelRef, TableRef, read_rows, write_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.jobs import ReferenceStep, StepResult, Weights
from tasks.contracts.recipes import PairRecipe, Student
from tasks.contracts.rounds import Attempt
from tasks.contracts.rows import Arm, Completion, Curated, Drafted, Pair, Taught
from tasks.logic.asking import arm_requests
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.pairs import TOO_LONG, balance_chosen, build_pairs, pair_questions, with_disagreement, without_drafts
from tasks.logic.round_pairs import paired, round_pairs, that_fit, with_replay
from tasks.stage import Table, Work, table_stage


@table_stage("pair", version=3, run_name="pair")
async def pair(
    work: Work,
    *,
    curated: TableRef[Curated],
    taught: TableRef[Taught],
    student: ModelRef,
    track_b: ModelRef,
    benchmark: str,
    recipe: PairRecipe,
    max_length: int,
    allow: tuple[str, ...],
    numbers: Student,
    seed: int,
) -> Table[Pair]:
    """Sample the student on questions held out of SFT, pair right with wrong chains, and store what the reference thinks of both."""
    wording = get_benchmark(benchmark)
    rows = pair_questions(work.root.read(curated, Curated))
    requests = [request for arm in recipe.arms for request in arm_requests(rows, arm=Arm(arm), benchmark=wording, samples=recipe.samples)]
    weights = work.weights(student, track_b, numbers)
    sampling = work.answering(
        requests, name="sample for pairs", weights=weights, max_new_tokens=recipe.max_new_tokens, temperature=recipe.temperature, allow=allow, seed=seed
    )
    (sampled,) = await work.run(sampling)
    built = build_pairs(rows, read_rows(work.folder / sampled.out, Completion), recipe=recipe, benchmark=wording, seed=seed)
    reference = _reference(work, built.pairs, weights=weights, digest=track_b.digest, max_length=max_length)
    (_, referenced) = await work.run(sampling, reference)
    fitting = read_rows(work.folder / referenced.out, Pair)
    if built.pairs and not fitting:
        raise GuardError(f"recipe.align.max_length = {max_length} would cut the end off every one of {len(built.pairs)} preference pairs. Raise it")
    pairs = with_disagreement(balance_chosen(fitting, seed=seed), work.root.read(taught, Taught))
    turned_away = {**built.turned_away, **_too_long(referenced)}
    summary = {"questions": len({row.qid for row in rows}), "samples": len(requests), "turned_away": turned_away, "sampling": sampled.summary}
    return Table(pairs, Pair, summary)


@table_stage("pair-no-draft", version=2, run_name="pair without drafts")
async def pair_no_draft(
    work: Work,
    *,
    pairs: TableRef[Pair],
    curated: TableRef[Curated],
    student: ModelRef,
    track_b: ModelRef,
    benchmark: str,
    max_length: int,
    numbers: Student,
) -> Table[Pair]:
    """The very same pairs with the drafts taken out of their prompts, and what the reference thinks of both sides under those."""
    bare = without_drafts(work.root.read(pairs, Pair), work.root.read(curated, Curated), benchmark=get_benchmark(benchmark))
    counts = {"pairs": len(bare), "taken_out": sum(pair.arm == Arm.NO_DRAFT for pair in bare)}
    if not bare:
        return Table([], Pair, {**counts, "note": "no preference pair to train on: the twin is Track B itself, as the aligned model is"})
    (referenced,) = await work.run(_reference(work, bare, weights=work.weights(student, track_b, numbers), digest=track_b.digest, max_length=max_length))
    return Table(read_rows(work.folder / referenced.out, Pair), Pair, {**counts, "turned_away": _too_long(referenced)})


@table_stage("pair-round", version=2, run_name="pair {attempts.rows} samples")
async def pair_round(
    work: Work,
    *,
    attempts: TableRef[Attempt],
    drafted: TableRef[Drafted],
    curated: TableRef[Curated],
    first: TableRef[Pair],
    student: ModelRef,
    adapter: ModelRef,
    benchmark: str,
    arm: str,
    recipe: PairRecipe,
    max_similarity: float,
    replay: float,
    max_length: int,
    numbers: Student,
    seed: int,
) -> Table[Pair]:
    """Right against wrong samples of the student that a round starts from, some of the first alignment's pairs, and what that student thinks of all."""
    tried = work.root.read(attempts, Attempt)
    built = round_pairs(
        tried,
        drafted=work.root.read(drafted, Drafted),
        curated=work.root.read(curated, Curated),
        arm=Arm(arm),
        recipe=recipe,
        max_similarity=max_similarity,
        benchmark=get_benchmark(benchmark),
        seed=seed,
    )
    earlier = work.root.read(first, Pair)
    fresh, away, pairs = built.pairs, built.turned_away, with_replay(built.pairs, earlier, arm=Arm(arm), share=replay, seed=seed)
    if pairs:
        (done,) = await work.run(_reference(work, pairs, weights=work.weights(student, adapter, numbers), digest=adapter.digest, max_length=max_length))
        pairs = read_rows(work.folder / done.out, Pair)
        if shorn := _too_long(done):
            away = {**away, **shorn}
            fresh, pairs = that_fit(pairs, earlier, arm=Arm(arm), share=replay, seed=seed)
    summary = paired(pairs, fresh, turned_away=away, questions=len({each.qid for each in tried}))
    if not pairs:
        summary["note"] = "no question has both a chain to follow and a wrong one that fits it: there is nothing to train on"
    return Table(pairs, Pair, summary)


def _reference(work: Work, pairs: Sequence[Pair], *, weights: Weights, digest: str, max_length: int) -> ReferenceStep:
    """The reference pass over these pairs, which are written for it."""
    write_rows(work.folder / "pairs.parquet", pairs, Pair)
    return ReferenceStep(weights=weights, digest=digest, pairs="pairs.parquet", max_length=max_length, machine=work.machine, out="referenced.parquet")


def _too_long(referenced: StepResult) -> dict[str, int]:
    """The pairs that the reference pass left out, beside what else turned pairs away."""
    return {TOO_LONG: count} if (count := referenced.summary["too_long"]) else {}
