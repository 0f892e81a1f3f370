"""Rows of the self-guided loop: what a student tried, how likely its texts are to others, and what each round came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One sample of a student for a question whose answer is known, and whether its reasoning carries its verdict (ALGORITHMS 5.4)."""

    qid: str
    split: str
    sample: int
    text: str
    tokens: int
    cut: bool
    answer: str  # gold
    verdict: str
    after: float  # probability of its verdict after its reasoning alone, by a fresh pass of the same student; nan without a verdict
    elsewhere: float  # probability of its verdict after another question's reasoning for the other one; nan without a verdict
    valid: bool


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A text whose log-probability is asked for. `role`: chosen (of a round's new pairs) | source (of the first alignment's) | own (drawn on dev)."""

    qid: str
    role: str
    prompt: str
    completion: str


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Log-probability of a Spoken text under one student, in nats summed over its `tokens`, the end token included."""

    qid: str
    role: str
    tokens: int
    nats: float


@dataclass(frozen=True, kw_only=True)
class Gauged:
    """One Spoken text under three students, in nats summed over its tokens. What one student did not read is nan."""

    qid: str
    role: str
    text: str
    tokens: int
    candidate: float  # the round's student
    accepted: float  # the one it started from
    track_b: float


@dataclass(frozen=True, kw_only=True)
class Tails:
    """How far a round's chosen texts have narrowed (ALGORITHMS 6.7); nan where a round has none. Lengths in tokens."""

    divergence: float  # Jensen-Shannon divergence of difficulty bins, chosen texts against the questions, in bits
    hard_retention: float  # share of the hardest bin among the chosen texts over its share among the questions; 1 = none lost
    coverage: float  # share of the questions with a right and valid sample
    inequality: float  # Gini coefficient of such samples a question; 0 = as many for each
    length_p10: float
    length_p50: float
    length_p90: float
    perplexity_p50: float  # under Track B, which stays as it is
    perplexity_p95: float
    unlikely: float  # share above the 90th percentile of the first alignment's chosen texts
    distinct_2: float  # different pairs of neighbouring words over all such pairs


@dataclass(frozen=True, kw_only=True)
class Round(Tails):
    """One round of a self-guided loop. Round 0 is the student that it starts from. Shares in [0, 1], figures on dev unless said."""

    number: int
    verdict: str  # start | accepted | reverted
    reasons: tuple[str, ...]  # why it was reverted, one a failed check
    parent: str  # label of the student that it started from
    student: str  # folder of its own student, relative to the artifact root; "" where none was trained
    digest: str  # of that
    seed: int
    questions: int  # that were sampled
    samples: int
    pairs: int
    replayed: int  # of the pairs, those of the first alignment
    accuracy: float
    yes_rate: float
    unparsed: float
    length: float  # mean tokens of an answer
    hard_accuracy: float  # on the hardest third
    gain: float  # of accuracy over the parent
    gain_p: float  # exact McNemar, two-sided
    chosen_log_ratio: float  # nats a token, against the parent
    drift: float  # nats a token, from Track B
    minutes: float
    dollars: float
    started_at: str  # ISO 8601, UTC
    flow_run: str  # Prefect's id, "" outside Prefect
