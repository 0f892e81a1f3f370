"""A made-up but realistic run, for tests of the report and for looking at it."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from tasks.contracts.asks import Usage
from tasks.contracts.profiles import load_profile
from tasks.contracts.rows import Prediction
from tasks.logic.balance import FilterStep
from tasks.logic.calibration import Bin
from tasks.logic.report.summary import ModelScores, StageLine, TestRead, summary
from tasks.logic.report.view import EpochChoice, LossCurve, MarginPoint, ModelReply, Provenance, ReportView, Transcript
from tasks.logic.scores import compare, holm, score

RIGHT = {
    ("zero_shot", "direct"): 0.50,
    ("zero_shot", "reasoning"): 0.47,
    ("track_a", "direct"): 0.53,
    ("track_a_matched", "direct"): 0.55,
    ("track_b", "reasoning"): 0.88,
    ("track_b", "direct"): 0.54,
    ("track_b", "calibrated"): 0.58,
    ("track_b", "self_consistency"): 0.9,
    ("track_b", "soft"): 0.91,
    ("track_b", "adaptive"): 0.8,
    ("aligned", "reasoning"): 0.885,
    ("aligned", "rewrite"): 0.86,
    ("facts_only", "direct"): 0.545,
    ("shuffled_rationale", "reasoning"): 0.51,
}
HEADLINE = {"track_b": "reasoning", "aligned": "reasoning", "shuffled_rationale": "reasoning"}
COSTS = {  # tokens and milliseconds a question
    ("zero_shot", "direct"): (0.0, 3.1),
    ("zero_shot", "reasoning"): (301.2, 96.0),
    ("track_a", "direct"): (0.0, 3.4),
    ("track_a_matched", "direct"): (0.0, 3.3),
    ("track_b", "reasoning"): (104.0, 41.0),
    ("track_b", "direct"): (0.0, 3.2),
    ("track_b", "calibrated"): (0.0, 3.2),
    ("track_b", "self_consistency"): (842.0, 240.0),
    ("track_b", "soft"): (842.0, 281.0),
    ("track_b", "adaptive"): (61.0, 27.0),
    ("aligned", "reasoning"): (109.0, 42.0),
    ("aligned", "rewrite"): (112.5, 46.0),
    ("facts_only", "direct"): (0.0, 3.0),
    ("shuffled_rationale", "reasoning"): (98.0, 40.0),
}
PROFILES = Path(__file__).resolve().parents[3] / "deployments" / "profiles"
EXPERIMENTS = {
    "recipe.pair.arms": ["reasoning", "rewrite"],
    "recipe.ablate.arms": ["no_draft", "shuffled_draft", "neutral_draft", "draft_questions", "draft_verdict"],
    "recipe.ablate.matched": True,
    "recipe.attribute.questions": 8,
    "recipe.judge.kind": "simulated",
    "recipe.judge.model": "simulated-judge",
}
MODELS = ("zero_shot", "track_a", "track_a_matched", "track_b", "aligned")


def predictions(model: str, arm: str, right: float, *, n: int = 240, yes_only: bool = False) -> list[Prediction]:
    """Answers that are right with probability `right`, or always "yes"."""
    chance = random.Random(f"{model}-{arm}")
    rows = []
    for number in range(n):
        gold = "yes" if number % 2 else "no"
        other = "no" if gold == "yes" else "yes"
        verdict = "yes" if yes_only else gold if chance.random() < right else other if chance.random() < 0.95 else "unparsed"
        rows.append(
            Prediction(
                qid=f"q{number}",
                split="dev",
                kind="lifetimes",
                model=model,
                arm=arm,
                question="Could Julius Caesar have used a telephone?",
                answer=gold,
                verdict=verdict,
                text=verdict,
                tokens=40,
                cut=False,
                margin=math.nan,
                reason="",
            )
        )
    return rows


def sample_summary(right: dict[tuple[str, str], float] | None = None, **replaced: Any) -> dict[str, Any]:
    """summary.json of the made-up run; `right` changes how often a (model, arm) is right, `replaced` any argument of `summary`."""
    answers = {cell: predictions(*cell, share) for cell, share in {**RIGHT, **(right or {})}.items()}
    scored = {name: tuple(score(rows) for (model, _), rows in answers.items() if model == name) for name in {model for model, _ in answers}}
    cells = {name: ModelScores(headline=HEADLINE.get(name, "direct"), scores=scores) for name, scores in scored.items()}
    headline = {name: answers[name, HEADLINE.get(name, "direct")] for name in cells}
    versus = [("track_b", "track_a"), ("track_b", "track_a_matched"), ("aligned", "track_b")]
    arguments: dict[str, Any] = {
        "profile": "demo",
        "overrides": {"recipe.seed": 2},
        "benchmark": "pocketqa",
        "student": "smollm2-135m-instruct",
        "teacher": "simulated:gpt-4",
        "split": "dev",
        "splits": {"train": 320, "dev": 240, "test": 400},
        "majority_accuracy": 0.5,
        "models": {name: cells[name] for name in MODELS},
        "controls": {name: cells[name] for name in cells if name not in MODELS},
        "comparisons": holm([compare(f"{new}_vs_{old}", headline[new], headline[old], resamples=500, seed=0) for new, old in versus]),
        "unparsed": "wrong",
        "accepted": "",
        "same_as": {},
        "remarks": (),
        "draft": None,
        "attribution": None,
        "judge": None,
        "calibration": {
            "track_b": {
                "thresholds": [-0.31, -0.27],
                "chosen_on": 240,
                "plain": {"accuracy": 0.54, "balanced_accuracy": 0.541, "mcc": 0.083, "ece": 0.214},
                "calibrated": {"accuracy": 0.58, "balanced_accuracy": 0.579, "mcc": 0.16, "ece": 0.19},
            }
        },
        "costs": sample_costs(),
        "curation": {"rows": 316, "agreed": 262, "rationalised": 50, "template": 4},
        "filters": (
            FilterStep(step="asked", yes=160, no=160),
            FilterStep(step="reply with a verdict", yes=158, no=159),
            FilterStep(step="teacher agrees with gold", yes=112, no=150),
            FilterStep(step="after rationalise", yes=160, no=160),
            FilterStep(step="Track A, weighted", yes=158.5, no=161.5),
        ),
        "teacher_usage": Usage(calls=374, cached=12, retries=9, failed=0, tokens_in=118_204, tokens_out=41_870, usd=0.1374),
        "stages": [
            StageLine(stage="sample", seconds=0.4, cached=True, artifact="data/sample/1f0c2a9b"),
            StageLine(stage="teach", seconds=42.0, cached=True, artifact="data/teach/77aa01be"),
            StageLine(stage="finetune track_b", seconds=131.4, cached=False, artifact="models/finetune/90ab33cd"),
            StageLine(stage="predict", seconds=98.2, cached=False, artifact="data/predict/ab12cd34"),
        ],
        "test_reads": [TestRead(recipe="4be1c07a", split="test", times=1)],
    }
    return summary(**{**arguments, **replaced})


def sample_costs() -> dict[str, dict[str, dict[str, float]]]:
    """What each arm takes a question, by model."""
    models = {model for model, _ in COSTS}
    return {
        name: {arm: {"tokens_per_question": tokens, "ms_per_question": took} for (model, arm), (tokens, took) in COSTS.items() if model == name}
        for name in models
    }


def sample_view(made: dict[str, Any] | None = None, *, teacher: str = "Caesar died in 44 BC.\nThe telephone came in 1876.", **replaced: Any) -> ReportView:
    """The whole report of the made-up run."""
    wave = random.Random(7)
    curves = tuple(
        LossCurve(model=model, points=tuple((step, floor + 2.2 * math.exp(-step / 25) + 0.05 * wave.random()) for step in range(1, 101)))
        for model, floor in (("track_a", 0.69), ("track_a_matched", 0.66), ("track_b", 0.31))
    )
    margins = tuple(
        MarginPoint(step=step, a=-0.02 * step + 0.3 * wave.random(), b=-0.16 * step + 0.5 * wave.random(), d=0.14 * step) for step in range(0, 64, 2)
    )
    values: dict[str, Any] = {
        "summary": made or sample_summary(),
        "generated_at": "2031-02-03 04:05 UTC",
        "command": "socratune run demo --set recipe.seed=2",
        "recipe": load_profile("demo", folder=PROFILES, overrides=EXPERIMENTS).recipe,
        "curves": curves,
        "preference_loss": tuple((step, 0.693 - 0.004 * step + 0.02 * wave.random()) for step in range(64)),
        "margins": margins,
        "selection": (
            EpochChoice(epoch=0, phase="start", correct=84, yes=50, n=96, kept=False),
            EpochChoice(epoch=1, phase="beta 0.05", correct=85, yes=49, n=96, kept=True),
            EpochChoice(epoch=2, phase="beta 0.10, batch_mean", correct=83, yes=61, n=96, kept=False),
        ),
        "transcripts": tuple(_transcript(number, teacher) for number in range(10)),
        "provenance": (
            _artifact("teach", "77aa01be", path="data/teach/77aa01be", seconds=42.0, cached=True),
            _artifact("curate", "0c0ffee1", path="data/curate/0c0ffee1", seconds=0.2, cached=True),
            _artifact("finetune track_b", "90ab33cd", path="models/finetune/90ab33cd", seconds=131.4, cached=False),
            _artifact("predict", "ab12cd34", path="data/predict/ab12cd34", seconds=98.2, cached=False),
        ),
        "notes": ("The student's revision was not pinned; commit 12fd25f was used.", "Dev was also used to choose the epoch of preference training."),
        "reliability": {
            "track_a": (Bin(0.36, 0.41, 30), Bin(0.47, 0.48, 130), Bin(0.55, 0.5, 80)),
            "track_b": (Bin(0.04, 0.31, 61), Bin(0.44, 0.5, 20), Bin(0.91, 0.66, 70), Bin(0.98, 0.72, 89)),
        },
        "attributed": (),
        "judged": (),
    }
    return ReportView(**{**values, **replaced})


def _transcript(number: int, teacher: str) -> Transcript:
    reasoning = "Q: When did Julius Caesar die? A: 44 BC.\nQ: When was the telephone invented? A: 1876.\n44 BC is before 1876.\nFinal answer: No"
    replies = (
        ModelReply(model="track_a", arm="direct", text="Answer: Yes", verdict="yes", right=False),
        ModelReply(model="track_b", arm="reasoning", text=reasoning, verdict="no", right=True),
        ModelReply(model="aligned", arm="reasoning", text=reasoning, verdict="no", right=True),
    )
    return Transcript(
        qid=f"pq-{number}",
        question="Could Julius Caesar have used a telephone?",
        gold="no",
        facts=("Julius Caesar died in 44 BC.", "The telephone was invented in 1876."),
        draft="Yes. Who was Caesar? When was the telephone invented?",
        asked=("Who was Caesar?", "When was the telephone invented?"),
        teacher=teacher,
        replies=replies,
    )


def _artifact(stage: str, key: str, *, path: str, seconds: float, cached: bool) -> Provenance:
    packages = {"torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0", "prefect": "3.8.8", "openai": ""}
    return Provenance(stage=stage, key=key, digest=f"{key}{'5a' * 28}", path=path, seconds=seconds, cached=cached, packages=packages)
