"""Preference training on TRL's DPOTrainer: its public `compute_loss` overridden, own collator, one optimiser and one reference over all phases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from tasks.contracts.recipes import Align, Phase
from tasks.training.completions import completion_log_probs, pad_right
from tasks.training.drop_quantile import kept_pairs, suspicion
from tasks.training.preference_loss import dr_weights, preference_loss
from tasks.training.sft import restore_precision
from tasks.training.student import Student
from tasks.training.tokens import Tokens
from tasks.training.windows import WindowFeed, WindowOrder

RAMP = 0.1  # share of the first batch_mean epoch over which centring sets in


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """A tokenised pair. Reference log-probabilities are summed, in nats; `stratum` is verdict and kind."""

    index: int
    chosen: Tokens
    rejected: Tokens
    reference_chosen: float
    reference_rejected: float
    disagreement: float
    stratum: str


class Smoothed:
    """Exponential moving average over optimiser steps, bias-corrected, so that the first value counts in full."""

    def __init__(self, rho: float = 0.9) -> None:
        self.rho = rho
        self.total = 0.0
        self.steps = 0

    def add(self, value: float) -> None:
        """Take in one step's value."""
        self.total = self.rho * self.total + (1 - self.rho) * value
        self.steps += 1

    @property
    def value(self) -> float:
        """The average; 0 before the first value."""
        return self.total / (1 - self.rho**self.steps) if self.steps else 0.0

    def state(self) -> list[float]:
        """What a checkpoint keeps."""
        return [self.total, self.steps]

    def restore(self, state: Sequence[float]) -> None:
        """Continue from a checkpoint."""
        self.total, self.steps = float(state[0]), int(state[1])


class Sums:
    """Weighted sums over the micro-batches of one optimiser step."""

    def __init__(self) -> None:
        self.weight = 0.0
        self.totals: dict[str, float] = {}

    def add(self, weights: Tensor, values: Mapping[str, Tensor]) -> None:
        """Add per-pair values [batch] under weights [batch]."""
        self.weight += float(weights.sum())
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + float((weights * value.detach()).sum())

    def means(self) -> dict[str, float]:
        """Weighted means."""
        return {name: total / self.weight for name, total in self.totals.items()} if self.weight else {}


