"""Questions, drafts, the teacher's replies, and the curated corpus."""

from __future__ import annotations

from prefect import flow

from flows.plan import Overrides, ProfileName, open_plan
from tasks.contracts.artifacts import ModelRef
from tasks.contracts.outcomes import Corpus
from tasks.curate import curate
from tasks.draft import draft
from tasks.estimate import tell_cost
from tasks.publish import publish_corpus
from tasks.sample import sample
from tasks.select import select
from tasks.student import student
from tasks.teach import teach as ask_teacher


@flow(name="fetch-student", flow_run_name="fetch student of {profile}")
async def fetch_student(profile: ProfileName = "demo", overrides: Overrides = None) -> ModelRef:
    """Fetch and convert the student, nothing else."""
    plan = open_plan(profile, overrides)
    model = plan.recipe.student.model
    return await student(plan.context, source=plan.folder_of(model), **plan.student_weights(model))


@flow(name="teach", flow_run_name="teach {profile}")
async def teach(profile: ProfileName = "demo", overrides: Overrides = None) -> Corpus:
    """Sample questions, let the student draft, choose what to ask, let the teacher answer, curate."""
    plan = open_plan(profile, overrides)
    recipe, run, benchmark, seed = plan.recipe, plan.context, plan.recipe.benchmark, plan.recipe.seed

    base = await student(run, source=plan.folder_of(recipe.student.model), **plan.student_weights(recipe.student.model))
    drafter = base
    if recipe.draft.model != "student":
        drafter = await student(run, source=plan.folder_of(recipe.draft.model), **plan.student_weights(recipe.draft.model))

    questions, drafted = {}, {}
    for split, size in plan.splits.items():
        questions[split] = await sample(
            run, benchmark=benchmark, split=split, size=size, seed=seed, source=plan.source, named_split=recipe.sample.split, kinds=recipe.sample.kinds
        )
        drafted[split] = await draft(
            run, split=split, questions=questions[split], student=drafter, adapter=None, benchmark=benchmark,
            max_new_tokens=recipe.draft.max_new_tokens, numbers=recipe.student, seed=seed,
        )  # fmt: skip
    asked = drafted["train"]
    if recipe.teacher.select != "all":
        asked = await select(
            run, drafted=asked, student=base, benchmark=benchmark, how=recipe.teacher.select, share=recipe.teacher.select_share,
            max_new_tokens=recipe.draft.max_new_tokens, numbers=recipe.student, seed=seed,
        )  # fmt: skip
    await tell_cost(
        run, recipe=recipe, questions=questions["train"], drafted=drafted["train"], asked=asked, source=plan.source,
        rationalise=plan.rationalise, resamples=plan.resamples, validate=plan.validate,
    )  # fmt: skip
    taught = await ask_teacher(
        run, drafted=asked, benchmark=benchmark, recipe=recipe.teacher, recordings=plan.recordings,
        rationalise=plan.rationalise, resamples=plan.resamples, validate=plan.validate, seed=seed,
    )  # fmt: skip
    curated = await curate(
        run, drafted=drafted["train"], taught=taught, benchmark=benchmark, recipe=recipe.curate,
        ask=recipe.teacher.ask, allow=recipe.guards.allow, seed=seed,
    )  # fmt: skip
    await publish_corpus(run, curated)
    return Corpus(student=base, questions=questions, drafted=drafted, taught=taught, curated=curated)
