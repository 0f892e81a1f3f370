"""The order in which training sees its rows: windows of one optimiser step each, drawn at random from seed and epoch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler


class WindowOrder(Sampler[list[int]]):
    """Row indices of each optimiser step, one epoch after another; `set_epoch` is called by the trainer."""

    def __init__(self, sizes: Sequence[int], *, window: int, seed: int) -> None:
        self.sizes = sizes  # tokens of each row
        self.window = window
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(len(self.sizes) / self.window)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.windows(self.epoch))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs through."""
        self.epoch = epoch

    def windows(self, epoch: int) -> list[list[int]]:
        """Rows of each optimiser step of an epoch; the last window may be shorter."""
        rows = list(range(len(self.sizes)))
        random.Random(self.seed * 1_000_003 + epoch).shuffle(rows)
        return [rows[start : start + self.window] for start in range(0, len(rows), self.window)]

    def steps_for(self, *, epochs: int, steps: int | None, tokens: int | None) -> int:
        """Optimiser steps of a run: exactly `steps`, or as many as it takes to see `tokens` tokens, or all of `epochs`."""
        if steps is not None:
            return steps
        if tokens is None:
            return epochs * len(self)
        return sum(1 for _ in self._until(tokens))

    def tokens_in(self, steps: int) -> int:
        """Tokens that the first `steps` optimiser steps see."""
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
            yield from (sum(self.sizes[index] for index in window) for window in self.windows(epoch))
            epoch += 1
