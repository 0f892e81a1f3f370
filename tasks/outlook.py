"""What a run would take of a GPU: hours and memory by card, for `socratune plan`. Loads nothing and calls nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from tasks.contracts.failures import GuardError
from tasks.contracts.recipes import Profile
from tasks.contracts.shapes import KNOWN, Shape
from tasks.gateways.hub import read_questions_file
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.outlook import GPUS, Gpu, Work, seconds, works

DRIVER_GIB = 0.6  # CUDA's context and a desktop


@dataclass(frozen=True, kw_only=True)
class CardOutlook:
    """A card: its hours by stage, the peak of training in GiB, and how it would train. `fits` says why not, where it does not."""

    gpu: Gpu
    hours: Mapping[str, float]
    peak_gib: float
    how: str
    fits: str

    @property
    def total(self) -> float:
        """Hours of all stages."""
        return sum(self.hours.values())


def outlook(profile: Profile, *, splits: Mapping[str, int], source: Path | str | None, folder: Path | None) -> list[CardOutlook] | None:
    """One outlook a card; None where the student's network or the questions are not known before they are fetched. `folder`: of a local student."""
    shape = _shape(folder, profile.recipe.student.model)
    drawn = _questions(profile, splits=splits, source=source)
    if shape is None or drawn is None:
        return None
    counts = {split: len(texts) for split, texts in drawn.items()}
    words = sum(len(text.split()) for texts in drawn.values() for text in texts) / max(sum(counts.values()), 1)
    todo = works(profile.recipe, questions=counts, words=words)
    return [_card(profile, gpu, shape=shape, todo=todo) for gpu in GPUS]


def _card(profile: Profile, gpu: Gpu, *, shape: Shape, todo: list[Work]) -> CardOutlook:
    from tasks.training.memory import GIB, Load, choose  # arithmetic only; loads no torch

    sft, train = profile.recipe.sft, profile.execution.train
    load = Load(
        shape=shape,
        adapter=shape.adapter(sft.lora.rank),
        four_bit=profile.recipe.student.quantization == "nf4",
        width=2 if profile.recipe.student.dtype == "bfloat16" else 4,
        compiled=train.compile != "never",
        dropout=sft.lora.dropout > 0,
        workspaces=2**25,
    )
    room = min(gpu.memory - DRIVER_GIB, train.gpu_memory_gib or gpu.memory) * GIB * 0.93
    try:
        window = sft.effective_batch * sft.max_length // 2
        fit = choose(load, recompute=train.recompute, tokens=train.batch_tokens, longest=sft.max_length, window=window, memory=room, setting="the card's size")
    except GuardError as error:
        return CardOutlook(gpu=gpu, hours={}, peak_gib=load.peak(sft.max_length, recompute=True) / GIB, how="", fits=str(error).partition(":")[0])
    hours: dict[str, float] = {}
    for work in todo:
        hours[work.stage] = hours.get(work.stage, 0.0) + seconds(work, shape=shape, gpu=gpu, batch=train.generate_batch, recompute=fit.recompute) / 3600
    how = f"{fit.tokens} tokens at once" + (", layers recomputed" if fit.recompute else "")
    return CardOutlook(gpu=gpu, hours=hours, peak_gib=fit.peak / GIB, how=how, fits="yes")


def _shape(folder: Path | None, model: str) -> Shape | None:
    """From a folder's own configuration, else from what is known of the model by name."""
    if folder is None or not (folder / "config.json").is_file():
        return KNOWN.get(model)
    from tasks.training.memory import shape_of  # arithmetic only; loads no torch

    return shape_of(SimpleNamespace(**{"tie_word_embeddings": True, **json.loads((folder / "config.json").read_text(encoding="utf-8"))}))


def _questions(profile: Profile, *, splits: Mapping[str, int], source: Path | str | None) -> dict[str, list[str]] | None:
    if source is not None and not Path(source).exists():
        return None
    recipe = profile.recipe
    rows = read_questions_file(str(source)) if source else []
    draw = get_benchmark(recipe.benchmark).sample
    return {
        split: [
            each.question for each in draw(rows=rows, named_split=recipe.sample.split, kinds=recipe.sample.kinds, split=split, n=n, seed=recipe.seed).questions
        ]
        for split, n in splits.items()
    }
