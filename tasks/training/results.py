"""What finished steps leave behind, so that a restart repeats none of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import write_atomically
from tasks.contracts.failures import JobFailed
from tasks.contracts.fingerprint import fingerprint
from tasks.contracts.jobs import Step, StepResult


def step_identity(step: Step) -> str:
    """Digest of what a step computes; how the machine is used does not enter it."""
    return fingerprint({name: value for name, value in step.model_dump().items() if name != "machine"})


def write_result(folder: Path, step: Step, result: StepResult) -> None:
    """Record a finished step; the record appears whole or not at all."""
    record = {"identity": step_identity(step), "result": result.model_dump()}
    write_atomically(_path(folder, result.index), json.dumps(record, indent=1))


def read_result(folder: Path, index: int) -> StepResult:
    """The result of a finished step."""
    try:
        return StepResult.model_validate(_load(_path(folder, index))["result"])
    except (OSError, ValueError, KeyError) as error:
        raise JobFailed(f"{_path(folder, index)} cannot be read ({error}); delete {folder} and run again") from error


def is_finished(folder: Path, index: int, step: Step) -> bool:
    """Whether an earlier run did exactly this step here and its output is still in place."""
    path = _path(folder, index)
    return path.is_file() and _load(path)["identity"] == step_identity(step) and (folder / step.out).exists()


def _load(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def _path(folder: Path, index: int) -> Path:
    return folder / f"result-{index}.json"
