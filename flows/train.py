"""Fine-tune both tracks and their controls, pair, align."""

from __future__ import annotations

from prefect import flow

from flows.plan import Overrides, ProfileName, open_plan
from flows.teach import teach
from tasks.align import align
from tasks.contracts.artifacts import ModelRef, TableRef
from tasks.contracts.outcomes import Corpus, Students
from tasks.contracts.readings import TWIN, Track, exam_arm, numbers_of, twin_exam_arm
from tasks.contracts.rows import Pair
from tasks.finetune import finetune, steps_of
from tasks.pair import pair, pair_no_draft
from tasks.publish import publish_training


@flow(name="train", flow_run_name="train {profile}")
async def train(profile: ProfileName = "demo", overrides: Overrides = None, corpus: Corpus | None = None) -> Students:
    """Track A, Track B, the matched Track A and the trained controls; then pairs and alignment. Without a corpus, teach comes first."""
    corpus = corpus or await teach(profile, overrides)
    plan = open_plan(profile, overrides)
    recipe, run = plan.recipe, plan.context

    async def fit(track: Track, *, init: ModelRef | None = None, matched: ModelRef | None = None) -> ModelRef:
        exam, argues = plan.examination(track), track is Track.TRACK_B and recipe.sft.counterfactual_weight > 0
        return await finetune(
            run, track=track, curated=corpus.curated, taught=corpus.taught if argues else None, student=corpus.student, init=init, matched=matched,
            dev=corpus.drafted["dev"] if exam else None, exam=exam, benchmark=recipe.benchmark,
            recipe=numbers_of(recipe.sft, track), allow=recipe.guards.allow, numbers=recipe.student, seed=recipe.seed,
        )  # fmt: skip

    async def prefer(pairs: TableRef[Pair], exam: str) -> ModelRef:
        return track_b if not pairs.rows else await align(
            run, pairs=pairs, student=corpus.student, track_b=track_b, dev=corpus.drafted["dev"], benchmark=recipe.benchmark, recipe=recipe.align,
            exam_arm=exam, exam_max_new_tokens=recipe.grade.max_new_tokens, allow=recipe.guards.allow, numbers=recipe.student, seed=recipe.seed,
        )  # fmt: skip

    track_a = await fit(Track.TRACK_A)
    track_b = await fit(Track.TRACK_B, init=track_a if recipe.sft.init == "track_a" else None)
    same_length = steps_of(run, track_a) == steps_of(run, track_b)  # then Track A is its own matched twin
    matched = track_a if same_length else await fit(Track.TRACK_A_MATCHED, matched=track_b)
    adapters = {"track_a": track_a, "track_b": track_b, "track_a_matched": matched}
    for control in plan.trained_controls:
        adapters[control] = await fit(control, matched=track_b)
    pairs = await pair(
        run, curated=corpus.curated, taught=corpus.taught, student=corpus.student, track_b=track_b, benchmark=recipe.benchmark,
        recipe=recipe.pair, max_length=recipe.align.max_length, allow=recipe.guards.allow, numbers=recipe.student, seed=recipe.seed,
    )  # fmt: skip
    adapters["aligned"] = await prefer(pairs, exam_arm(recipe.grade.headline.aligned))
    if recipe.ablate.matched:
        bare = await pair_no_draft(
            run, pairs=pairs, curated=corpus.curated, student=corpus.student, track_b=track_b, benchmark=recipe.benchmark,
            max_length=recipe.align.max_length, numbers=recipe.student,
        )  # fmt: skip
        adapters[TWIN] = await prefer(bare, twin_exam_arm(recipe.grade.headline.aligned))
    await publish_training(run, adapters)
    return Students(adapters=adapters, pairs=pairs)
