"""Supervised fine-tuning: weighted likelihood of completions, on TRL's SFTTrainer."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch import Tensor
from transformers import set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tasks.contracts.artifacts import read_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.jobs import Machine, SftStep
from tasks.contracts.rows import Exam, Example
from tasks.training.checkpoints import Checkpoint, MarkComplete, SaveOften, TellProgress, full_disk_explained, newest_complete
from tasks.training.device import choose_device
from tasks.training.engine import Engine, prepare
from tasks.training.generation import HISTORY
from tasks.training.guards import (
    Allowed,
    four_bit,
    gradients_flow,
    labels_survive,
    lora_coverage,
    no_label_in_prompt,
    packing_is_exact,
    same_prompts,
    verdicts_fit,
)
from tasks.training.memory import Fit
from tasks.training.order import WindowOrder
from tasks.training.packing import Bundle, Packed, pack
from tasks.training.processes import rank, wait
from tasks.training.progress import Report
from tasks.training.results import step_identity
from tasks.training.selection import Selection
from tasks.training.student import Student, add_new_adapter, load_student, save_adapter
from tasks.training.tokens import Tokens, tokenize_example
from tasks.training.windows import LogWhenDue, WindowTrainer

PROBE_ROWS = 2
PATIENCE = 2  # epochs without a better one on dev after which training ends
VERDICT_TOKENS = 2  # the word that ends a completion, and the end token


@dataclass(frozen=True)
class SftRow:
    """A tokenised example and its weight; `key` names it in the table."""

    tokens: Tokens
    weight: float
    verdict_weight: float  # factor on the verdict and the end token after it; 1 where there is no verdict
    reasoning_factor: float  # factor on everything before these two
    key: int

    @property
    def bundle(self) -> Bundle:
        """What is computed of it."""
        return Bundle.of(self.tokens, key=self.key)

    @property
    def token_weights(self) -> list[float]:
        """One a scored token."""
        plain = self.tokens.completion - (self.tokens.prompt == 0) - VERDICT_TOKENS
        return [self.weight * self.reasoning_factor] * plain + [self.weight * self.verdict_weight] * VERDICT_TOKENS


class SftBatch(NamedTuple):
    """A micro-batch and the weight of each scored token [N]."""

    packed: Packed
    weights: Tensor


class WeightedSftTrainer(WindowTrainer[SftRow], SFTTrainer):
    """SFTTrainer whose loss is sum(weight * nll) / sum(weight) over all completion tokens of the whole optimiser step."""

    def __init__(
        self, *, engine: Engine, student: Student, rows: Sequence[SftRow], order: WindowOrder, fit: Fit, args: SFTConfig, callbacks: Sequence[Any]
    ) -> None:
        self.engine, self.rows, self.order, self.budget = engine, rows, order, fit.tokens
        kept = {name: parameter.detach().clone() for name, parameter in student.model.named_parameters() if parameter.requires_grad}
        super().__init__(
            model=student.model,
            args=args,
            train_dataset=Dataset.from_dict({"row": list(range(len(rows)))}),
            processing_class=student.tokenizer,
            callbacks=list(callbacks),
        )
        restore_precision(student.model, kept)
        self.add_callback(LogWhenDue(self))

    def row_bundle(self, row: SftRow) -> Bundle:
        """What is computed of a row."""
        return row.bundle

    def row_weight(self, row: SftRow) -> float:
        """Summed weight of its scored tokens."""
        return sum(row.token_weights)

    def collate(self, rows: Sequence[SftRow]) -> SftBatch:
        """Rows as one micro-batch on the host."""
        return SftBatch(self.engine.stage(pack([row.bundle for row in rows])), torch.tensor([weight for row in rows for weight in row.token_weights]))

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Tensor | float | None = None) -> Tensor:
        """This micro-batch's share of the step's loss, in nats per weighted token."""
        per_token: Tensor = self.engine.log_probs(inputs.packed)
        weights: Tensor = self.engine.send(inputs.weights)
        return -(per_token * weights).sum() / (weights.sum() if num_items_in_batch is None else num_items_in_batch)


def restore_precision(model: Any, kept: dict[str, Tensor]) -> None:
    """Undo TRL's cast of adapters on 4-bit students to bfloat16: it would lose small updates, and move a trained adapter off its reference."""
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.data = kept[name].to(parameter.device)


