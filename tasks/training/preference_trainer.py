"""Preference training on TRL's DPOTrainer: its public `compute_loss` overridden, own collator, one optimiser and one reference over all phases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from tasks.contracts.recipes import Align, Phase
from tasks.training.completions import per_completion
from tasks.training.drop_quantile import kept_pairs, suspicion
from tasks.training.engine import Engine
from tasks.training.memory import Fit
from tasks.training.order import WindowOrder
from tasks.training.packing import Bundle, Packed, pack
from tasks.training.preference_loss import dr_weights, preference_loss
from tasks.training.sft import restore_precision
from tasks.training.student import Student
from tasks.training.tokens import Tokens
from tasks.training.windows import LogWhenDue, Window, WindowTrainer

RAMP = 0.1  # share of the first batch_mean epoch over which centring sets in
# One column each of what a window leaves of every pair: all in nats, `margin` and the two after `gap` per token.
COLUMNS = ("index", "weight", "margin", "a", "b", "gap", "chosen_shift", "chosen_logp", "reward_accuracy", "trust", "mean_exp")


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

    @property
    def bundle(self) -> Bundle:
        """What is computed of it: the prompt once, then the chosen and the rejected completion."""
        return Bundle.of(self.chosen, self.rejected, key=self.index)


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


@dataclass(frozen=True)
class PairBatch:
    """A micro-batch of pairs; `index` says where each stands in the table, reference log-probabilities are in nats, all [pairs]."""

    packed: Packed
    index: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor


class PreferenceTrainer(WindowTrainer[PairRow], DPOTrainer):
    """DPOTrainer with phases. The reference is the pairs' stored log-probabilities, so no second adapter is kept."""

    def __init__(
        self,
        *,
        engine: Engine,
        student: Student,
        rows: Sequence[PairRow],
        order: WindowOrder,
        fit: Fit,
        recipe: Align,
        args: DPOConfig,
        callbacks: Sequence[TrainerCallback],
    ) -> None:
        self.engine, self.rows, self.order, self.budget, self.recipe = engine, rows, order, fit.tokens, recipe
        self.epochs: list[Phase] = [phase for phase in recipe.phases for _ in range(phase.epochs)]
        self.steps_per_epoch = len(order)
        self.mean_gap, self.log_mean = Smoothed(), Smoothed()
        self.margins: list[list[float]] = [[] for _ in rows]  # first-sight log-gap per token of each pair, one an epoch
        self.masks: dict[int, list[float]] = {}
        self.seen: list[Tensor] = []  # this window's COLUMNS, one row a pair
        kept = {name: parameter.detach().clone() for name, parameter in student.model.named_parameters() if parameter.requires_grad}
        super().__init__(
            model=student.model,
            args=args,
            # TRL tokenises these columns by itself; the rows that are trained on come through get_train_dataloader.
            train_dataset=Dataset.from_dict({"prompt": ["?"], "chosen": ["yes"], "rejected": ["no"]}),
            processing_class=student.tokenizer,
            callbacks=list(callbacks),
        )
        student.model.delete_adapter("ref")
        restore_precision(student.model, kept)
        self.add_callback(LogWhenDue(self))

    @property
    def epoch(self) -> int:
        """Epochs finished so far; exact at boundaries, because steps are counted and not parts of an epoch."""
        return int(self.state.global_step) // self.steps_per_epoch

    def row_bundle(self, row: PairRow) -> Bundle:
        """What is computed of a pair: its prompt once."""
        return row.bundle

    def row_weight(self, row: PairRow) -> float:
        """1 for pairs that this epoch trains on, 0 for those that its drop_quantile leaves out."""
        epoch = self.epoch
        if epoch not in self.masks:
            self.masks = {epoch: [float(kept) for kept in self._mask(self.epochs[epoch].drop_quantile)]}
        return self.masks[epoch][row.index]

    def collate(self, rows: Sequence[PairRow]) -> PairBatch:
        """Pairs as one micro-batch on the host."""
        return PairBatch(
            self.engine.stage(pack([row.bundle for row in rows])),
            torch.tensor([row.index for row in rows]),
            torch.tensor([row.reference_chosen for row in rows], dtype=torch.float32),
            torch.tensor([row.reference_rejected for row in rows], dtype=torch.float32),
        )

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """One window; where the phase follows moving averages, the next one needs this one's figures."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        phase = self.epochs[self.epoch]
        if phase.cal == "batch_mean" or phase.dr != "none":
            self.read()
        return loss

    def note(self) -> list[Tensor]:
        """COLUMNS of the window's pairs."""
        return self.seen

    def _window(self, model: Any, window: Window[PairRow]) -> Tensor:
        self.seen = []  # here, because a window that ran out of memory starts again
        return super()._window(model, window)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | float | None = None) -> Tensor:
        """This micro-batch's share of the step's loss under the present phase."""
        phase = self.epochs[self.epoch]
        per_token = self.engine.log_probs(inputs.packed)
        chosen, rejected = per_completion(per_token, inputs.packed).view(-1, 2).unbind(1)
        chosen_tokens, rejected_tokens = self.engine.send(inputs.packed.lengths).view(-1, 2).unbind(1)
        reference_chosen, reference_rejected = self.engine.send(inputs.reference_chosen), self.engine.send(inputs.reference_rejected)
        terms = (chosen, rejected, reference_chosen, reference_rejected)
        loss = preference_loss(*terms, beta=phase.beta, cal=phase.cal, cal_weight=self.recipe.cal_weight, mean_gap=self._centre(phase))
        a, b = chosen - reference_chosen, rejected - reference_rejected
        plain = preference_loss(*terms, beta=phase.beta).per_pair.detach()
        weights = self.engine.send(torch.tensor([self.row_weight(self.rows[index]) for index in inputs.index.tolist()]))
        total = weights.sum().clamp(min=1.0) if num_items_in_batch is None else num_items_in_batch
        trust = dr_weights(plain, dr_beta=self.recipe.dr_beta, log_mean=self._log_mean(plain)) if phase.dr == "paper" else torch.ones_like(plain)
        nll = -chosen / chosen_tokens
        margin = (a - b) * 2 / (chosen_tokens + rejected_tokens)
        figures = (self.engine.send(inputs.index), weights, margin, a, b, a - b, a / chosen_tokens, -nll, a > b, trust, torch.exp(-plain / self.recipe.dr_beta))
        self.seen.append(torch.stack([each.detach().float() for each in figures], dim=1))
        share: Tensor = (weights * (trust * loss.per_pair + self.recipe.nll_weight * nll)).sum() / total
        return share

    def figures(self, note: list[Tensor]) -> dict[str, float]:
        """Take a finished window, of all processes, into moving averages and margins; returns its means."""
        rows = [row for process in gather_object([torch.cat(note).tolist() if note else []]) for row in process]
        total = sum(row[1] for row in rows)
        for row in rows:
            self.margins[int(row[0])].append(row[2])
        means = {name: sum(row[1] * row[place] for row in rows) / total for place, name in enumerate(COLUMNS) if place >= 3} if total else {}
        if means:
            self.mean_gap.add(means["gap"])
            self.log_mean.add(math.log(max(means.pop("mean_exp"), 1e-30)))
        return {**means, "mean_gap": self.mean_gap.value}

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
        before = [seen[: self.epoch] for seen in self.margins]  # of finished epochs only: a run resumed inside this one must see the same
        margins = [sum(seen) / len(seen) for seen in before] if all(before) else None
        scores = suspicion([row.disagreement for row in self.rows], margins)
        return kept_pairs(scores, [row.stratum for row in self.rows], quantile=quantile)
