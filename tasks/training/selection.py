"""The choice of the best epoch: after each one the adapter answers exams as evaluation will ask them, and the best is what a run leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tasks.contracts.jobs import AlignStep, SftStep
from tasks.contracts.rows import Exam, Verdict
from tasks.logic.answers import parse_verdict
from tasks.training.engine import Engine
from tasks.training.generation import answer
from tasks.training.processes import join, rank, share
from tasks.training.progress import ASIDE, Report
from tasks.training.student import ADAPTER, Student, save_adapter


@dataclass(frozen=True)
class Candidate:
    """One epoch's adapter and how it answered the exams; epoch 0 is the start."""

    epoch: int
    correct: int
    yes: int
    unparsed: int
    n: int


class Selection(TrainerCallback):
    """Examines the adapter after every epoch and remembers each, so that the best can be kept. Without exams the last one is.

    `patience` epochs in a row without a better one end the training; None = never. Belongs before the callback that marks checkpoints: an epoch
    counts once its adapter is saved and examined, and the checkpoint's notes say so.
    """

    def __init__(
        self,
        step: AlignStep | SftStep,
        exams: Sequence[Exam],
        *,
        student: Student,
        engine: Engine,
        work: Path,
        report: Report,
        epoch_steps: int,
        patience: int | None,
    ) -> None:
        self.step, self.exams, self.student, self.engine, self.work, self.report = step, exams, student, engine, work, report
        self.epoch_steps, self.patience = epoch_steps, patience
        self.candidates: list[Candidate] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer, before it saves its checkpoint."""
        epoch = math.ceil(state.global_step / self.epoch_steps)
        if epoch not in {each.epoch for each in self.candidates}:  # a run resumed at its very end comes here again
            self.examine(epoch)
        if self.finished:
            control.should_training_stop = True

    def examine(self, epoch: int) -> None:
        """Save the adapter as it is now and let it answer the exams: greedily, or by the log-probability of their choices."""
        if not self.exams:
            self.candidates.append(Candidate(epoch, 0, 0, 0, 0))
            return
        if rank() == 0:
            save_adapter(self.student.model, self._folder(epoch))
        self.engine.forget()  # answering needs the room that recordings hold
        completions = answer(
            self.student,
            share(self.exams),
            max_new_tokens=self.step.exam_max_new_tokens,
            temperature=0.0,
            seed=self.step.seed,
            batch_size=self.step.machine.generate_batch,
            compiling=self.step.machine.compile,
            report=lambda done, total, note: self.report(done, total, f"{ASIDE} {epoch}: {note}"),
        )
        completions = join(completions)
        verdicts = [parse_verdict(completion.text, cut=completion.cut) for completion in completions]
        correct = sum(verdict.value == exam.answer for verdict, exam in zip(verdicts, self.exams, strict=True))
        self.candidates.append(Candidate(epoch, correct, verdicts.count(Verdict.YES), verdicts.count(Verdict.UNPARSED), len(self.exams)))

    @property
    def finished(self) -> bool:
        """Whether training has gone on for `patience` epochs without a better one."""
        return self.patience is not None and bool(self.candidates) and self.candidates[-1].epoch - self.best() >= self.patience

    def best(self) -> int:
        """The epoch to keep: most exams right, the earlier of equals; the last one where there are no exams."""
        if not self.exams:
            return self.candidates[-1].epoch
        return max(self.candidates, key=lambda each: (each.correct, -each.epoch)).epoch

    def keep(self) -> int:
        """Put the best epoch's adapter in place of the present one; returns the epoch."""
        from peft import load_peft_weights, set_peft_model_state_dict

        kept = self.best()
        if self.exams:
            weights = load_peft_weights(str(self._folder(kept)), device=str(self.student.device))
            set_peft_model_state_dict(self.student.model, weights, adapter_name=ADAPTER)
        return kept

    def notes(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, for `restore`."""
        return {"selection": self.table()}

    def restore(self, notes: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's notes."""
        self.candidates = [Candidate(**each) for each in notes["selection"]]

    def table(self) -> list[dict[str, Any]]:
        """The candidates as plain values."""
        return [asdict(each) for each in self.candidates]

    def _folder(self, epoch: int) -> Path:
        """Where an epoch's adapter is kept while training runs."""
        return self.work / f"epoch-{epoch}"