def run_sft(step: SftStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one SftStep: guards, training (resumed where it was interrupted), the adapter and its history."""
    started = time.monotonic()
    examples, exams = read_rows(folder / step.examples, Example), read_rows(folder / step.exams, Exam) if step.exams else []
    if not examples:
        raise GuardError(f"{step.examples} holds no examples, so there is nothing to train on; look at what curation dropped")
    set_seed(step.seed)
    student = _student(step, folder)
    rows = [_row(student, each, verdict_weight=step.recipe.verdict_weight, key=key) for key, each in enumerate(examples)]
    allowed = Allowed(step.allow)
    guards = _preflight(step, student, examples, [row.tokens for row in rows], exams, allowed)
    order = WindowOrder([row.bundle.size for row in rows], window=step.recipe.effective_batch, seed=step.seed)
    steps = order.steps_for(epochs=step.recipe.epochs, steps=step.steps, tokens=step.tokens)
    out, identity = folder / step.out, step_identity(step)
    work = out.with_name(f".{out.name}.work")
    engine, fit = prepare(student, step.machine, steps=steps, order=order, bundles=[row.bundle for row in rows], dropout=step.recipe.lora.dropout > 0)
    patience = PATIENCE if step.steps is None and step.tokens is None else None  # a run as long as another one is not cut short
    selection = Selection(step, exams, student=student, engine=engine, work=work, report=report, epoch_steps=len(order), patience=patience)
    trainer = WeightedSftTrainer(
        engine=engine,
        student=student,
        rows=rows,
        order=order,
        fit=fit,
        args=_arguments(step, work, steps),
        callbacks=[selection, SaveOften(len(order)), MarkComplete(identity=identity, notes=selection.notes), TellProgress(report)],
    )
    checkpoint = newest_complete(work, identity=identity)
    if checkpoint is not None:
        selection.restore(checkpoint.notes)
    with full_disk_explained(work):
        resume(trainer, checkpoint, finished=selection.finished)
        done = min(trainer.state.global_step, steps)
        kept = selection.keep()
        logs = [log for log in trainer.state.log_history if "raw_loss" in log and log["step"] <= done]
        curve = [{"step": log["step"], "loss": log["raw_loss"], "lr": log["learning_rate"]} for log in logs]
        save_trained(student.model, out, curve=curve, arms=[each.arm for each in examples], rows=[row.tokens for row in rows])
    wait()
    if rank() == 0:
        shutil.rmtree(work, ignore_errors=True)
    trainable = sum(parameter.numel() for parameter in student.model.parameters() if parameter.requires_grad)
    return {
        "examples": len(examples),
        "steps": done,
        "tokens": order.tokens_in(done),
        "trainable_parameters": trainable,
        "final_loss": curve[-1]["loss"],
        "history": curve,
        "selection": selection.table(),
        "kept_epoch": kept,
        "guards": guards,
        "allowed": allowed.found,
        "machine": trainer.how(fit),
        "resumed_from_step": checkpoint.step if checkpoint else 0,
        "device": str(student.device),
        "seconds": time.monotonic() - started,
    }


def resume(trainer: Any, checkpoint: Checkpoint | None, *, finished: bool) -> None:
    """Train, from the checkpoint where there is one; no step more where training had `finished` early by then.

    The order starts at the checkpoint's epoch: not every trainer says so when it skips into one.
    """
    if checkpoint is not None:
        trainer.order.set_epoch(checkpoint.step // len(trainer.order))
        if finished:
            trainer.args.max_steps = checkpoint.step
    trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)


def save_trained(model: Any, out: Path, *, curve: Sequence[dict[str, Any]], arms: Sequence[str], rows: Sequence[Tokens]) -> None:
    """Write adapter and history.json, then put the folder in place at once."""
    if rank() != 0:
        return
    partial = out.with_name(f".{out.name}.partial")
    save_adapter(model, partial)
    history = {"history": list(curve), "completion_tokens": longest_completions(arms, rows)}
    (partial / HISTORY).write_text(json.dumps(history, indent=1), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def longest_completions(arms: Sequence[str], rows: Sequence[Tokens]) -> dict[str, int]:
    """Tokens of the longest completion of each arm, the end token included; `arms` has one name a row."""
    return {arm: max(row.completion for row, own in zip(rows, arms, strict=True) if own == arm) for arm in sorted(set(arms))}


def _row(student: Student, example: Example, *, verdict_weight: float, key: int) -> SftRow:
    tokens = tokenize_example(student.tokenizer, prompt=example.prompt, completion=example.completion)
    return SftRow(
        tokens,
        weight=example.weight,
        verdict_weight=verdict_weight * example.verdict_factor if example.answer else 1.0,
        reasoning_factor=example.reasoning_factor,
        key=key,
    )


def _student(step: SftStep, folder: Path) -> Student:
    student = load_student(step.weights, folder=folder, device=step.machine.device, trainable=True)
    return student if step.weights.adapter else Student(add_new_adapter(student.model, step.recipe.lora), student.tokenizer)


def _preflight(step: SftStep, student: Student, examples: Sequence[Example], rows: Sequence[Tokens], exams: Sequence[Exam], allowed: Allowed) -> dict[str, Any]:
    """All guards that need no training; returns what they saw."""
    prompts, classes = [each.prompt for each in examples], [each.answer for each in examples]
    same_prompts(rows, prompts, student.tokenizer)
    no_label_in_prompt(prompts, classes, allowed=allowed)
    verdicts_fit(
        longest_completions([each.arm for each in examples], rows),
        [exam.arm for exam in exams if not exam.yes_choices],
        max_new_tokens=step.exam_max_new_tokens,
        allowed=allowed,
    )
    longest = labels_survive(rows, classes, max_length=step.recipe.max_length, setting="recipe.sft.max_length")
    probe = [Bundle.of(row) for row in sorted(rows, key=lambda row: len(row.ids))[:PROBE_ROWS]]
    return {
        "lora_families": lora_coverage(student.model, allowed=allowed),
        "longest_row": longest,
        "four_bit_layers": four_bit(student.model) if step.weights.quantization == "nf4" else 0,
        "packing_error": packing_is_exact(student.model, probe),
        "lora_matrices_with_gradient": gradients_flow(student.model, probe),
    }


def _arguments(step: SftStep, work: Path, steps: int) -> SFTConfig:
    recipe = step.recipe
    return SFTConfig(
        output_dir=str(work),
        max_steps=steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(recipe.warmup * steps),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        **trainer_settings(step.machine, name=step.name, seed=step.seed, window=recipe.effective_batch),
    )


def trainer_settings(machine: Machine, *, name: str, seed: int, window: int) -> dict[str, Any]:
    """What both trainers share. Mixed precision is off: weights are already bfloat16 (or 4-bit) and adapters stay float32.

    `machine.report_to` names experiment trackers, which are told every logged step of the run `name`; they keep their own settings and keys.
    """
    device = choose_device(machine.device).type
    return {
        "per_device_train_batch_size": window,  # a batch of the trainer is a whole window; how it is cut is ours
        "gradient_accumulation_steps": 1,
        "adam_beta2": 0.98,  # a run of a few hundred steps never fills a 0.999 memory, and a doubled beta doubles raw gradients (ALGORITHMS 4)
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused" if device == "cuda" else "adamw_torch",
        "bf16": False,
        "gradient_checkpointing": False,  # layers that are computed again do so by themselves
        "use_cpu": device == "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "epoch",
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,
        "report_to": list(machine.report_to),
        "project": "socratune",
        "run_name": name,
        "trackio_static_space_id": False,  # nothing goes to the Hub by itself
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
    }
