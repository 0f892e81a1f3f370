"""The order in which training sees its rows: windows of one optimiser step each.

Which rows share a step is drawn at random from seed and epoch; only inside a window are they sorted by length, so that micro-batches carry
little padding while the objective of every step is that of a random batch, however the window is cut.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Sampler

R = TypeVar("R")


class WindowOrder(Sampler[int]):
    """Row indices of one epoch after another; `set_epoch` is called by accelerate's loader."""

    def __init__(self, lengths: Sequence[int], *, window: int, seed: int) -> None:
        self.lengths = lengths
        self.window = window
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return (index for window in self.windows(self.epoch) for index in window)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs through."""
        self.epoch = epoch

    def windows(self, epoch: int) -> list[list[int]]:
        """Rows of each optimiser step of an epoch; the last window may be shorter."""
        rows = list(range(len(self.lengths)))
        random.Random(self.seed * 1_000_003 + epoch).shuffle(rows)
        cut = [rows[start : start + self.window] for start in range(0, len(rows), self.window)]
        return [sorted(window, key=lambda index: -self.lengths[index]) for window in cut]

    def steps_for(self, *, epochs: int, steps: int | None, tokens: int | None) -> int:
        """Optimiser steps of a run: exactly `steps`, or as many as it takes to see `tokens` tokens, or all of `epochs`."""
        if steps is not None:
            return steps
        if tokens is None:
            return epochs * math.ceil(len(self.lengths) / self.window)
        return sum(1 for _ in self._until(tokens))

    def tokens_in(self, steps: int) -> int:
        """Tokens that the first `steps` optimiser steps see, padding not counted."""
        windows = self._endless()
        return sum(next(windows) for _ in range(steps))

    def _until(self, tokens: int) -> Iterator[int]:
        seen = 0
        for size in self._endless():
            if seen >= tokens:
                return
            seen += size
            yield size

    def _endless(self) -> Iterator[int]:
        epoch = 0
        while True:
            yield from (sum(self.lengths[index] for index in window) for window in self.windows(epoch))
            epoch += 1


class WindowFeed(Generic[R]):
    """Mix-in for a Trainer: feeds it `rows` in a WindowOrder, through the public `get_train_dataloader`."""

    rows: Sequence[R]
    order: WindowOrder
    accelerator: Any
    args: Any
    data_collator: Any

    def get_train_dataloader(self) -> Any:
        """Micro-batches of the device batch size, in the window order."""
        loader: DataLoader[R] = DataLoader(
            self.rows,  # type: ignore[arg-type]
            batch_size=self.args.per_device_train_batch_size,
            sampler=self.order,
            collate_fn=self.data_collator,
        )
        return self.accelerator.prepare(loader)
