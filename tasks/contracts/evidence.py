"""What the experiments found, as plain values: each stage keeps its own in its record, summary.json and the report show them.

Shares lie in 0..1, differences are new minus old. `verdict` is pass, fail or underpowered (`tasks.logic.scores.Finding`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mass:
    """Where one model's attribution lies, as means over questions; shares of the prompt's content (question and draft)."""

    n: int
    mass: float  # on the draft
    token_share: float  # of the draft: the mass that chance would give
    enrichment: float  # mass / token share
    verdict_mass: float  # on the draft's verdict
    verdict_share: float
    questions_mass: float  # on the draft's clarifying questions
    questions_share: float
    masked: float  # mean fall of the signed log-odds when the draft is masked, in nats


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference with its bootstrap interval."""

    difference: float
    ci_low: float
    ci_high: float
    verdict: str


@dataclass(frozen=True, kw_only=True)
class AttributionEvidence:
    """Integrated gradients before (`track_b`) and after (`aligned`) preference training, and with shuffled drafts (`aligned_shuffled`)."""

    questions: int  # asked for
    excluded: dict[str, int]  # by model: attributions that did not add up
    within_tolerance: float  # share of all attributions that did
    median_error: float
    worst_error: float
    median_points: float
    masses: dict[str, Mass]
    enrichment_gain: Gain  # aligned over track_b, paired by question
    shuffled_gain: Gain  # own draft over another question's, in the aligned model
    verdict: str  # mass >= 20 % and enrichment gained


@dataclass(frozen=True, kw_only=True)
class JudgeEvidence:
    """Whether the aligned model's clarifying questions are better than Track B's. `net` = (wins - losses) / n."""

    judge: str
    prompt: str  # digest of the judge's instructions
    n: int
    wins: int
    ties: int
    losses: int
    unparsed: int
    net: float
    ci_low: float
    ci_high: float
    inconsistent: float  # share of pairs whose winner changed with the order
    usable: bool  # not more than 35 % inconsistent
    words: float  # mean words of the aligned model's questions minus Track B's
    net_at_equal_length: float  # of a logistic fit with length as covariate
    verdict: str  # net of 0.10 or more, its interval above 0
    human_n: int  # pairs that a person judged too
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
