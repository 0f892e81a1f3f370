"""A self-guided loop on disk: its rounds, and the pointer to its accepted student.

`data/loops/<profile>-<start>/` holds `rounds.parquet`, one row a finished round, and `moves.json`, every move of the pointer, oldest first. Both are
replaced whole, so a reader sees the old file or the new one. A round that was cut off has left no row: the next firing does the same round again, and finds
stored what was finished of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tasks.contracts.artifacts import ArtifactRoot, ModelRef, read_rows, write_atomically, write_rows
from tasks.contracts.failures import ArtifactError, DataError
from tasks.contracts.rounds import Round

START = "start"
_ROUNDS, _MOVES, PAGE = "rounds.parquet", "moves.json", "loop.html"


def round_label(number: int) -> str:
    """What the pointer calls a round's student."""
    return f"round {number}" if number else START


class Move(BaseModel):
    """The pointer set to a student, or taken back from one."""

    model_config = ConfigDict(frozen=True)
    label: str  # start | round 2 | the name of a run's folder
    adapter: ModelRef
    why: Literal["start", "gate", "best", "promote", "rollback"]
    at: str  # ISO 8601, UTC
    rounds: int  # rounds that had ended by then


_MOVE_LIST = TypeAdapter(list[Move])


@dataclass(frozen=True)
class LoopFolder:
    """What is stored of one loop. `start` is the student that its first round begins with; another start is another loop."""

    root: ArtifactRoot
    name: str
    start: ModelRef

    @property
    def path(self) -> Path:
        """The loop's folder; it need not exist."""
        return self.root.path / "data" / "loops" / f"{self.name}-{self.start.digest[:8]}"

    @property
    def rounds(self) -> list[Round]:
        """Finished rounds in order, the start as round 0; none before the first firing."""
        file = self.path / _ROUNDS
        return read_rows(file, Round) if file.is_file() else []

    def keep(self, rounds: Sequence[Round]) -> None:
        """Replace the table of rounds."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{_ROUNDS}.{os.getpid()}.tmp"
        write_rows(temporary, rounds, Round)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(self.path / _ROUNDS)

    @property
    def moves(self) -> list[Move]:
        """Every move of the pointer, oldest first; none before the first firing or promotion."""
        file = self.path / _MOVES
        if not file.is_file():
            return []
        try:
            return _MOVE_LIST.validate_json(file.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise ArtifactError(f"{file} cannot be read ({error}); delete it, and the loop goes on from its start") from error

    @property
    def accepted(self) -> Move:
        """Where the pointer stands."""
        return self._held()[-1]

    def move(self, *, label: str, adapter: ModelRef, why: Literal["gate", "best", "promote"], at: str) -> Move:
        """Set the pointer."""
        return self._append(Move(label=label, adapter=adapter, why=why, at=at, rounds=self._ended))

    def roll_back(self, *, at: str) -> Move:
        """Take back the last move that was not taken back. Raises DataError where the pointer stands at the start."""
        held = self._held()
        if len(held) == 1:
            raise DataError(f"{self.name} follows its start, and nothing came before that; to leave it, promote a round or a run")
        return self._append(held[-2].model_copy(update={"why": "rollback", "at": at, "rounds": self._ended}))

    @property
    def _ended(self) -> int:
        return max((each.number for each in self.rounds), default=0)

    def _held(self) -> list[Move]:
        """Moves that stand, the start first: each rollback takes one away. The gate's count once their round has its row: a kill may fall between the two."""
        held = [Move(label=START, adapter=self.start, why="start", at="", rounds=0)]
        finished = {round_label(each.number) for each in self.rounds}
        for move in self.moves:
            if move.why == "gate" and move.label not in finished:
                continue
            if move.why == "rollback" or (move.why == "gate" and move.label == held[-1].label):  # the same round, made again after a kill
                held.pop()
            if move.why != "rollback":
                held.append(move)
        return held

    def _append(self, move: Move) -> Move:
        self.path.mkdir(parents=True, exist_ok=True)
        told = [each.model_dump(mode="json") for each in [*self.moves, move]]
        write_atomically(self.path / _MOVES, json.dumps(told, indent=1))
        return move
