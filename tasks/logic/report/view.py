"""Everything a report shows, as plain values. Whoever builds a ReportView has read the artifacts; rendering reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.contracts.recipes import Recipe
from tasks.contracts.rows import Judgement, TokenShare
from tasks.logic.calibration import Bin


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """Training loss of one model: (optimiser step, mean loss in nats per token)."""

    model: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class MarginPoint:
    """Preference training at one step, batch means in nats: log-ratio to the reference of chosen (a) and rejected (b), and their gap d = a - b."""

    step: int
    a: float
    b: float
    d: float


@dataclass(frozen=True, kw_only=True)
class EpochChoice:
    """One epoch of preference training as it was read on dev: how many were right, and how many said yes; epoch 0 is the model it started from."""

    epoch: int
    phase: str  # its loss in words, "start" for epoch 0
    correct: int
    yes: int
    n: int
    kept: bool


@dataclass(frozen=True, kw_only=True)
class ModelReply:
    """What one model wrote about a question."""

    model: str
    arm: str
    text: str
    verdict: str
    right: bool


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """One question from draft to final answers. `asked` are the draft's questions; `teacher` is empty where the split was never taught."""

    qid: str
    question: str
    gold: str
    facts: tuple[str, ...]
    draft: str
    asked: tuple[str, ...]
    teacher: str
    replies: tuple[ModelReply, ...]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """One artifact behind the report. `stage` may name its variant too ("finetune track_b"); `packages` maps a package to the version that wrote it."""

    stage: str
    key: str
    digest: str
    path: str
    seconds: float
    cached: bool
    packages: Mapping[str, str]

    @property
    def anchor(self) -> str:
        """Id of its row in the page."""
        return f"artifact-{'-'.join(self.stage.split())}-{self.key}"

    @property
    def kind(self) -> str:
        """The stage without its variant."""
        return self.stage.split()[0]


@dataclass(frozen=True, kw_only=True)
class ReportView:
    """A whole report. `summary` is what `summary()` made, `recipe` what was computed; the rest is shown as it is. What is empty is not shown."""

    summary: Mapping[str, Any]
    generated_at: str
    command: str
    recipe: Recipe
    curves: tuple[LossCurve, ...]
    preference_loss: tuple[tuple[int, float], ...]
    margins: tuple[MarginPoint, ...]
    selection: tuple[EpochChoice, ...]
    transcripts: tuple[Transcript, ...]
    provenance: tuple[Provenance, ...]
    notes: tuple[str, ...]
    reliability: Mapping[str, tuple[Bin, ...]]  # of direct margins, by model
    attributed: tuple[TokenShare, ...]
    judged: tuple[Judgement, ...]
