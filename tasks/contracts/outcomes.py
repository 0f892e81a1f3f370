"""What flows hand to one another: refs by name, never rows. Plain JSON, so that a Prefect run shows where its inputs came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from tasks.contracts.artifacts import ModelRef, TableRef
from tasks.contracts.failures import DataError
from tasks.contracts.rounds import Attempt, Gauged
from tasks.contracts.rows import Curated, Drafted, Judgement, Pair, Prediction, Question, Score, Taught, TokenShare


class _Outcome(BaseModel):
    model_config = ConfigDict(frozen=True)


class Corpus(_Outcome):
    """The teach flow's result. `questions` and `drafted` are by split."""

    student: ModelRef
    questions: dict[str, TableRef[Question]]
    drafted: dict[str, TableRef[Drafted]]
    taught: TableRef[Taught]
    curated: TableRef[Curated]


class Students(_Outcome):
    """The train flow's result. `adapters` by model name: track_a, track_a_matched, track_b, aligned and trained controls.

    `accepted` says which student of a self-guided loop (round 2) stands as `aligned`, "" = the one that train aligned.
    """

    adapters: dict[str, ModelRef]
    pairs: TableRef[Pair]
    accepted: str = ""


class Findings(_Outcome):
    """The evaluate flow's result. `predictions` by "<model>/<split>"; `attributed` and `judged` are None where the recipe does not ask for them."""

    predictions: dict[str, TableRef[Prediction]]
    scores: TableRef[Score]
    attributed: TableRef[TokenShare] | None
    judged: TableRef[Judgement] | None


class Origin(_Outcome):
    """Where a self-guided loop starts from: the start student's samples of train and dev questions, its reading of dev, the first alignment's pairs."""

    attempts: TableRef[Attempt]
    dev_attempts: TableRef[Attempt]
    read: TableRef[Prediction]
    pairs: TableRef[Pair]


class RoundMade(_Outcome):
    """What one round of the loop made, for the gate to judge. `read` and `parent`: dev as the round's student and as its parent answer it."""

    attempts: TableRef[Attempt]
    pairs: TableRef[Pair]
    student: ModelRef
    read: TableRef[Prediction]
    parent: TableRef[Prediction]
    gauged: TableRef[Gauged]


class Firing(_Outcome):
    """What one firing of a loop came to. `round` is None where none was made; `stopped` says why the loop ended itself, "" = it goes on."""

    round: int | None
    verdict: str  # accepted | reverted | skipped | stopped
    reasons: tuple[str, ...]
    stopped: str
    accepted: str  # label of the student that the pointer names
    folder: str
    page: str


class Report(_Outcome):
    """The report's files, as absolute paths."""

    folder: str
    summary: str
    html: str
    repeated: bool = False  # everything was stored, and so was this report


def read_run(folder: Path) -> dict[str, Any]:
    """The summary of a finished run. Raises DataError for a folder that holds none."""
    try:
        read: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is not a finished run (summary.json: {error}); give folders under data/runs/") from error
    return read


class FinishedRun(NamedTuple):
    """A run folder and its summary."""

    folder: Path
    summary: Mapping[str, Any]


def finished_runs(runs: Path) -> Iterator[FinishedRun]:
    """The finished runs in a folder, newest first; what cannot be read is none."""
    started = {path: path.parent.name.rpartition("-")[2] for path in runs.glob("*/summary.json")}
    for path in sorted(started, key=lambda each: started[each], reverse=True):
        with suppress(DataError):
            yield FinishedRun(path.parent, read_run(path.parent))
