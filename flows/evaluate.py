"""Read every model on the graded split, and compare."""

from __future__ import annotations

from prefect import flow

from flows.plan import Overrides, ProfileName, open_plan
from flows.teach import teach
from flows.train import train
from tasks.adapt import adapt
from tasks.attribute import attribute
from tasks.contracts.outcomes import Corpus, Findings, Students
from tasks.contracts.readings import Track
from tasks.grade import grade
from tasks.judge import judge
from tasks.loop import follow
from tasks.predict import predict
from tasks.publish import publish_scores


@flow(name="evaluate", flow_run_name="evaluate {profile}")
async def evaluate(profile: ProfileName = "demo", overrides: Overrides = None, corpus: Corpus | None = None, students: Students | None = None) -> Findings:
    """Predictions of every model under its arms, then scores and comparisons. Without students, train comes first."""
    corpus = corpus or await teach(profile, overrides)
    plan = open_plan(profile, overrides)
    students = students or follow(plan.context, await train(profile, overrides, corpus), profile=plan.profile.name, start=plan.recipe.loop.start)
    recipe, run = plan.recipe, plan.context
    predictions = {}
    one_model = students.adapters["track_a_matched"] == students.adapters["track_a"]  # under two names: read once, tested once
    for reading in plan.readings:
        if one_model and reading.model == Track.TRACK_A_MATCHED:
            continue
        model, split = reading.model, reading.split
        read = predictions[f"{model}/{split}"] = await predict(
            run, model=model, split=split, questions=corpus.drafted[split], student=corpus.student, adapter=students.adapters.get(model),
            arms=reading.asked, chains=reading.chains, benchmark=recipe.benchmark, max_new_tokens=recipe.grade.max_new_tokens,
            unparsed=recipe.grade.unparsed, allow=recipe.guards.allow, numbers=recipe.student, seed=recipe.seed,
        )  # fmt: skip
        if reading.adaptive is not None:
            predictions[f"{model}/{split}/adaptive"] = await adapt(
                run, model=model, split=split, read=read, dev=predictions[f"{model}/dev"], questions=reading.adaptive, calibrate=recipe.grade.calibrate
            )
    scores = await grade(
        run, predictions=predictions, train=corpus.questions["train"], graded=corpus.questions[recipe.grade.split],
        pairs=students.pairs if recipe.ablate.matched else None, benchmark=recipe.benchmark, recipe=recipe.grade, seed=recipe.seed,
    )  # fmt: skip
    judged = None
    if (arm := plan.judged_arm) is not None:
        judged = await judge(
            run, new=predictions[f"aligned/{recipe.grade.split}"], old=predictions[f"track_b/{recipe.grade.split}"], arm=arm, benchmark=recipe.benchmark,
            recipe=recipe.judge, labels=plan.labels, teacher=recipe.teacher.model, resamples=recipe.grade.bootstrap, seed=recipe.seed,
        )  # fmt: skip
    await publish_scores(run, scores)
    attributed = None if not recipe.attribute.questions else await attribute(
        run, split=recipe.grade.split, questions=corpus.drafted[recipe.grade.split], student=corpus.student,
        before=students.adapters["track_b"], after=students.adapters["aligned"], benchmark=recipe.benchmark, recipe=recipe.attribute,
        max_new_tokens=recipe.grade.max_new_tokens, bootstrap=recipe.grade.bootstrap, allow=recipe.guards.allow, numbers=recipe.student, seed=recipe.seed,
    )  # fmt: skip
    return Findings(predictions=predictions, scores=scores, attributed=attributed, judged=judged)
