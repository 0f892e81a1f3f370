"""One AlignStep: guards, all phases of preference training, and the choice of the best epoch on dev."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from trl.trainer.dpo_config import DPOConfig

from tasks.contracts.artifacts import read_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.jobs import AlignStep
from tasks.contracts.rows import Exam, Pair
from tasks.training.alarms import EpochFigures, alarms
from tasks.training.checkpoints import MarkComplete, SaveOften, TellProgress, full_disk_explained, newest_complete
from tasks.training.completions import score_completions, scored_tokens
from tasks.training.engine import prepare
from tasks.training.guards import (
    Allowed,
    four_bit,
    gradients_flow,
    lora_coverage,
    one_reference,
    packing_is_exact,
    same_prompts,
    starts_at_reference,
    verdicts_fit,
)
from tasks.training.order import WindowOrder
from tasks.training.preference_trainer import PairRow, PreferenceTrainer
from tasks.training.processes import rank, wait
from tasks.training.progress import Report
from tasks.training.reference import fits, tokenize_pairs
from tasks.training.results import step_identity
from tasks.training.selection import Candidate, Selection
from tasks.training.sft import longest_completions, resume, save_trained, trainer_settings
from tasks.training.student import Student, load_student

PROBE_PAIRS = 32
FIGURES = ("a", "b", "gap", "chosen_shift", "chosen_logp", "reward_accuracy", "trust", "mean_gap")


def run_align(step: AlignStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one AlignStep; returns curve, selection table, guards and the epoch kept."""
    started = time.monotonic()
    pairs, exams = read_rows(folder / step.pairs, Pair), read_rows(folder / step.exams, Exam)
    if not pairs:
        raise GuardError(f"{step.pairs} holds no pairs; sample more (recipe.pair.samples) or hold more questions out of SFT (recipe.curate.pair_share)")
    one_reference([pair.reference for pair in pairs], expected=step.reference)
    set_seed(step.seed)
    student = load_student(step.weights, folder=folder, device=step.machine.device, trainable=True)
    rows = _rows(student, pairs)
    allowed = Allowed(step.allow)
    guards = _preflight(step, student, pairs, rows, exams, allowed)
    out, identity = folder / step.out, step_identity(step)
    work = out.with_name(f".{out.name}.work")
    order = WindowOrder([row.bundle.size for row in rows], window=step.recipe.effective_batch, seed=step.seed)
    steps = order.steps_for(epochs=sum(phase.epochs for phase in step.recipe.phases), steps=None, tokens=None)
    engine, fit = prepare(student, step.machine, steps=steps, order=order, bundles=[row.bundle for row in rows], dropout=False)
    selection = Selection(step, exams, student=student, engine=engine, work=work, report=report, epoch_steps=len(order), patience=None)
    trainer = PreferenceTrainer(
        engine=engine,
        student=student,
        rows=rows,
        order=order,
        fit=fit,
        recipe=step.recipe,
        args=_arguments(step, work, steps),
        callbacks=[selection, SaveOften(len(order)), TellProgress(report)],
    )
    trainer.add_callback(MarkComplete(identity=identity, notes=lambda: {**trainer.notes(), **selection.notes()}))
    checkpoint = newest_complete(work, identity=identity)
    if checkpoint is not None:
        trainer.restore(checkpoint.notes)
        selection.restore(checkpoint.notes)
    with full_disk_explained(work):
        if checkpoint is None:
            selection.examine(0)
        resume(trainer, checkpoint, finished=selection.finished)
    logs = [log for log in trainer.state.log_history if "raw_loss" in log]
    curve = [{"step": log["step"], "loss": log["raw_loss"], "lr": log["learning_rate"], **{name: log[name] for name in FIGURES if name in log}} for log in logs]
    kept = selection.keep()
    save_trained(student.model, out, curve=curve, arms=[pair.arm for pair in pairs], rows=[row.chosen for row in rows])
    raised = _alarms(trainer, curve, selection.candidates, examined=bool(exams))
    wait()
    if rank() == 0:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "pairs": len(pairs),
        "steps": steps,
        "tokens": order.tokens_in(steps),
        "final_loss": curve[-1]["loss"],
        "history": curve,
        "selection": selection.table(),
        "kept_epoch": kept,
        "alarms": raised,
        "guards": guards,
        "allowed": allowed.found,
        "machine": trainer.how(fit),
        "resumed_from_step": checkpoint.step if checkpoint else 0,
        "device": str(student.device),
        "seconds": time.monotonic() - started,
    }


