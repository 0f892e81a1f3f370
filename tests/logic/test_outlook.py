"""Foreseen hours: the card that was measured takes what was measured, and more work never takes less."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.profiles import load_profile
from tasks.contracts.shapes import KNOWN, Shape
from tasks.logic.outlook import GPUS, Work, seconds, works

PROFILES = Path(__file__).resolve().parents[2] / "deployments" / "profiles"
LLAMA = Shape(hidden=4096, inner=11_008, queries=4096, keys=4096, layers=32, vocabulary=32_000, tied=False)
H200 = next(gpu for gpu in GPUS if gpu.name.startswith("H200"))


def recipe(name: str = "demo", **changes: object):
    return load_profile(name, folder=PROFILES, overrides={path.replace("__", "."): value for path, value in changes.items()}).recipe


def test_the_card_that_was_measured_takes_what_was_measured() -> None:
    trained = seconds(Work(stage="", kind="train", tokens=98 * 180), shape=LLAMA, gpu=H200, batch=1, recompute=False)
    assert trained == pytest.approx(1.0, rel=0.1)  # models/README.md: 96 and 100 rows of 180 tokens a second
    step = seconds(Work(stage="", kind="generate", tokens=256, length=96), shape=LLAMA, gpu=H200, batch=256, recompute=False)
    assert step == pytest.approx(0.0101, rel=0.1)


@given(st.sampled_from(["train", "read", "generate"]), st.integers(1, 10**9), st.integers(1, 10**9))
def test_more_tokens_and_a_slower_card_never_take_less(kind, tokens, more) -> None:
    def took(gpu, count):
        return seconds(Work(stage="", kind=kind, tokens=count, length=100), shape=LLAMA, gpu=gpu, batch=8, recompute=False)

    assert took(H200, tokens) < took(H200, tokens + more)
    assert took(H200, tokens) <= took(GPUS[1], tokens) <= took(GPUS[0], tokens)


def test_every_reading_and_tuning_of_a_run_is_counted() -> None:
    counts = {"train": 100, "dev": 40, "test": 0}
    made = {work.stage: work for work in works(recipe(), questions=counts, words=12)}
    twice = {work.stage: work for work in works(recipe(recipe__sft__epochs=4), questions=counts, words=12)}
    assert {"draft", "finetune track_a", "finetune track_b", "align", "predict track_b on dev", "predict track_b on dev, chains"} <= made.keys()
    assert twice["finetune track_b"].tokens == 2 * made["finetune track_b"].tokens
    sampled = works(recipe(recipe__grade__side_arms=["self_consistency", "soft"]), questions=counts, words=12)
    both = next(work for work in sampled if work.stage == "predict track_b on dev, chains")
    assert both.tokens > made["predict track_b on dev, chains"].tokens


def test_the_known_networks_have_the_weights_of_their_names() -> None:
    counted = {name: shape.linear + shape.vocabulary * shape.hidden * (1 if shape.tied else 2) for name, shape in KNOWN.items()}
    assert {name: round(weights / 1e9, 2) for name, weights in counted.items()} == {
        "smollm2-135m-instruct": 0.13,
        "microsoft/Phi-3.5-mini-instruct": 3.82,
        "Qwen/Qwen2.5-7B-Instruct": 7.62,
    }
