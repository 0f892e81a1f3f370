"""Training one window at a time: a window is the rows of one optimiser step, however much of it the machine can take at once.

Which rows share a step is drawn at random from seed and epoch. Inside, they are cut into micro-batches of a token budget; every loss is divided
by the window's total weight, so that the objective of a step is the same however it is cut, and over however many processes it is spread.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from tasks.contracts.failures import GuardError
from tasks.training.engine import Engine
from tasks.training.memory import GIB, Fit
from tasks.training.order import WindowOrder
from tasks.training.packing import Bundle, split
from tasks.training.processes import any_of

logger = logging.getLogger(__name__)
R = TypeVar("R")
LOOK_SECONDS = 2.0  # between two looks at a GPU's figures: it stands still meanwhile, for 4 % of a step of a third of a second


class Window(NamedTuple, Generic[R]):
    """The rows of one optimiser step, and this process's micro-batches of them under a token budget."""

    rows: Sequence[R]
    budget: int
    batches: list[Any]


class Unread(NamedTuple):
    """What an optimiser step left on the device: its loss, and a subclass's note."""

    step: int
    learning_rate: float
    loss: Tensor
    note: Any


class WindowTrainer(ABC, Generic[R]):
    """Mix-in for a Trainer: feeds it whole windows, and does each in as many micro-batches as the budget asks for.

    A subclass says what of a row is computed and what it weighs (`row_bundle`, `row_weight`), how rows become a batch (`collate`), and what a
    batch costs (`compute_loss`). The figures of every step are logged, but a GPU's are read only now and then (`LogWhenDue`).
    """

    rows: Sequence[R]
    order: WindowOrder
    engine: Engine
    budget: int  # tokens a micro-batch; halved where memory runs out
    halvings: int = 0
    _warm: bool = False
    _unread: Sequence[Unread] = ()
    _read: Sequence[dict[str, Any]] = ()
    accelerator: Any
    args: Any
    state: Any
    compute_loss: Any
    optimizer: Any
    get_optimizer_cls_and_kwargs: Any
    loss_is_scaled_for_ga: Any = True  # the window's weight is divided by, so nothing must be divided again

    @abstractmethod
    def row_bundle(self, row: R) -> Bundle:
        """What is computed of a row."""

    @abstractmethod
    def row_weight(self, row: R) -> float:
        """The row's part of the total that its window's loss is divided by."""

    @abstractmethod
    def collate(self, rows: Sequence[R]) -> Any:
        """Rows as one micro-batch on the host."""

    def get_train_dataloader(self) -> Any:
        """One window after another, the same in every process: each takes its own micro-batches of it."""
        return _Loader(self.rows, batch_sampler=self.order, collate_fn=self.cut)  # type: ignore[arg-type]

    def create_optimizer(self, *_: Any) -> Any:
        """The optimiser that the arguments name, over all adapter weights as one parameter; every element gets what it would get alone."""
        if self.optimizer is None:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = kind([self.engine.whole], **{**settings, "weight_decay": self.args.weight_decay})
        return self.optimizer

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the trainer would look for padded ids."""
        return 0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Forward and backward of one window; returns its loss. Where memory runs out, in any process, the budget halves and the window starts again."""
        model.train()
        while True:
            self.engine.start(seed=self.args.seed, step=self.state.global_step)
            loss = self._attempt(model, inputs)
            short = any_of(loss is None)
            self.engine.finish()
            if loss is not None and not short:
                loss = self._joined(loss)
                self._unread = [*self._unread, Unread(self.state.global_step + 1, self.optimizer.param_groups[0]["lr"], loss, self.note())]
                return loss
            if self.budget <= max(self.order.sizes):
                raise GuardError(
                    "GPU memory runs out even with one row at a time: set execution.train.recompute to always, or use shorter rows (max_length) "
                    "or a smaller student. What was trained so far is kept"
                )
            self.budget //= 2
            self.halvings += 1
            logger.warning("GPU memory ran out; micro-batches have at most %d tokens from here on. The objective stays the same", self.budget)
            self.engine.forget()

    def note(self) -> Any:
        """What of the step just done `figures` is to be told, left where it is."""
        return None

    def figures(self, note: Any) -> dict[str, float]:
        """What is logged of a step beside its loss. Called once for every step, in order, in all processes at once."""
        return {}

    def read(self) -> None:
        """Read what steps left on the device, which waits for it."""
        steps, self._unread = self._unread, ()
        read = [{"step": each.step, "learning_rate": each.learning_rate, "raw_loss": float(each.loss), **self.figures(each.note)} for each in steps]
        self._read = [*self._read, *read]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log every step since the last time: its unrounded loss and its figures, in nats."""
        if "loss" in logs:
            self.read()
            *before, last = self._read
            self._read = ()
            self.state.log_history.extend(before)
            logs = {**logs, **{name: value for name, value in last.items() if name != "step"}}
        super().log(logs, start_time)  # type: ignore[misc]

    def cut(self, rows: Sequence[R]) -> Window[R]:
        """A window as this process's micro-batches of it, ready on the host. Runs beside the training, which may halve the budget meanwhile."""
        budget, processes, rank = self.budget, self.accelerator.num_processes, self.accelerator.process_index
        groups = split([self.row_bundle(row).size for row in rows], budget=budget, parts=processes)[rank::processes]
        return Window(rows, budget, [self.collate([rows[index] for index in group]) for group in groups if group])

    def _attempt(self, model: Any, window: Window[R]) -> Tensor | None:
        """This process's part of a window's loss, with its gradients; None where memory ran out."""
        try:
            if not self._warm:
                self.engine.bind()
                self.engine.start(seed=self.args.seed, step=self.state.global_step)
                self.engine.warm(self._largest())
                self.engine.start(seed=self.args.seed, step=self.state.global_step)
                self._warm = True
            return self._window(model, window if window.budget == self.budget else self.cut(window.rows))
        except torch.OutOfMemoryError:
            return None

    def _largest(self) -> list[Bundle]:
        """Rows that fill one micro-batch."""
        picked: list[Bundle] = []
        for row in self.rows[: self.order.window]:
            if picked and sum(each.size for each in picked) + self.row_bundle(row).size > self.budget:
                break
            picked.append(self.row_bundle(row))
        return picked

    def _window(self, model: Any, window: Window[R]) -> Tensor:
        total = max(sum(self.row_weight(row) for row in window.rows), 1e-12)
        loss = torch.zeros((), device=self.args.device)
        for batch in window.batches:
            part = self.compute_loss(model, batch, num_items_in_batch=total)
            self.accelerator.backward(part)
            loss += part.detach()
        self.engine.make_room()
        return loss

    def _joined(self, loss: Tensor) -> Tensor:
        """The window's loss over all processes, whose gradients are summed too."""
        if self.accelerator.num_processes > 1:
            self.engine.flat.copy_(self.accelerator.reduce(self.engine.flat, reduction="sum"))
            loss = self.accelerator.reduce(loss, reduction="sum")
        return loss

    def how(self, fit: Fit) -> dict[str, Any]:
        """How the run was computed, for its record."""
        return {
            "batch_tokens": self.budget,
            "halved_for_memory": self.halvings,
            "recompute": fit.recompute,
            "roomy": fit.roomy,
            "predicted_peak_gib": round(fit.peak / GIB, 2),
            "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2) if self.engine.flat.is_cuda else None,
            "processes": self.accelerator.num_processes,
        }


class LogWhenDue(TrainerCallback):
    """Has a trainer log after a while, at the end of an epoch, before a checkpoint; after every step where that costs nothing."""

    def __init__(self, trainer: WindowTrainer[Any]) -> None:
        self.trainer, self.looked = trainer, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the trainer, after the callbacks that ask for checkpoints. Processes log together: the figures are those of all."""
        often = not self.trainer.engine.fixed
        ends = control.should_save or state.global_step >= state.max_steps or state.global_step % len(self.trainer.order) == 0
        control.should_log = any_of(often or ends or time.monotonic() - self.looked >= LOOK_SECONDS)
        if control.should_log:
            self.looked = time.monotonic()


class _Loader(DataLoader[Any]):
    """A DataLoader that tells its order which epoch begins, and makes the next window while the device is at work on the last one."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]

    def __iter__(self) -> Any:
        windows = super().__iter__()
        with ThreadPoolExecutor(max_workers=1) as beside:
            coming = beside.submit(next, windows, None)
            while (window := coming.result()) is not None:
                coming = beside.submit(next, windows, None)
                yield window
