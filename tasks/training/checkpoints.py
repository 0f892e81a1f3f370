"""Checkpoints that are whole or do not count: a marker with the adapter's hash is written last."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tasks.contracts.artifacts import file_sha256, write_atomically
from tasks.contracts.failures import JobFailed
from tasks.training.processes import rank, wait
from tasks.training.progress import Report

logger = logging.getLogger(__name__)
MARKER = "complete.json"
OFTEN = 50  # optimiser steps between two checkpoints of a long epoch
KEPT = 2  # the newest, and one more in case the newest is damaged later
# What safetensors and torch.save say when a write fails: neither passes on the system's error number.
FULL = ("No space left on device", "Disk quota exceeded", "iostream error", "unexpected pos", "PytorchStreamWriter failed")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, and what the trainer noted in it beside its own files."""

    folder: Path
    notes: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps done when it was written."""
        return _step(self.folder)


def newest_complete(folder: Path, *, identity: str) -> Checkpoint | None:
    """The newest complete checkpoint of the same run (`identity`) whose files all still have the recorded hashes, or None.

    Torn, foreign and changed checkpoints are removed, older ones too: a leftover must never be taken for a spare.
    """
    newest = None
    if rank() != 0:
        wait()  # for the first process to tidy up
    for checkpoint in reversed(_by_step(folder)):
        record = _record(checkpoint)
        if record.get("identity") != identity or record.get("files") != _digests(checkpoint):
            logger.warning("%s is torn, changed or of another run; removed", checkpoint)
            shutil.rmtree(checkpoint)
        elif newest is None:
            newest = Checkpoint(checkpoint, record["notes"])
    if rank() == 0:
        wait()
    return newest


def _by_step(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _record(checkpoint: Path) -> dict[str, Any]:
    marker = checkpoint / MARKER
    return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}


def _digests(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of every file: the trainer goes on in silence without an optimiser or random state that it does not find."""
    return {path.name: file_sha256(path) for path in sorted(checkpoint.iterdir()) if path.name != MARKER}


def adapter_digest(model: Any) -> str:
    """SHA-256 of the trained parameters as they are in memory: names, precision and bits."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            digest.update(f"{name} {parameter.dtype} ".encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


class MarkComplete(TrainerCallback):
    """Writes the marker once the trainer has written everything else. `notes` is asked for what to keep beside it, as plain JSON values."""

    def __init__(self, *, identity: str, notes: Callable[[], Mapping[str, Any]]) -> None:
        self.identity = identity
        self.notes = notes

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Called by the trainer after it loaded a checkpoint, if any: the adapter must be, bit for bit, the one that was saved."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.global_step and _record(folder)["adapter"] != adapter_digest(model):
            raise JobFailed(f"The adapter loaded from {folder} is not the one that was saved there; delete {folder.parent} and run again")

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Called by the trainer after a save. Old checkpoints go once the new one is complete, not before."""
        wait()  # every process writes its own random state
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        record = {"identity": self.identity, "adapter": adapter_digest(model), "files": _digests(folder), "notes": self.notes()}
        write_atomically(folder / MARKER, json.dumps(record))
        for old in _by_step(folder.parent)[:-KEPT]:
            shutil.rmtree(old)


class SaveOften(TrainerCallback):
    """Asks for checkpoints inside long epochs; at the end of an epoch the trainer saves by itself, after all else that belongs to it."""

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer."""
        if state.global_step % OFTEN == 0 and state.global_step % self.steps_per_epoch:
            control.should_save = True


@contextmanager
def full_disk_explained(work: Path) -> Iterator[None]:
    """Turn a write that found the disk full into one message.

    The checkpoint written in part is removed: it takes the space that the log needs now and the next run needs later.
    """
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and not any(text in str(error) for text in FULL):
            raise
        for checkpoint in _by_step(work):
            if not (checkpoint / MARKER).is_file():
                shutil.rmtree(checkpoint, ignore_errors=True)
        complete = _by_step(work)
        reached = f"resumes after {complete[-1].name}, which is complete" if complete else "starts again: no checkpoint was complete"
        raise JobFailed(f"The disk of {work.parent} is full. Free some space there and run again; training {reached}.") from error


class TellProgress(TrainerCallback):
    """Passes on each logged step."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Called by the trainer after each optimiser step."""
        if logs and "raw_loss" in logs and state.global_step <= state.max_steps:  # one resumed at its very end takes a step of learning rate 0 more
            self.report(state.global_step, state.max_steps, f"loss {logs['raw_loss']:.3f}")
