"""What a finished run knows about itself: artifact records and rows, as whoever read them hands them to the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.contracts.recipes import Profile
from tasks.contracts.rows import Drafted, Judgement, Prediction, Score, Taught, TokenShare

MODELS = ("zero_shot", "track_a", "track_a_matched", "track_b", "aligned")


@dataclass(frozen=True, kw_only=True)
class Made:
    """One artifact of the run: what it is called, where it lies, its record, and whether an earlier run had made it."""

    name: str
    path: str
    record: Mapping[str, Any]
    cached: bool

    @property
    def summary(self) -> Mapping[str, Any]:
        """The figures that its stage recorded."""
        found: Mapping[str, Any] = self.record["summary"]
        return found


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Everything a finished run knows about itself."""

    profile: Profile
    overrides: Mapping[str, Any]
    artifacts: tuple[Made, ...]  # in the order they were made
    scores: tuple[Score, ...]
    graded: tuple[Drafted, ...]
    taught: tuple[Taught, ...]
    predictions: tuple[Prediction, ...]
    attributed: tuple[TokenShare, ...]  # () where the recipe asks for no attribution
    judged: tuple[Judgement, ...]  # () where it asks for no judge
    test_reads: tuple[Mapping[str, Any], ...]
    accepted: str  # student of a self-guided loop that stands as the aligned one, "" = none
    generated_at: str

    def named(self, name: str) -> Made:
        """The artifact called `name`."""
        return next(made for made in self.artifacts if made.name == name)

    def evidence(self, name: str) -> Mapping[str, Any] | None:
        """What the experiment called `name` found, None where the recipe does not ask for it."""
        found = [made.summary["evidence"] for made in self.artifacts if made.name == name]
        return found[0] if found else None

    @property
    def was_aligned(self) -> bool:
        """Whether there were pairs to align with; else the aligned model is Track B itself."""
        return bool(self.named("align").record["stage"] == "align")
