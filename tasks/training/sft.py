"""Supervised fine-tuning: weighted likelihood of completions, on TRL's SFTTrainer."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tasks.contracts.artifacts import read_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.jobs import SftStep
from tasks.contracts.rows import Example
from tasks.training.checkpoints import MarkComplete, TellProgress, newest_complete
from tasks.training.completions import completion_log_probs, pad_right
from tasks.training.generation import HISTORY
from tasks.training.guards import four_bit, gradients_flow, labels_survive, lora_coverage, same_prompts
from tasks.training.progress import Report
from tasks.training.results import step_identity
from tasks.training.student import Student, add_new_adapter, load_student, save_adapter
from tasks.training.tokens import Tokens, tokenize_example
from tasks.training.windows import WindowFeed, WindowOrder

PROBE_ROWS = 2
VERDICT_TOKENS = 2  # the word that ends a completion, and the end token


@dataclass(frozen=True)
class SftRow:
    """A tokenised example and its weight."""

    tokens: Tokens
    weight: float
    verdict_weight: float  # factor on the verdict and the end token after it; 1 where there is no verdict


class WeightedSftTrainer(WindowFeed[SftRow], SFTTrainer):
    """SFTTrainer whose loss is sum(weight * nll) / sum(weight) over all completion tokens of the whole optimiser step."""

    loss_is_scaled_for_ga = True  # type: ignore[assignment]  # the window's total is divided by, so accumulating must not divide again

    def __init__(self, *, student: Student, rows: Sequence[SftRow], order: WindowOrder, args: SFTConfig, callbacks: Sequence[Any]) -> None:
        self.rows = rows
        self.order = order
        self.raw_loss = 0.0
        pad = int(student.tokenizer.pad_token_id)
        kept = {name: parameter.detach().clone() for name, parameter in student.model.named_parameters() if parameter.requires_grad}
        super().__init__(
            model=student.model,
            args=args,
            data_collator=lambda picked: collate_weighted(picked, pad=pad),
            train_dataset=Dataset.from_dict({"row": list(range(len(rows)))}),
            processing_class=student.tokenizer,
            callbacks=list(callbacks),
        )
        restore_precision(student.model, kept)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Tensor]:
        """The micro-batches of one optimiser step and the total token weight that their losses are divided by."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        weight = sum((batch["token_weights"].sum() for batch in batches), torch.zeros((), device=device))
        return batches, weight.clamp(min=1e-12)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """This micro-batch's share of the step's loss, in nats per weighted token."""
        per_token = completion_log_probs(model, inputs).per_token
        weights = inputs["token_weights"]
        total = weights.sum() if num_items_in_batch is None else num_items_in_batch
        loss = -(per_token * weights[:, -per_token.shape[1] :]).sum() / total
        self.raw_loss += float(loss.detach())
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log each optimiser step with its unrounded loss."""
        if "loss" in logs:
            logs = {**logs, "raw_loss": self.raw_loss}
            self.raw_loss = 0.0
        super().log(logs, start_time)


def collate_weighted(picked: Sequence[SftRow], *, pad: int) -> dict[str, Tensor]:
    """Right-padded batch with `token_weights` [rows, longest row], 0 outside completions."""
    batch = pad_right([row.tokens for row in picked], pad=pad)
    weights = batch["completion_mask"].float()
    for index, row in enumerate(picked):
        weights[index] *= row.weight
        weights[index, len(row.tokens.ids) - VERDICT_TOKENS : len(row.tokens.ids)] *= row.verdict_weight
    return {**batch, "token_weights": weights}


def restore_precision(model: Any, kept: dict[str, Tensor]) -> None:
    """Undo TRL's cast of adapters on 4-bit students to bfloat16: it would lose small updates, and move a trained adapter off its reference."""
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.data = kept[name].to(parameter.device)


