"""Report task: a run folder with summary.json, page, slides, predictions and the training data as JSONL. Written for every run, so it is not cached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task

from tasks.contracts.artifacts import ModelRef, TableRef, write_atomically
from tasks.contracts.outcomes import Corpus, Findings, Report, Students, finished_runs
from tasks.contracts.readings import TWIN, Track, headline_arms
from tasks.contracts.recipes import Profile
from tasks.contracts.rows import Curated, Drafted, Judgement, Pair, Prediction, Score, Taught, TokenShare
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.examples import counterfactual_examples, sft_examples
from tasks.logic.report.assemble import run_summary, run_view
from tasks.logic.report.facts import Made, RunFacts
from tasks.logic.report.prediction_files import prediction_files
from tasks.logic.report.summary import summary_json
from tasks.stage import Context


@task(name="report", task_run_name="report {profile.name}", persist_result=False)
async def write_report(
    context: Context, *, profile: Profile, overrides: Mapping[str, Any], corpus: Corpus, students: Students, findings: Findings, started: datetime
) -> Report:
    """Write `data/runs/<profile>-<utc>/`; an artifact made before `started` counts as cached."""
    from tasks.logic.report.render import render_report

    root = context.root
    facts = RunFacts(
        profile=profile,
        overrides=overrides,
        artifacts=tuple(_made(context, name, ref, started) for name, ref in _refs(profile, corpus, students, findings)),
        scores=tuple(root.read(findings.scores, Score)),
        graded=tuple(root.read(corpus.drafted[profile.recipe.grade.split], Drafted)),
        taught=tuple(root.read(corpus.taught, Taught)),
        predictions=tuple(row for ref in findings.predictions.values() for row in root.read(ref, Prediction)),
        attributed=tuple(root.read(findings.attributed, TokenShare)) if findings.attributed else (),
        judged=tuple(root.read(findings.judged, Judgement)) if findings.judged else (),
        test_reads=tuple(root.test_reads()),
        accepted=students.accepted,
        generated_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    summary = run_summary(facts)
    if all(made.cached for made in facts.artifacts) and (finished := _finished(root.path / "data" / "runs", summary)) is not None:
        return _report(finished, repeated=True)
    folder = root.path / "data" / "runs" / f"{profile.name}-{started.strftime('%Y%m%dT%H%M%S%fZ')}"
    folder.mkdir(parents=True)
    view = run_view(facts, summary)
    write_atomically(folder / "report.html", render_report(view))
    from tasks.logic.report.slides import run_slides  # the library of slides is loaded where a deck is made

    run_slides(view).save(str(folder / "slides.pptx"))
    _export(context, folder, profile, corpus, students)
    _write_predictions(folder / "predictions", facts)
    write_atomically(folder / "refs.json", findings.model_dump_json(indent=1))
    write_atomically(folder / "summary.json", summary_json(summary))
    return _report(folder, repeated=False)


def _report(folder: Path, *, repeated: bool) -> Report:
    return Report(folder=str(folder), summary=str(folder / "summary.json"), html=str(folder / "report.html"), repeated=repeated)


def _finished(runs: Path, summary: Mapping[str, Any]) -> Path | None:
    """The newest run that has said all this before, of the same artifacts; None where there is none."""
    for each in finished_runs(runs):
        if (each.folder / "report.html").is_file() and _lasting(each.summary) == _lasting(summary):
            return each.folder
    return None


def _lasting(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary says of results, not of how this run came by them."""
    passing = ("stages", "teacher_usage", "overrides")
    return {key: value for key, value in summary.items() if key not in passing} | {"artifacts": [line["artifact"] for line in summary["stages"]]}


def read_summary(report: Report) -> dict[str, Any]:
    """The summary of a written report."""
    read: dict[str, Any] = json.loads(Path(report.summary).read_text(encoding="utf-8"))
    return read


def _refs(profile: Profile, corpus: Corpus, students: Students, findings: Findings) -> list[tuple[str, TableRef[Any] | ModelRef]]:
    """Every artifact behind a run with its name, in the order of the flow."""
    adapters = dict(students.adapters)
    aligned, twin = adapters.pop("aligned"), adapters.pop(TWIN, None)
    return [
        (f"student {profile.recipe.student.model}", corpus.student),
        *((f"sample {split}", ref) for split, ref in corpus.questions.items()),
        *((f"draft {split}", ref) for split, ref in corpus.drafted.items()),
        ("teach", corpus.taught),
        ("curate", corpus.curated),
        *((f"finetune {name}", ref) for name, ref in adapters.items()),
        ("pair", students.pairs),
        ("align", aligned),
        *([(f"align {TWIN}", twin)] if twin else []),
        *((f"predict {name}", ref) for name, ref in findings.predictions.items()),
        ("grade", findings.scores),
        *([("attribute", findings.attributed)] if findings.attributed else []),
        *([("judge", findings.judged)] if findings.judged else []),
    ]


def _made(context: Context, name: str, ref: TableRef[Any] | ModelRef, started: datetime) -> Made:
    record = context.root.record(ref)
    return Made(name=name, path=ref.path, record=record, cached=datetime.fromisoformat(record["created_at"]) < started)


def _export(context: Context, folder: Path, profile: Profile, corpus: Corpus, students: Students) -> None:
    """Track A, Track B and the pairs as JSONL, one object a line."""
    rows = context.root.read(corpus.curated, Curated)
    wording, sft = get_benchmark(profile.recipe.benchmark), profile.recipe.sft
    examples = {
        track: sft_examples(rows, track=track, benchmark=wording, reasoning=sft.reasoning, direct_weight=sft.direct_weight, seed=profile.recipe.seed)
        for track in (Track.TRACK_A, Track.TRACK_B)
    }
    if sft.counterfactual_weight:
        taught = context.root.read(corpus.taught, Taught)
        examples[Track.TRACK_B] += counterfactual_examples(rows, taught, benchmark=wording, weight=sft.counterfactual_weight)
    for track, made in examples.items():
        _write_lines(folder / f"{track}.jsonl", made)
    _write_lines(folder / "pairs.jsonl", context.root.read(students.pairs, Pair))


def _write_predictions(folder: Path, facts: RunFacts) -> None:
    """One file a model, in the form that `socratune score` reads."""
    grade = facts.profile.recipe.grade
    folder.mkdir()
    for model, said in prediction_files(facts.predictions, headlines=headline_arms(grade), split=grade.split).items():
        write_atomically(folder / f"{model}.json", json.dumps(said, ensure_ascii=False, indent=1))


def _write_lines(path: Path, rows: list[Any]) -> None:
    write_atomically(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
