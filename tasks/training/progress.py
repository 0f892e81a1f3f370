"""What a running job tells its parent, one JSON line at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TextIO

ASIDE = "dev after epoch"  # begins the note of what is no part of the way to the end of its step: an examination between two epochs
Report = Callable[[int, int, str], None]  # done, total, note


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is: `done` of `total` units (optimiser steps, batches) of step `step`, and a note such as "loss 0.53"."""

    step: int
    name: str
    done: int
    total: int
    note: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job gave up: the class in contracts/failures.py and its message."""

    error: str
    message: str


def write_event(stream: TextIO, event: Progress | Failure) -> None:
    """Send one event."""
    kind = "progress" if isinstance(event, Progress) else "failed"
    stream.write(json.dumps({"event": kind, **asdict(event)}) + "\n")
    stream.flush()


def read_event(line: str) -> Progress | Failure:
    """The event of one line."""
    fields = json.loads(line)
    return Progress(**fields) if fields.pop("event") == "progress" else Failure(**fields)
