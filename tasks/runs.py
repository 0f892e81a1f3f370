"""Read finished runs: show one as Markdown, pool the comparisons of several that differ in seed or split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.contracts.artifacts import ArtifactRoot
from tasks.contracts.failures import DataError
from tasks.contracts.outcomes import Findings, finished_runs, read_run
from tasks.contracts.rows import Prediction
from tasks.logic.claims import pooled_table
from tasks.logic.draft_experiment import pool_drafts
from tasks.logic.evaluation import pool_comparisons
from tasks.logic.report import words
from tasks.logic.report.tables import render_markdown_tables

LAST = "last"


def find_run(name: str, *, root: Path) -> Path:
    """The folder of a run given as a folder, its name under data/runs, the beginning of it (the newest such run), or `last`. Raises DataError."""
    if (Path(name) / "summary.json").is_file():
        return Path(name)
    known = [each.folder for each in finished_runs(root / "data" / "runs")]
    found = next((folder for folder in known if name == LAST or folder.name.startswith(name)), None)
    if found is None:
        listed = f"known ones: {', '.join(folder.name for folder in known[:5])}" if known else "there is none yet: socratune run demo makes one"
        raise DataError(f"{name} is not a finished run in {(root / 'data' / 'runs').resolve()}; {listed}")
    return found


class RunLine(NamedTuple):
    """A finished run in a list."""

    name: str
    profile: str
    when: str
    figures: str


def run_lines(root: Path) -> list[RunLine]:
    """The finished runs under a root, newest first, each with what its models got right."""
    lines = []
    for folder, summary in finished_runs(root / "data" / "runs"):
        stamp = folder.name.rpartition("-")[2]
        heads = [(words.brief(name), model["arms"][model["headline"]]["accuracy"]) for name, model in summary["models"].items()]
        when = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]} {stamp[9:11]}:{stamp[11:13]} UTC"
        lines.append(RunLine(folder.name, summary["profile"], when, ", ".join(f"{name} {words.percent(share)}" for name, share in heads)))
    return lines


def show_run(folder: Path) -> str:
    """Results, comparisons, experiments and class shares of one run as Markdown."""
    tables = render_markdown_tables(read_run(folder))
    return "\n".join(tables[name] for name in ("results", "comparisons", "draft", "attribution", "judge", "class-shares") if name in tables)


class ResultRow(NamedTuple):
    """A model under its headline arm, in words."""

    model: str
    arm: str
    n: str
    right: str
    interval: str
    yes: str
    unparsed: str


class ComparisonRow(NamedTuple):
    """A comparison in words; differences in points."""

    comparison: str
    n: str
    difference: str
    interval: str
    p: str
    verdict: str


def result_rows(summary: Mapping[str, Any]) -> list[ResultRow]:
    """The models of a run under the names that its report gives them."""
    heads = [(name, model["headline"], model["arms"][model["headline"]]) for name, model in summary["models"].items()]
    return [
        ResultRow(
            words.told(name, summary), words.arm_label(arm), str(cell["n"]), words.percent(cell["accuracy"]), _range(cell), words.percent(cell["yes_rate"]),
            str(cell["unparsed"]),
        )
        for name, arm, cell in heads
    ]  # fmt: skip


def comparison_rows(summary: Mapping[str, Any]) -> list[ComparisonRow]:
    """The comparisons of a run, in the order and with the names of its report."""
    return [
        ComparisonRow(
            words.comparison_label(each["name"]), str(each["n"]), words.points(each["difference"]), f"{words.points(each['ci_low'])} to "
            f"{words.points(each['ci_high'])}", words.p_text(each["p_holm"]), each["verdict"],
        )
        for each in words.ranked(summary)
    ]  # fmt: skip


def _range(cell: Mapping[str, Any]) -> str:
    return f"{100 * cell['ci_low']:.1f} to {100 * cell['ci_high']:.1f}"


def pool_runs(runs: Sequence[Path | str]) -> str:
    """Markdown tables: every comparison by run and pooled over runs, runs and questions resampled together; then those of the draft, where all have them."""
    found = [_run(Path(folder)) for folder in runs]
    tables = [pooled_table(pool_comparisons(found, resamples=10_000, seed=0))]
    drafts, experiment = pool_drafts([(split, rows) for _, split, rows in found], resamples=10_000, seed=0)
    if experiment is not None:
        tables += [pooled_table(drafts), "\n".join([f"Learns by asking: **{experiment.verdict}**", *experiment.notes])]
    return "\n\n".join(tables)


def _run(folder: Path) -> tuple[dict[str, str], str, list[Prediction]]:
    """Headline arms, graded split and all predictions of one run; its artifacts lie two folders above data/runs/."""
    summary = read_run(folder)
    try:
        findings = Findings.model_validate_json((folder / "refs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is not a finished run (refs.json: {' '.join(str(error).split())}); give folders under data/runs/") from error
    root = ArtifactRoot(folder.resolve().parents[2])
    rows = [row for ref in findings.predictions.values() for row in root.read(ref, Prediction)]
    return {name: model["headline"] for name, model in {**summary["models"], **summary["controls"]}.items()}, summary["split"], rows
