"""Judge stage: someone compares the clarifying questions of the aligned model and Track B, blinded and in both orders, through the teacher's ledger."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tasks.contracts.artifacts import ArtifactRoot, TableRef, write_atomically
from tasks.contracts.fingerprint import fingerprint
from tasks.contracts.recipes import Judge
from tasks.contracts.rows import Judgement, Prediction
from tasks.desk import ask_in_shards, desk, refuse_gaps
from tasks.gateways.kinds import judge_pace, open_teacher
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.judging import Contest, as_teacher, contests, judge_asks, judge_counts, judge_report, judgements, preference_problem
from tasks.logic.labelling import labelling_lines, read_labels
from tasks.stage import Table, Work, table_stage


@table_stage("judge", version=1, run_name="judge")
async def judge(
    work: Work,
    *,
    new: TableRef[Prediction],
    old: TableRef[Prediction],
    arm: str,
    benchmark: str,
    recipe: Judge,
    labels: Path | None,
    teacher: str,
    resamples: int,
    seed: int,
) -> Table[Judgement]:
    """One row a question that both models answered under `arm`; the evidence is in the record. `labels` are a person's winners, `teacher` the teacher's model.

    A file for a person to judge the same pairs unseen is written under data/labelling.
    """
    wording = get_benchmark(benchmark)
    pairs = contests(work.root.read(new, Prediction), work.root.read(old, Prediction), arm=arm, size=recipe.questions, benchmark=wording)
    given = read_labels(labels.read_text(encoding="utf-8-sig"), pairs, seed=seed, name=str(labels)) if labels else {}
    labelling = _write_labelling(work.root, pairs, seed=seed)
    asker = as_teacher(recipe)
    pace = judge_pace(work.execution.teacher, model=recipe.model)
    asks = judge_asks(pairs, recipe=recipe, benchmark=wording)
    async with open_teacher(asker, recordings=(), pace=pace, seed=seed) as replier, desk(work, recipe=asker, teacher=replier, pace=pace) as caller_for:
        answers, usage = await ask_in_shards(work, asks, caller_for(preference_problem(wording)), "judge")
        refuse_gaps(answers, allowed=pace.max_failed_share)
    rows = judgements(pairs, answers, benchmark=wording)
    report = judge_report(rows, recipe=recipe, teacher=teacher, labels=given, benchmark=wording, resamples=resamples, seed=seed)
    summary = {
        "evidence": asdict(report.evidence),
        "notes": report.notes,
        "pairs": judge_counts(pairs),
        "arm": arm,
        "usage": asdict(usage),
        "labelling": labelling,
    }
    return Table(rows, Judgement, summary, partial=not all(answer.final for answer in answers))


def _write_labelling(root: ArtifactRoot, pairs: list[Contest], *, seed: int) -> str:
    """The labelling file of these pairs, relative to the root. One that is there is left alone: a person may have begun to fill it in."""
    lines = labelling_lines(pairs, seed=seed)
    place = Path("data") / "labelling" / f"judge-{fingerprint(lines)[:8]}.jsonl"
    path = root.path / place
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(f"{line}\n" for line in lines))
    return place.as_posix()
