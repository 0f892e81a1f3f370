"""From artifact records and rows to summary.json and the report's view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.contracts.asks import Usage
from tasks.contracts.readings import headline_arms
from tasks.contracts.recipes import Phase, Profile
from tasks.contracts.rows import Arm, Drafted, Prediction, Score
from tasks.logic.balance import FilterStep
from tasks.logic.report.summary import ModelScores, StageLine, TestRead, summary
from tasks.logic.report.view import EpochChoice, LossCurve, MarginPoint, ModelReply, Provenance, ReportView, Transcript
from tasks.logic.scores import Comparison, is_right

MODELS = ("zero_shot", "track_a", "track_a_matched", "track_b", "aligned")
TRANSCRIPTS = 10


@dataclass(frozen=True, kw_only=True)
class Made:
    """One artifact of the run: what it is called, where it lies, its record, and whether an earlier run had made it."""

    name: str
    path: str
    record: Mapping[str, Any]
    cached: bool

    @property
    def summary(self) -> Mapping[str, Any]:
        """The figures that its stage recorded."""
        found: Mapping[str, Any] = self.record["summary"]
        return found


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Everything a finished run knows about itself."""

    profile: Profile
    overrides: Mapping[str, Any]
    artifacts: tuple[Made, ...]  # in the order they were made
    scores: tuple[Score, ...]
    graded: tuple[Drafted, ...]
    predictions: tuple[Prediction, ...]
    test_reads: tuple[Mapping[str, Any], ...]
    generated_at: str

    def named(self, name: str) -> Made:
        """The artifact called `name`."""
        return next(made for made in self.artifacts if made.name == name)