def _alarms(trainer: PreferenceTrainer, curve: Sequence[dict[str, Any]], candidates: Sequence[Candidate], *, examined: bool) -> list[str]:
    """What went wrong without the loss showing it."""
    epochs = []
    for number, first in enumerate(range(0, len(curve), trainer.steps_per_epoch), start=1):
        points = curve[first : first + trainer.steps_per_epoch]
        seen = [point for point in points if "chosen_shift" in point]  # a window whose pairs are all left out has no figures
        means = {name: sum(point[name] for point in seen) / max(len(seen), 1) for name in ("chosen_shift", "reward_accuracy")}
        epochs.append(EpochFigures(**means, correct=candidates[number].correct))
    lengths = [(row.chosen.completion, row.rejected.completion) for row in trainer.rows]
    gaps = [seen[-1] * sum(pair) / 2 for seen, pair in zip(trainer.margins, lengths, strict=True)]
    return alarms(epochs, start_correct=candidates[0].correct if examined else None, lengths=lengths, gaps=gaps)


def _rows(student: Student, pairs: Sequence[Pair]) -> list[PairRow]:
    tokens = tokenize_pairs(student.tokenizer, pairs)
    return [
        PairRow(
            index=index,
            chosen=tokens[2 * index],
            rejected=tokens[2 * index + 1],
            reference_chosen=pair.reference_chosen,
            reference_rejected=pair.reference_rejected,
            disagreement=pair.disagreement,
            stratum=f"{pair.answer} {pair.kind}",
        )
        for index, pair in enumerate(pairs)
    ]


def _preflight(step: AlignStep, student: Student, pairs: Sequence[Pair], rows: Sequence[PairRow], exams: Sequence[Exam], allowed: Allowed) -> dict[str, Any]:
    """All guards that need no training; returns what they saw."""
    longest = fits([each for row in rows for each in (row.chosen, row.rejected)], pairs, max_length=step.recipe.max_length)
    same_prompts([row.chosen for row in rows], [pair.prompt for pair in pairs], student.tokenizer)
    longest_by_arm = longest_completions([pair.arm for pair in pairs], [row.chosen for row in rows])
    verdicts_fit(longest_by_arm, [exam.arm for exam in exams if not exam.yes_choices], max_new_tokens=step.exam_max_new_tokens, allowed=allowed)
    shortest = min(rows, key=lambda row: len(row.chosen.ids))
    return {
        "lora_families": lora_coverage(student.model, allowed=allowed),
        "longest_row": longest,
        "four_bit_layers": four_bit(student.model) if step.weights.quantization == "nf4" else 0,
        "packing_error": packing_is_exact(student.model, [row.bundle for row in sorted(rows, key=lambda row: row.bundle.size)[:2]]),
        "lora_matrices_with_gradient": gradients_flow(student.model, [shortest.bundle]),
        "start": _start(step, student, rows[:PROBE_PAIRS]),
    }


def _start(step: AlignStep, student: Student, rows: Sequence[PairRow]) -> dict[str, float]:
    """Before the first step the policy is the reference: score the first pairs again."""
    gaps = torch.zeros(len(rows))
    for picked, scored in score_completions(student.model, [row.bundle for row in rows], budget=step.machine.batch_tokens or scored_tokens(student.device)):
        for index, (chosen, rejected) in zip(picked, scored, strict=True):
            gaps[index] = (chosen - rows[index].reference_chosen) - (rejected - rows[index].reference_rejected)
    tokens = torch.tensor([row.chosen.completion + row.rejected.completion for row in rows])
    dtype = torch.float32 if step.weights.dtype == "float32" else torch.bfloat16
    return starts_at_reference(gaps, tokens, beta=step.recipe.phases[0].beta, dtype=dtype)


def _arguments(step: AlignStep, work: Path, steps: int) -> DPOConfig:
    recipe = step.recipe
    return DPOConfig(
        output_dir=str(work),
        max_steps=steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=round(recipe.warmup * steps),
        max_length=None,
        disable_dropout=True,
        **trainer_settings(step.machine, name=step.name, seed=step.seed, window=recipe.effective_batch),
    )