def run_sft(step: SftStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one SftStep: guards, training (resumed where it was interrupted), the adapter and its history."""
    started = time.monotonic()
    examples = read_rows(folder / step.examples, Example)
    if not examples:
        raise GuardError(f"{step.examples} holds no examples, so there is nothing to train on; look at what curation dropped")
    set_seed(step.seed)
    student = _student(step, folder)
    rows = [_row(student, each, verdict_weight=step.recipe.verdict_weight) for each in examples]
    guards = _preflight(step, student, examples, [row.tokens for row in rows])
    order = WindowOrder([len(row.tokens.ids) for row in rows], window=step.recipe.effective_batch, seed=step.seed)
    steps = order.steps_for(epochs=step.recipe.epochs, steps=step.steps, tokens=step.tokens)
    out, identity = folder / step.out, step_identity(step)
    work = out.with_name(f".{out.name}.work")
    callbacks = [MarkComplete(identity=identity, notes=dict), TellProgress(report)]
    trainer = WeightedSftTrainer(student=student, rows=rows, order=order, args=_arguments(step, work, steps), callbacks=callbacks)
    checkpoint = newest_complete(work, identity=identity)
    trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    history = [{key: log[key] for key in ("step", "raw_loss", "learning_rate")} for log in trainer.state.log_history if "raw_loss" in log]
    curve = [{"step": log["step"], "loss": log["raw_loss"], "lr": log["learning_rate"]} for log in history]
    save_trained(student.model, out, curve=curve, arms=[each.arm for each in examples], rows=[row.tokens for row in rows])
    shutil.rmtree(work, ignore_errors=True)
    trainable = sum(parameter.numel() for parameter in student.model.parameters() if parameter.requires_grad)
    return {
        "examples": len(examples),
        "steps": steps,
        "tokens": order.tokens_in(steps),
        "trainable_parameters": trainable,
        "final_loss": curve[-1]["loss"],
        "history": curve,
        "guards": guards,
        "resumed_from_step": int(checkpoint.folder.name.rpartition("-")[2]) if checkpoint else 0,
        "device": str(student.device),
        "seconds": time.monotonic() - started,
    }


def save_trained(model: Any, out: Path, *, curve: Sequence[dict[str, Any]], arms: Sequence[str], rows: Sequence[Tokens]) -> None:
    """Write adapter and history.json, then put the folder in place at once."""
    partial = out.with_name(f".{out.name}.partial")
    save_adapter(model, partial)
    longest = {arm: max(row.completion for row, own in zip(rows, arms, strict=True) if own == arm) for arm in sorted(set(arms))}
    (partial / HISTORY).write_text(json.dumps({"history": list(curve), "completion_tokens": longest}, indent=1), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _row(student: Student, example: Example, *, verdict_weight: float) -> SftRow:
    tokens = tokenize_example(student.tokenizer, prompt=example.prompt, completion=example.completion)
    return SftRow(tokens, weight=example.weight, verdict_weight=verdict_weight if example.answer else 1.0)


def _student(step: SftStep, folder: Path) -> Student:
    student = load_student(step.weights, folder=folder, device=step.machine.device, trainable=True)
    return student if step.weights.adapter else Student(add_new_adapter(student.model, step.recipe.lora), student.tokenizer)


def _preflight(step: SftStep, student: Student, examples: Sequence[Example], rows: Sequence[Tokens]) -> dict[str, Any]:
    """All guards that need no training; returns what they saw."""
    same_prompts(rows, [each.prompt for each in examples], student.tokenizer)
    longest = labels_survive(rows, [each.answer for each in examples], max_length=step.recipe.max_length, setting="recipe.sft.max_length")
    probe = pad_right(sorted(rows, key=lambda row: len(row.ids))[:PROBE_ROWS], pad=int(student.tokenizer.pad_token_id))
    return {
        "lora_families": lora_coverage(student.model),
        "longest_row": longest,
        "four_bit_layers": four_bit(student.model) if step.weights.quantization == "nf4" else 0,
        "lora_matrices_with_gradient": gradients_flow(student.model, {name: tensor.to(student.device) for name, tensor in probe.items()}),
    }


def _arguments(step: SftStep, work: Path, steps: int) -> SFTConfig:
    recipe = step.recipe
    return SFTConfig(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=step.machine.device_batch,
        gradient_accumulation_steps=recipe.effective_batch // step.machine.device_batch,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(recipe.warmup * steps),
        adam_beta2=0.98,  # a run of a few hundred steps never fills a 0.999 memory (ALGORITHMS 4)
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        **trainer_settings(gradient_checkpointing=step.machine.gradient_checkpointing, device=step.machine.device, seed=step.seed),
    )


def trainer_settings(*, gradient_checkpointing: bool, device: str, seed: int) -> dict[str, Any]:
    """What both trainers share. Mixed precision is off: weights are already bfloat16 (or 4-bit) and adapters stay float32."""
    return {
        "optim": "adamw_torch",
        "bf16": False,
        "gradient_checkpointing": gradient_checkpointing,
        "use_cpu": device == "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "report_to": [],
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
    }
