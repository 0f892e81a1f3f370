"""A made-up loop for tests of its page: the start, an accepted round, one reverted for its length, an accepted one, and one that was given up."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from tasks.contracts.recipes import Gate
from tasks.contracts.rounds import Round, Tails
from tasks.logic.tails import no_tails

GATE = Gate(
    min_gain=-0.01, worse_p=0.1, max_yes_shift=0.05, max_unparsed=0.01, max_length_change=0.25, min_chosen_log_ratio=-0.05, max_hard_loss=0.03, max_drift=0.2,
    drift_questions=32,
)  # fmt: skip
GOLD_YES = 0.48
LENGTH = "its mean answer of 96.2 tokens is 64.2 % longer than the start's 58.6; no more than 25.0 % is allowed"
GIVEN_UP = "it took longer than 45 minutes (execution.loop.round_minutes)"


def tails(step: int) -> Tails:
    """Texts that narrow a little with each step."""
    return Tails(
        divergence=0.031 + 0.02 * step, hard_retention=0.62 - 0.08 * step, coverage=0.91 + 0.01 * step, inequality=0.28 - 0.03 * step,
        length_p10=41.0 + step, length_p50=57.0 + 6 * step, length_p90=79.0 + 14 * step, perplexity_p50=1.31 - 0.03 * step, perplexity_p95=1.92 - 0.1 * step,
        unlikely=0.083 - 0.012 * step, distinct_2=0.34 - 0.02 * step,
    )  # fmt: skip


def sample_round(number: int, verdict: str, narrowed: Tails, **changed: Any) -> Round:
    values: dict[str, Any] = {
        "number": number, "verdict": verdict, "reasons": (), "parent": "start", "student": f"models/align/{number:08x}", "digest": f"{number}" * 64,
        "seed": 7 + number, "questions": 240, "samples": 2280, "pairs": 212, "replayed": 53, "accuracy": 0.86, "yes_rate": 0.47, "unparsed": 0.0,
        "length": 58.6, "hard_accuracy": 0.61, "gain": 0.0, "gain_p": 1.0, "chosen_log_ratio": 0.012, "drift": 0.04, "minutes": 21.4, "dollars": 0.36,
        "started_at": f"2031-02-0{number + 1}T02:00:04+00:00", "flow_run": "0b5c",
    }  # fmt: skip
    return Round(**{**asdict(narrowed), **values, **changed})


def sample_rounds() -> list[Round]:
    nan = math.nan
    return [
        sample_round(0, "start", no_tails(), parent="", pairs=0, replayed=0, questions=0, samples=0, chosen_log_ratio=nan, minutes=1.2, dollars=0.02),
        sample_round(1, "accepted", tails(0), accuracy=0.8875, gain=0.0275, gain_p=0.031, yes_rate=0.462, hard_accuracy=0.66, drift=0.061, length=60.1),
        sample_round(
            2, "reverted", tails(3), parent="round 1", reasons=(LENGTH,), accuracy=0.8833, gain=-0.0042, gain_p=0.83, length=96.2, hard_accuracy=0.65,
            drift=0.142, chosen_log_ratio=0.031, minutes=33.0,
        ),
        sample_round(
            3, "accepted", tails(1), parent="round 1", accuracy=0.9, gain=0.0125, gain_p=0.375, yes_rate=0.49, hard_accuracy=0.675, drift=0.084, length=62.0,
            chosen_log_ratio=-0.008, unparsed=0.0042,
        ),
        sample_round(
            4, "reverted", no_tails(), parent="round 3", reasons=(GIVEN_UP,), student="", digest="", accuracy=nan, yes_rate=nan, unparsed=nan, length=nan,
            hard_accuracy=nan, gain=nan, gain_p=nan, chosen_log_ratio=nan, drift=nan, pairs=0, replayed=0, minutes=45.0,
        ),
    ]  # fmt: skip
