"""From artifact records and rows to summary.json and the report's view."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contracts.asks import Usage
from tasks.contracts.readings import headline_arms
from tasks.contracts.recipes import Phase
from tasks.contracts.rows import Arm, Drafted, Prediction, Verdict
from tasks.logic.balance import FilterStep
from tasks.logic.calibration import Bin, reliability
from tasks.logic.report.experiments import draft_summary, is_ablation
from tasks.logic.report.facts import MODELS, Made, RunFacts
from tasks.logic.report.notes import notes
from tasks.logic.report.remarks import remarks, same_as
from tasks.logic.report.summary import ModelScores, StageLine, TestRead, summary
from tasks.logic.report.view import EpochChoice, LossCurve, MarginPoint, ModelReply, Provenance, ReportView, Transcript
from tasks.logic.scores import Comparison, is_right


def run_summary(facts: RunFacts) -> dict[str, Any]:
    """summary.json. A teach stage that was reused cost this run nothing."""
    recipe = facts.profile.recipe
    heads = headline_arms(recipe.grade)
    shown = [cell for cell in facts.scores if cell.split == recipe.grade.split and not is_ablation(cell)]
    cells = {name: tuple(cell for cell in shown if cell.model == name) for name in heads}
    controls = {name: ModelScores(headline=heads[name], scores=cells[name]) for name in heads if name not in MODELS and cells[name]}
    disjoint = {cell.model: cell for cell in facts.scores if cell.split == "entity_disjoint" and cell.arm == heads[cell.model]}
    controls |= {f"{name}_entity_disjoint": ModelScores(headline=cell.arm, scores=(cell,)) for name, cell in disjoint.items()}
    curated, graded = facts.named("curate").summary, facts.named("grade").summary
    return summary(
        profile=facts.profile.name,
        overrides=facts.overrides,
        benchmark=recipe.benchmark,
        student=recipe.student.model,
        teacher=f"{recipe.teacher.kind}:{recipe.teacher.model}",
        split=recipe.grade.split,
        splits=_splits(facts),
        majority_accuracy=next(cell.majority_accuracy for cell in cells["track_b"] if cell.arm == heads["track_b"]),
        models={name: ModelScores(headline=heads[name], scores=cells[name]) for name in MODELS if cells[name]},
        controls=controls,
        comparisons=[Comparison(**each) for each in graded["comparisons"]],
        unparsed=recipe.grade.unparsed,
        accepted=facts.accepted,
        same_as=same_as(facts),
        remarks=remarks(facts),
        draft=draft_summary(graded["draft"], facts.scores, split=recipe.grade.split),
        attribution=facts.evidence("attribute"),
        judge=facts.evidence("judge"),
        calibration={name: graded["calibration"][name] for name in heads if name in graded["calibration"]},
        costs=_costs(facts),
        filters=[FilterStep(step=each["step"], yes=each["yes"], no=each["no"]) for each in curated["filters"]],
        curation={key: value for key, value in curated.items() if key != "filters"} | {"excluded": _excluded(facts)},
        teacher_usage=_usage(facts.named("teach")),
        stages=[StageLine(stage=made.name, seconds=made.record["seconds"], cached=made.cached, artifact=made.path) for made in facts.artifacts],
        test_reads=_reads(facts.test_reads),
    )


def run_view(facts: RunFacts, made: Mapping[str, Any]) -> ReportView:
    """What report.html shows, beside the summary `made`."""
    histories = {each.name.removeprefix("finetune "): each.summary["history"] for each in facts.artifacts if each.name.startswith("finetune ")}
    preferences = facts.named("align").summary["history"] if facts.was_aligned else []
    changes = "".join(f" --set {path}={value}" for path, value in facts.overrides.items())
    return ReportView(
        summary=made,
        generated_at=facts.generated_at,
        command=f"socratune run {facts.profile.name}{changes}",
        recipe=facts.profile.recipe,
        curves=tuple(LossCurve(model=name, points=tuple((each["step"], each["loss"]) for each in points)) for name, points in histories.items() if points),
        preference_loss=tuple((each["step"], each["loss"]) for each in preferences),
        margins=tuple(MarginPoint(step=each["step"], a=each["a"], b=each["b"], d=each["gap"]) for each in preferences if "a" in each),
        selection=_selection(facts),
        transcripts=_transcripts(facts),
        provenance=tuple(_provenance(each) for each in facts.artifacts),
        notes=notes(facts),
        reliability=_reliability(facts),
        attributed=facts.attributed,
        judged=facts.judged,
    )


def _costs(facts: RunFacts) -> dict[str, dict[str, Mapping[str, float]]]:
    """Tokens and milliseconds a question on the graded split, by model and arm. A calibrated answer costs what the direct one does."""
    split = facts.profile.recipe.grade.split
    costs: dict[str, dict[str, Mapping[str, float]]] = {}
    for each in facts.artifacts:
        model, _, place = each.name.removeprefix("predict ").partition("/")
        if each.name.startswith("predict ") and place.split("/")[0] == split:
            costs.setdefault(model, {}).update(each.summary["cost"])
    for model in facts.named("grade").summary["calibration"]:
        costs[model][Arm.CALIBRATED.value] = costs[model][Arm.DIRECT.value]
    return costs


def _splits(facts: RunFacts) -> dict[str, int]:
    drawn = {each.name.removeprefix("sample "): int(each.record["rows"]) for each in facts.artifacts if each.name.startswith("sample ")}
    return {"train": 0, "dev": 0, "test": 0} | drawn


def _excluded(facts: RunFacts) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for each in facts.artifacts:
        if each.name.startswith("sample "):
            counts.update(each.summary["excluded"])
    return dict(counts)


def _usage(teach: Made) -> Usage:
    used = Usage(**teach.summary["usage"])
    return Usage(cached=used.calls + used.cached) if teach.cached else used


def _reads(register: Sequence[Mapping[str, Any]]) -> list[TestRead]:
    times = Counter((f"{each['model']} {each['questions'][:8]}", "test") for each in register)
    return [TestRead(recipe=recipe, split=split, times=count) for (recipe, split), count in sorted(times.items())]


def _provenance(made: Made) -> Provenance:
    record = made.record
    packages = {name: version for name, version in record["packages"].items() if version}
    key = made.path.rsplit("/", 1)[-1]
    return Provenance(stage=made.name, key=key, digest=record["digest"], path=made.path, seconds=record["seconds"], cached=made.cached, packages=packages)


def _selection(facts: RunFacts) -> tuple[EpochChoice, ...]:
    """The epochs of preference training as they were read on dev."""
    if not facts.was_aligned:
        return ()
    aligned = facts.named("align").summary
    phases = ["start", *(words for phase in facts.profile.recipe.align.phases for words in [_in_words(phase)] * phase.epochs)]
    return tuple(
        EpochChoice(
            epoch=each["epoch"],
            phase=phases[each["epoch"]],
            correct=each["correct"],
            yes=each["yes"],
            n=each["n"],
            kept=each["epoch"] == aligned["kept_epoch"],
        )
        for each in aligned["selection"]
        if each["n"]
    )


def _reliability(facts: RunFacts) -> dict[str, tuple[Bin, ...]]:
    """How far the direct margins on the graded split can be trusted, by model; baselines without a model have none."""
    rows = [row for row in facts.predictions if row.split == facts.profile.recipe.grade.split and row.arm == Arm.DIRECT and not math.isnan(row.margin)]
    asked = {name: [row for row in rows if row.model == name] for name in MODELS}
    return {name: tuple(reliability([row.margin for row in of], [row.answer == Verdict.YES for row in of])) for name, of in asked.items() if of}


def _in_words(phase: Phase) -> str:
    parts = [f"beta {phase.beta:g}"] + [f"cal {phase.cal}"] * (phase.cal != "none") + [f"dr {phase.dr}"] * (phase.dr != "none")
    return ", ".join(parts + [f"without the {phase.drop_quantile:.0%} most suspicious"] * (phase.drop_quantile > 0))


def _transcripts(facts: RunFacts) -> tuple[Transcript, ...]:
    """Every graded question, those on which Track A and Track B differ first: that is what a reader wants to see."""
    heads = headline_arms(facts.profile.recipe.grade)
    split = facts.profile.recipe.grade.split
    replies: dict[str, dict[str, Prediction]] = {}
    for row in facts.predictions:
        if row.split == split and row.model in MODELS and row.arm == heads[row.model]:
            replies.setdefault(row.qid, {})[row.model] = row
    graded = [row for row in facts.graded if row.qid in replies]
    graded.sort(key=lambda row: is_right(replies[row.qid]["track_a"]) == is_right(replies[row.qid]["track_b"]))
    teacher = {row.qid: row.reply for row in reversed(facts.taught)}
    return tuple(_transcript(row, replies[row.qid], teacher=teacher.get(row.qid, "")) for row in graded)


def _transcript(row: Drafted, replies: Mapping[str, Prediction], *, teacher: str) -> Transcript:
    said = tuple(ModelReply(model=name, arm=reply.arm, text=reply.text, verdict=reply.verdict, right=is_right(reply)) for name, reply in replies.items())
    return Transcript(
        qid=row.qid,
        question=row.question,
        gold=row.answer,
        facts=row.facts,
        draft=row.draft,
        asked=row.draft_questions,
        teacher=teacher,
        replies=said,
    )
