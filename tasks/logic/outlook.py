"""How long a run would keep a GPU busy, before it starts: tokens of every stage, and seconds by what was measured on one card and scaled to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.contracts.readings import SAMPLED, Track, numbers_of, readings
from tasks.contracts.recipes import Recipe, Sft
from tasks.contracts.rows import Arm
from tasks.contracts.shapes import Shape

WORDS_TO_TOKENS = 1.4
TEMPLATE_TOKENS = 40  # chat markers and the arm's instruction
ANSWER_TOKENS = 3
# Measured on one H200 with a 7B student (models/README.md): shares of the data sheet's figures that training and decoding reached.
TRAIN_SHARE, DECODE_SHARE = 0.5, 0.57
FOUR_BIT_STEP = 0.082 / 32  # seconds a layer and step where expanded weights do not fit: launching, on any card
PASSES = {"train": 4, "read": 2}  # FLOPs a token and weight: frozen weights need no gradient of their own


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A card by its data sheet: dense bfloat16 with float32 sums in TFLOP/s, GB/s of memory, GiB of memory."""

    name: str
    teraflops: float
    bandwidth: float
    memory: float


GPUS = (
    Gpu(name="RTX 4060 8 GB", teraflops=30, bandwidth=272, memory=8),
    Gpu(name="RTX 3090 24 GB", teraflops=71, bandwidth=936, memory=24),
    Gpu(name="RTX 4090 24 GB", teraflops=165, bandwidth=1008, memory=24),
    Gpu(name="A100 80 GB", teraflops=312, bandwidth=2039, memory=80),
    Gpu(name="H100 80 GB", teraflops=989, bandwidth=3350, memory=80),
    Gpu(name="H200 141 GB", teraflops=989, bandwidth=4800, memory=141),
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one stage does with the student. `tokens` pass through it; of a generation, those that are written, in rows of `length` tokens at the end."""

    stage: str
    kind: Literal["train", "read", "generate"]
    tokens: int
    length: int = 0


def works(recipe: Recipe, *, questions: Mapping[str, int], words: float) -> list[Work]:
    """The stages of a run in order. `questions` by split, `words` the mean of a question; reasoning is taken to be half of teacher.max_tokens long."""
    prompt = TEMPLATE_TOKENS + round(WORDS_TO_TOKENS * words)
    reason = recipe.teacher.max_tokens // 2
    train = questions["train"]
    pairs = round(train * recipe.curate.pair_share) or train
    tuned = train - round(train * recipe.curate.pair_share)
    direct = tuned * (prompt + ANSWER_TOKENS)
    chains = min(recipe.curate.rationales, recipe.teacher.samples) * tuned * (prompt + reason)
    both = chains + (direct if recipe.sft.direct_weight else 0)
    written = pairs * recipe.pair.samples * len(recipe.pair.arms)
    compared = min(written, pairs * recipe.pair.per_question) * (prompt + 2 * reason)
    epochs = sum(phase.epochs for phase in recipe.align.phases)
    examined = recipe.align.select_questions * (epochs + 1)
    done = [
        Work(stage="draft", kind="generate", tokens=sum(questions.values()) * recipe.draft.max_new_tokens, length=prompt + recipe.draft.max_new_tokens),
        Work(stage="finetune track_a", kind="train", tokens=_trained(numbers_of(recipe.sft, Track.TRACK_A), direct)),
        Work(stage="finetune track_b", kind="train", tokens=_trained(recipe.sft, both)),
        Work(stage="finetune track_a_matched", kind="train", tokens=round(_trained(recipe.sft, direct) * both / max(direct, 1) * _density(prompt, reason))),
        *(Work(stage=f"finetune {control}", kind="train", tokens=_trained(recipe.sft, both)) for control in _trained_controls(recipe)),
        Work(stage="pair, samples", kind="generate", tokens=written * reason, length=prompt + reason),
        Work(stage="pair, reference", kind="read", tokens=compared),
        Work(stage="align", kind="train", tokens=compared * epochs),
        Work(stage="align, dev answers", kind="generate", tokens=examined * reason, length=prompt + reason),
    ]
    return [*done, *_readings(recipe, questions=questions, prompt=prompt, reason=reason)]


def seconds(work: Work, *, shape: Shape, gpu: Gpu, batch: int, recompute: bool) -> float:
    """How long a card takes. Training and reading are bound by arithmetic, writing one token after another by memory: weights and stored keys and values."""
    weights = shape.linear + shape.vocabulary * shape.hidden
    if work.kind == "generate":
        moved = 2 * weights + batch * 2 * 2 * shape.layers * shape.keys * work.length  # bytes of weights, and of keys and values of all rows
        fits = moved < 0.9 * gpu.memory * 2**30
        step = moved / (DECODE_SHARE * gpu.bandwidth * 1e9) if fits else FOUR_BIT_STEP * shape.layers
        return work.tokens / batch * step
    passes = PASSES[work.kind] + (2 if recompute and work.kind == "train" else 0)
    return passes * weights * work.tokens / (TRAIN_SHARE * gpu.teraflops * 1e12)


def _trained(recipe: Sft, tokens: int) -> int:
    return tokens * recipe.epochs


def _density(prompt: int, reason: int) -> float:
    """Direct rows are shorter: as many steps are fewer tokens."""
    return (prompt + ANSWER_TOKENS) / (prompt + reason)


def _trained_controls(recipe: Recipe) -> list[str]:
    return [control for control in recipe.grade.controls if control in ("facts_only", "shuffled_rationale")]


def _readings(recipe: Recipe, *, questions: Mapping[str, int], prompt: int, reason: int) -> list[Work]:
    made = []
    for reading in readings(recipe.grade, recipe.ablate):
        asked = questions.get(reading.split, 0)
        sizes = {arm: min(size or asked, asked) for arm, size in reading.arms.items()}
        sampled = max(sizes.get(Arm.SELF_CONSISTENCY, 0), sizes.get(Arm.SOFT, 0))  # both read the same chains
        written = sum(size for arm, size in sizes.items() if arm not in (Arm.DIRECT, Arm.ADAPTIVE, *SAMPLED))
        chains = written + recipe.grade.samples * sampled
        name = f"predict {reading.model} on {reading.split}"
        made.append(Work(stage=name, kind="read", tokens=asked * (prompt + ANSWER_TOKENS)))
        if chains:
            made.append(Work(stage=f"{name}, chains", kind="generate", tokens=chains * reason, length=prompt + reason))
    return made