def run_summary(facts: RunFacts) -> dict[str, Any]:
    """summary.json. A teach stage that was reused cost this run nothing."""
    recipe = facts.profile.recipe
    heads = headline_arms(recipe.grade)
    cells = {name: tuple(cell for cell in facts.scores if cell.model == name and cell.split == recipe.grade.split) for name in heads}
    controls = {name: ModelScores(headline=heads[name], scores=cells[name]) for name in heads if name not in MODELS and cells[name]}
    disjoint = {cell.model: cell for cell in facts.scores if cell.split == "entity_disjoint" and cell.arm == heads[cell.model]}
    controls |= {f"{name}_entity_disjoint": ModelScores(headline=cell.arm, scores=(cell,)) for name, cell in disjoint.items()}
    curated, calibration = facts.named("curate").summary, facts.named("grade").summary["calibration"]
    return summary(
        profile=facts.profile.name,
        overrides=facts.overrides,
        benchmark=recipe.benchmark,
        student=recipe.student.model,
        teacher=f"{recipe.teacher.kind}:{recipe.teacher.model}",
        split=recipe.grade.split,
        splits=_splits(facts),
        majority_accuracy=next(cell.majority_accuracy for cell in cells["track_b"] if cell.arm == heads["track_b"]),
        models={name: ModelScores(headline=heads[name], scores=cells[name]) for name in MODELS},
        controls=controls,
        comparisons=[Comparison(**each) for each in facts.named("grade").summary["comparisons"]],
        unparsed=recipe.grade.unparsed,
        calibration={name: calibration[name] for name in heads if name in calibration},
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
    aligned, preferred = facts.named("align").summary, _was_aligned(facts)
    changes = "".join(f" --set {path}={value}" for path, value in facts.overrides.items())
    return ReportView(
        summary=made,
        generated_at=facts.generated_at,
        command=f"socratune run {facts.profile.name}{changes}",
        max_shift=facts.profile.recipe.curate.max_shift,
        curves=tuple(LossCurve(model=name, points=tuple((each["step"], each["loss"]) for each in points)) for name, points in histories.items() if points),
        margins=tuple(MarginPoint(step=each["step"], a=each["a"], b=each["b"], d=each["gap"]) for each in aligned["history"] if preferred),
        selection=_selection(facts),
        transcripts=_transcripts(facts),
        provenance=tuple(_provenance(each) for each in facts.artifacts),
        notes=_notes(facts),
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
    if not _was_aligned(facts):
        return ()
    aligned = facts.named("align").summary
    phases = ["start", *(words for phase in facts.profile.recipe.align.phases for words in [_in_words(phase)] * phase.epochs)]
    return tuple(
        EpochChoice(epoch=each["epoch"], phase=phases[each["epoch"]], correct=each["correct"], n=each["n"], kept=each["epoch"] == aligned["kept_epoch"])
        for each in aligned["selection"]
    )


def _was_aligned(facts: RunFacts) -> bool:
    """Whether there were pairs to align with; else the aligned model is Track B itself."""
    return bool(facts.named("align").record["stage"] == "align")


def _in_words(phase: Phase) -> str:
    parts = [f"beta {phase.beta:g}"] + [f"cal {phase.cal}"] * (phase.cal != "none") + [f"dr {phase.dr}"] * (phase.dr != "none")
    return ", ".join(parts + [f"without the {phase.drop_quantile:.0%} most suspicious"] * (phase.drop_quantile > 0))


def _transcripts(facts: RunFacts) -> tuple[Transcript, ...]:
    """The first questions on which Track A and Track B differ, then the first others: where the two differ is what a reader wants to see."""
    heads = headline_arms(facts.profile.recipe.grade)
    split = facts.profile.recipe.grade.split
    replies: dict[str, dict[str, Prediction]] = {}
    for row in facts.predictions:
        if row.split == split and row.model in MODELS and row.arm == heads[row.model]:
            replies.setdefault(row.qid, {})[row.model] = row
    graded = [row for row in facts.graded if row.qid in replies]
    graded.sort(key=lambda row: is_right(replies[row.qid]["track_a"]) == is_right(replies[row.qid]["track_b"]))
    return tuple(_transcript(row, replies[row.qid]) for row in graded[:TRANSCRIPTS])


def _transcript(row: Drafted, replies: Mapping[str, Prediction]) -> Transcript:
    said = tuple(ModelReply(model=name, arm=reply.arm, text=reply.text, verdict=reply.verdict, right=is_right(reply)) for name, reply in replies.items())
    return Transcript(qid=row.qid, question=row.question, gold=row.answer, facts=row.facts, draft=row.draft, teacher="", replies=said)


def _switched_off(facts: RunFacts) -> list[str]:
    """Every guard that the recipe switches off, and what it found where it would have stopped this run."""
    found: dict[str, dict[str, list[str]]] = {guard: {} for guard in facts.profile.recipe.guards.allow}
    for made in facts.artifacts:
        for guard, said in _allowed(made):
            found.setdefault(guard, {}).setdefault(said.rstrip("."), []).append(made.name)
    told = {guard: "; ".join(f"{said} ({', '.join(dict.fromkeys(names))})" for said, names in finds.items()) for guard, finds in found.items()}
    return [f"The guard {guard} was switched off (recipe.guards.allow): {said or 'it found nothing in this run'}." for guard, said in told.items()]


def _allowed(made: Made) -> list[tuple[str, str]]:
    """What switched-off guards found in a stage, in any of its steps."""
    steps = made.summary.get("steps")
    summaries = [made.summary, *(steps.values() if isinstance(steps, Mapping) else ())]
    return [pair for each in summaries for pair in each.get("allowed", {}).items()]


def _notes(facts: RunFacts) -> tuple[str, ...]:
    recipe = facts.profile.recipe
    notes = _switched_off(facts)
    student = facts.named(f"student {recipe.student.model}").summary if any(each.name.startswith("student ") for each in facts.artifacts) else {}
    if student and not student["pinned"]:
        notes.append(f"The student was not pinned to a revision; this run used commit {student['commit'] or 'unknown'}. Pin it with recipe.student.revision.")
    if recipe.grade.split == "dev" and recipe.align.select_questions and _was_aligned(facts):
        notes.append(
            f"The aligned model's epoch was chosen on the first {recipe.align.select_questions} dev questions, which are read here too: "
            "its dev figure is a little too good." + " Track A and Track B were not chosen on dev." * (not recipe.sft.select_questions)
        )
    if recipe.grade.split == "dev" and recipe.sft.select_questions:
        notes.append(
            f"The epochs of the fine-tuned models were chosen on the first {recipe.sft.select_questions} dev questions, which are read here too: "
            "their dev figures are a little too good."
        )
    if recipe.grade.unparsed == "as_no":
        notes.append(
            'A text without a verdict counts as "no" here, as it did in the original project (recipe.grade.unparsed: as_no). '
            "That favours a model that is cut off on questions whose answer is no; the column of texts without a verdict says how many there were."
        )
    if recipe.grade.calibrate or any(each.name.endswith("/adaptive") for each in facts.artifacts):
        where = "two halves of dev, each for the other" if recipe.grade.split == "dev" else "dev"
        notes.append(f"Thresholds of the calibrated and the adaptive arm were chosen on {where}: no question had a part in its own.")
    if _was_aligned(facts):
        notes += [f"Preference training: {alarm}." for alarm in facts.named("align").summary["alarms"]]
    if not _was_aligned(facts):
        notes.append(
            "There was no preference pair to train on (no wrong sample that could be paired, in both classes), so the aligned model is Track B itself: "
            "raise recipe.pair.samples or recipe.curate.pair_share."
        )
    if recipe.teacher.kind == "simulated":
        notes.append(f"The teacher is simulated: it knows the facts of {recipe.benchmark} and errs on purpose, at a rate of {recipe.teacher.error_rate:.0%}.")
    return tuple(notes)
