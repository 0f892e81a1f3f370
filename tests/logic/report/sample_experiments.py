"""Made-up findings of the experiments, in the shapes that summary.json holds them in."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tasks.contracts.evidence import AttributionEvidence, Gain, JudgeEvidence, Mass

ARMS = {"rewrite": 0.86, "no_draft": 0.84, "shuffled_draft": 0.80, "neutral_draft": 0.83, "draft_questions": 0.85, "draft_verdict": 0.82}


def sample_draft(verdict: str = "underpowered", *, confounded: bool = True) -> dict[str, Any]:
    """The draft's arms and what taking each part away costs."""
    return {
        "verdict": verdict,
        "confounded": confounded,
        "n": 200,
        "arms": {
            arm: {"accuracy": right, "ci_low": right - 0.06, "ci_high": right + 0.05, "n": 200, "yes_rate": 0.5, "unparsed": 0, "balanced_accuracy": right}
            for arm, right in ARMS.items()
        },
        "comparisons": [
            {
                "name": f"rewrite_vs_{arm}",
                "n": 200,
                "difference": 0.86 - right,
                "ci_low": 0.83 - right,
                "ci_high": 0.91 - right,
                "p_value": 0.3,
                "p_holm": 0.6,
                "minimal_detectable": 0.08,
                "claim": 0.03,
                "verdict": verdict,
            }
            for arm, right in ARMS.items()
            if arm != "rewrite"
        ],
    }


def sample_attribution(verdict: str = "pass") -> dict[str, Any]:
    """Attribution before and after, and with another question's draft."""
    gain = Gain(difference=0.12, ci_low=0.02, ci_high=0.2, verdict=verdict)
    masses = {
        name: Mass(
            n=196, mass=share, token_share=0.4, enrichment=share / 0.4, verdict_mass=0.1, verdict_share=0.04, questions_mass=0.2, questions_share=0.3,
            chain_mass=0.3, masked=0.8,
        )
        for name, share in (("track_b", 0.31), ("aligned", 0.35), ("aligned_shuffled", 0.2))
    }  # fmt: skip
    return asdict(
        AttributionEvidence(
            questions=200, excluded={"track_b": 2, "aligned": 1}, within_tolerance=0.98, median_error=0.004, worst_error=0.2, median_points=128.0,
            masses=masses, enrichment_gain=gain, shuffled_gain=gain, verdict=verdict,
        )
    )  # fmt: skip


def sample_judge(verdict: str = "pass", *, usable: bool = True) -> dict[str, Any]:
    """A judge's verdict on the clarifying questions."""
    return asdict(
        JudgeEvidence(
            judge="judge-1", prompt="0ddba11", n=400, wins=180, ties=118, losses=100, unparsed=2, net=0.2, ci_low=0.12, ci_high=0.28,
            inconsistent=0.22 if usable else 0.41, usable=usable, words=1.2, net_at_equal_length=0.17, verdict=verdict, human_n=50, kappa=0.55, kappa_low=0.3,
            kappa_high=0.8,
        )
    )  # fmt: skip
