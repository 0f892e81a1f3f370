"""One AlignStep: guards, all phases of preference training, and the choice of the best epoch on dev."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed
from trl.trainer.dpo_config import DPOConfig

from tasks.contracts.artifacts import read_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.jobs import AlignStep
from tasks.contracts.rows import Exam, Pair, Verdict
from tasks.logic.answers import parse_verdict
from tasks.training.alarms import EpochFigures, alarms
from tasks.training.checkpoints import MarkComplete, SaveOften, TellProgress, full_disk_explained, newest_complete
from tasks.training.completions import score_completions, scored_tokens
from tasks.training.engine import Engine, prepare
from tasks.training.generation import answer
from tasks.training.guards import four_bit, gradients_flow, lora_coverage, one_reference, packing_is_exact, same_prompts, starts_at_reference, verdicts_fit
from tasks.training.order import WindowOrder
from tasks.training.preference_trainer import PairRow, PreferenceTrainer
from tasks.training.processes import join, rank, share, wait
from tasks.training.progress import Report
from tasks.training.reference import fits, tokenize_pairs
from tasks.training.results import step_identity
from tasks.training.sft import resume, save_trained, trainer_settings
from tasks.training.student import Student, load_student, save_adapter

PROBE_PAIRS = 32
FIGURES = ("a", "b", "gap", "chosen_shift", "chosen_logp", "reward_accuracy", "trust", "mean_gap")


@dataclass(frozen=True)
class Candidate:
    """One epoch's adapter and how it answered the exams; epoch 0 is the start."""

    epoch: int
    correct: int
    unparsed: int
    n: int


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
    guards = _preflight(step, student, pairs, rows, exams)
    out, identity = folder / step.out, step_identity(step)
    work = out.with_name(f".{out.name}.work")
    order = WindowOrder([row.bundle.size for row in rows], window=step.recipe.effective_batch, seed=step.seed)
    steps = order.steps_for(epochs=sum(phase.epochs for phase in step.recipe.phases), steps=None, tokens=None)
    engine, fit = prepare(student, step.machine, steps=steps, order=order, bundles=[row.bundle for row in rows], dropout=False)
    selection = Selection(step, student, exams, work, report, engine)
    # Selection comes before the marker: an epoch counts once its adapter is saved and examined.
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
    trainer.add_callback(MarkComplete(identity=identity, notes=lambda: {**trainer.notes(), "selection": selection.table()}))
    checkpoint = newest_complete(work, identity=identity)
    if checkpoint is not None:
        trainer.restore(checkpoint.notes)
        selection.restore(checkpoint.notes)
    with full_disk_explained(work):
        if checkpoint is None:
            selection.examine(0)
        resume(trainer, checkpoint)
    logs = [log for log in trainer.state.log_history if "raw_loss" in log]
    curve = [{"step": log["step"], "loss": log["raw_loss"], "lr": log["learning_rate"], **{name: log[name] for name in FIGURES if name in log}} for log in logs]
    kept = selection.best()
    chosen = load_kept(student, selection.folder(kept))
    save_trained(chosen, out, curve=curve, arms=[pair.arm for pair in pairs], rows=[row.chosen for row in rows])
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
        "machine": trainer.how(fit),
        "resumed_from_step": checkpoint.step if checkpoint else 0,
        "device": str(student.device),
        "seconds": time.monotonic() - started,
    }


class Selection(TrainerCallback):
    """Examines the adapter after every epoch and remembers each, so that the best can be kept."""

    def __init__(self, step: AlignStep, student: Student, exams: Sequence[Exam], work: Path, report: Report, engine: Engine) -> None:
        self.step = step
        self.student = student
        self.exams = exams
        self.work = work
        self.report = report
        self.candidates: list[Candidate] = []
        self.engine = engine

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer, before it saves its checkpoint."""
        self.examine(len(self.candidates))

    def examine(self, epoch: int) -> None:
        """Save the adapter as it is now and let it answer the exams greedily."""
        if rank() == 0:
            save_adapter(self.student.model, self.folder(epoch))
        self.engine.forget()  # answering needs the room that recordings hold
        completions = answer(
            self.student,
            share(self.exams),
            max_new_tokens=self.step.exam_max_new_tokens,
            temperature=0.0,
            seed=self.step.seed,
            batch_size=self.step.machine.generate_batch,
            compiling=self.step.machine.compile,
            report=lambda done, total, note: self.report(done, total, f"dev after epoch {epoch}: {note}"),
        )
        completions = join(completions)
        verdicts = [parse_verdict(completion.text, cut=completion.cut) for completion in completions]
        correct = sum(verdict.value == exam.answer for verdict, exam in zip(verdicts, self.exams, strict=True))
        self.candidates.append(Candidate(epoch, correct, verdicts.count(Verdict.UNPARSED), len(self.exams)))

    def best(self) -> int:
        """The epoch to keep: most exams right, the earlier of equals; the last one where there are no exams."""
        if not self.exams:
            return self.candidates[-1].epoch
        return max(self.candidates, key=lambda each: (each.correct, -each.epoch)).epoch

    def folder(self, epoch: int) -> Path:
        """Where an epoch's adapter is kept while training runs."""
        return self.work / f"epoch-{epoch}"

    def restore(self, notes: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's notes."""
        self.candidates = [Candidate(**each) for each in notes["selection"]]

    def table(self) -> list[dict[str, Any]]:
        """The candidates as plain values."""
        return [asdict(each) for each in self.candidates]


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


def load_kept(student: Student, adapter: Path) -> Any:
    """The student with the weights of a saved adapter in place of its present ones."""
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(student.model, load_peft_weights(str(adapter), device=str(student.device)), adapter_name="default")
    return student.model


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


def _preflight(step: AlignStep, student: Student, pairs: Sequence[Pair], rows: Sequence[PairRow], exams: Sequence[Exam]) -> dict[str, Any]:
    """All guards that need no training; returns what they saw."""
    longest = fits([each for row in rows for each in (row.chosen, row.rejected)], pairs, max_length=step.recipe.max_length)
    same_prompts([row.chosen for row in rows], [pair.prompt for pair in pairs], student.tokenizer)
    completions = {arm: max(row.chosen.completion for row, pair in zip(rows, pairs, strict=True) if pair.arm == arm) for arm in {pair.arm for pair in pairs}}
    verdicts_fit(completions, [exam.arm for exam in exams if not exam.yes_choices], max_new_tokens=step.exam_max_new_tokens)
    shortest = min(rows, key=lambda row: len(row.chosen.ids))
    return {
        "lora_families": lora_coverage(student.model),
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
        **trainer_settings(device=step.machine.device, seed=step.seed, window=recipe.effective_batch),
    )
