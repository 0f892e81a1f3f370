"""Checkpoints that are whole or do not count: a marker with the adapter's hash is written last."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tasks.contracts.artifacts import file_sha256, write_atomically
from tasks.training.progress import Report

logger = logging.getLogger(__name__)
MARKER = "complete.json"
ADAPTER_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, and what the trainer noted in it beside its own files."""

    folder: Path
    notes: Mapping[str, Any]


def newest_complete(folder: Path, *, identity: str) -> Checkpoint | None:
    """The newest complete checkpoint of the same run (`identity`) whose adapter still has the recorded hash, or None.

    Torn, foreign and changed checkpoints are removed: the trainer keeps the last few by step number and would count them.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    usable = None
    for checkpoint in found:
        record = _record(checkpoint)
        if usable is None and record is not None and record["identity"] == identity and _unchanged(checkpoint, record):
            usable = Checkpoint(checkpoint, record["notes"])
        elif usable is None:
            logger.warning("%s is torn, changed or of another run; removed", checkpoint)
            shutil.rmtree(checkpoint)
    return usable


def _record(checkpoint: Path) -> dict[str, Any] | None:
    marker = checkpoint / MARKER
    return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None


def _unchanged(checkpoint: Path, record: Mapping[str, Any]) -> bool:
    adapter = checkpoint / ADAPTER_FILE
    return adapter.is_file() and file_sha256(adapter) == record["adapter"]


class MarkComplete(TrainerCallback):
    """Writes the marker once the trainer has written everything else. `notes` is asked for what to keep beside it, as plain JSON values."""

    def __init__(self, *, identity: str, notes: Callable[[], Mapping[str, Any]]) -> None:
        self.identity = identity
        self.notes = notes

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer after a save."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        record = {"identity": self.identity, "adapter": file_sha256(folder / ADAPTER_FILE), "notes": self.notes()}
        write_atomically(folder / MARKER, json.dumps(record))


class TellProgress(TrainerCallback):
    """Passes on each logged step."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Called by the trainer after each optimiser step."""
        if logs and "raw_loss" in logs:
            self.report(state.global_step, state.max_steps, f"loss {logs['raw_loss']:.3f}")
