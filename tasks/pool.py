"""Pool the comparisons of several runs of one profile that differ in their seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tasks.contracts.artifacts import ArtifactRoot
from tasks.contracts.failures import DataError
from tasks.contracts.outcomes import Findings
from tasks.contracts.rows import Prediction
from tasks.logic.evaluation import pool_comparisons, pooled_table


def pool_runs(runs: Sequence[Path]) -> str:
    """A Markdown table: every comparison by run and pooled over runs, seeds and questions resampled together."""
    return pooled_table(pool_comparisons([_run(folder) for folder in runs], resamples=10_000, seed=0))


def _run(folder: Path) -> tuple[dict[str, str], str, list[Prediction]]:
    """Headline arms, graded split and all predictions of one run; its artifacts lie two folders above data/runs/."""
    try:
        findings = Findings.model_validate_json((folder / "refs.json").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is not a finished run ({error}); give folders under data/runs/") from error
    root = ArtifactRoot(folder.resolve().parents[2])
    rows = [row for ref in findings.predictions.values() for row in root.read(ref, Prediction)]
    return {name: model["headline"] for name, model in {**summary["models"], **summary["controls"]}.items()}, summary["split"], rows