class PreferenceTrainer(WindowFeed[PairRow], DPOTrainer):
    """DPOTrainer with phases. The reference is the pairs' stored log-probabilities, so no second adapter is kept."""

    loss_is_scaled_for_ga = True  # the window's weight is divided by, so accumulating must not divide again

    def __init__(
        self, *, student: Student, rows: Sequence[PairRow], order: WindowOrder, recipe: Align, args: DPOConfig, callbacks: Sequence[TrainerCallback]
    ) -> None:
        self.rows = rows
        self.order = order
        self.recipe = recipe
        self.epochs: list[Phase] = [phase for phase in recipe.phases for _ in range(phase.epochs)]
        self.steps_per_epoch = math.ceil(len(rows) / order.window)
        self.mean_gap, self.log_mean = Smoothed(), Smoothed()
        self.margins: list[list[float]] = [[] for _ in rows]  # first-sight log-gap per token of each pair, one an epoch
        self.masks: dict[int, Tensor] = {}
        self.sums = Sums()
        self.raw_loss = 0.0
        pad = int(student.tokenizer.pad_token_id)
        kept = {name: parameter.detach().clone() for name, parameter in student.model.named_parameters() if parameter.requires_grad}
        super().__init__(
            model=student.model,
            args=args,
            data_collator=lambda picked: collate_pairs(picked, pad=pad),
            # TRL tokenises these columns by itself; the rows that are trained on come through get_train_dataloader.
            train_dataset=Dataset.from_dict({"prompt": ["?"], "chosen": ["yes"], "rejected": ["no"]}),
            processing_class=student.tokenizer,
            callbacks=[*callbacks, _FoldWindow(self.fold_window)],
        )
        student.model.delete_adapter("ref")
        restore_precision(student.model, kept)

    @property
    def epoch(self) -> int:
        """Epochs finished so far; exact at boundaries, because steps are counted and not parts of an epoch."""
        return int(self.state.global_step) // self.steps_per_epoch

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Tensor]:
        """The micro-batches of one optimiser step and the total pair weight that their losses are divided by."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        weight = sum((self.pair_weights(batch["index"]).sum() for batch in batches), torch.zeros((), device=device))
        return batches, weight.clamp(min=1.0)

    def pair_weights(self, index: Tensor) -> Tensor:
        """1 for pairs that this epoch trains on, 0 for those its drop_quantile leaves out [batch]."""
        epoch = self.epoch
        if epoch not in self.masks:
            self.masks = {epoch: torch.tensor(self._mask(self.epochs[epoch].drop_quantile), dtype=torch.float32)}
        return self.masks[epoch].to(index.device)[index]

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """This micro-batch's share of the step's loss under the present phase."""
        phase = self.epochs[self.epoch]
        scored = completion_log_probs(model, inputs)
        chosen, rejected = scored.total.chunk(2)
        chosen_tokens, rejected_tokens = scored.tokens.chunk(2)
        terms = (chosen, rejected, inputs["reference_chosen"], inputs["reference_rejected"])
        loss = preference_loss(*terms, beta=phase.beta, cal=phase.cal, cal_weight=self.recipe.cal_weight, mean_gap=self._centre(phase))
        a, b = chosen - inputs["reference_chosen"], rejected - inputs["reference_rejected"]
        plain = preference_loss(*terms, beta=phase.beta).per_pair.detach()
        weights = self.pair_weights(inputs["index"])
        total = weights.sum().clamp(min=1.0) if num_items_in_batch is None else num_items_in_batch
        trust = dr_weights(plain, dr_beta=self.recipe.dr_beta, log_mean=self._log_mean(plain)) if phase.dr == "paper" else torch.ones_like(plain)
        nll = -chosen / chosen_tokens
        share = (weights * (trust * loss.per_pair + self.recipe.nll_weight * nll)).sum() / total
        self._note(inputs["index"], (a - b).detach() * 2 / (chosen_tokens + rejected_tokens))
        seen = {"a": a, "b": b, "gap": a - b, "chosen_shift": a / chosen_tokens, "chosen_logp": -nll, "reward_accuracy": (a > b).float(), "trust": trust}
        self.sums.add(weights, {**seen, "mean_exp": torch.exp(-plain / self.recipe.dr_beta)})
        self.raw_loss += float(share.detach())
        return share

    def fold_window(self) -> None:
        """Take one finished optimiser step into the moving averages; the next step uses them."""
        means = self.sums.means()
        if means:
            self.mean_gap.add(means["gap"])
            self.log_mean.add(math.log(max(means["mean_exp"], 1e-30)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log each optimiser step in nats, beside TRL's own figures."""
        if "loss" in logs:
            means = {name: value for name, value in self.sums.means().items() if name != "mean_exp"}
            logs = {**logs, **means, "raw_loss": self.raw_loss, "mean_gap": self.mean_gap.value}
            self.sums, self.raw_loss = Sums(), 0.0
        super().log(logs, start_time)

    def notes(self) -> dict[str, Any]:
        """What a checkpoint keeps of this trainer beside TRL's own files."""
        return {"mean_gap": self.mean_gap.state(), "log_mean": self.log_mean.state(), "margins": self.margins}

    def restore(self, notes: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's notes."""
        self.mean_gap.restore(notes["mean_gap"])
        self.log_mean.restore(notes["log_mean"])
        self.margins = [list(seen) for seen in notes["margins"]]

    def _centre(self, phase: Phase) -> float:
        """The mean gap that batch_mean subtracts: smoothed, never negative, at most 1/beta, set in gradually (ALGORITHMS 2.2)."""
        if phase.cal != "batch_mean":
            return 0.0
        first = next(index for index, each in enumerate(self.epochs) if each.cal == "batch_mean")
        progress = (int(self.state.global_step) - first * self.steps_per_epoch) / self.steps_per_epoch
        return min(1.0, progress / RAMP) * min(max(self.mean_gap.value, 0.0), 1.0 / phase.beta)

    def _log_mean(self, plain: Tensor) -> float:
        """Smoothed log-mean of exp(-l / dr_beta); before the first step is over, this micro-batch's own."""
        if self.log_mean.steps:
            return self.log_mean.value
        return float(torch.logsumexp(-plain / self.recipe.dr_beta, dim=0)) - math.log(len(plain))

    def _mask(self, quantile: float) -> list[bool]:
        if not quantile:
            return [True] * len(self.rows)
        margins = [sum(seen) / len(seen) for seen in self.margins] if all(self.margins) else None
        scores = suspicion([row.disagreement for row in self.rows], margins)
        return kept_pairs(scores, [row.stratum for row in self.rows], quantile=quantile)

    def _note(self, index: Tensor, per_token: Tensor) -> None:
        for pair, margin in zip(index.tolist(), per_token.tolist(), strict=True):
            self.margins[pair].append(margin)


class _FoldWindow(TrainerCallback):
    """Calls back at the end of each optimiser step."""

    def __init__(self, fold: Callable[[], None]) -> None:
        self.fold = fold

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer."""
        self.fold()


def collate_pairs(picked: Sequence[PairRow], *, pad: int) -> dict[str, Tensor]:
    """Left-padded batch of all chosen rows, then all rejected ones, with reference log-probabilities and table indices [pairs]."""
    return {
        **pad_right([*(row.chosen for row in picked), *(row.rejected for row in picked)], pad=pad),
        "reference_chosen": torch.tensor([row.reference_chosen for row in picked], dtype=torch.float32),
        "reference_rejected": torch.tensor([row.reference_rejected for row in picked], dtype=torch.float32),
        "index": torch.tensor([row.index for row in picked]),
    }
