"""Several processes doing one step together, one a GPU. torchrun starts them, accelerate connects them; here is who does what.

Everything below means nothing in a single process, and costs nothing there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number; number 0 writes files and tells of progress."""
    return int(os.environ.get("RANK", "0"))


def connect(*, cpu: bool) -> None:
    """Join the others; must come before anything else that talks to them."""
    if world() > 1:
        from accelerate import PartialState

        PartialState(cpu=cpu, backend="gloo" if cpu else "nccl")


def wait() -> None:
    """Go on when all have come here."""
    if world() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def share(items: Sequence[T]) -> list[T]:
    """This process's part of a list: every n-th, so that parts are alike."""
    return list(items[rank() :: world()])


def join(part: Sequence[T]) -> list[T]:
    """The list whose `share`s all processes give, in every process."""
    if world() == 1:
        return list(part)
    from accelerate.utils import gather_object

    parts: list[Any] = gather_object([list(part)])
    joined: list[Any] = [None] * sum(map(len, parts))
    for number, own in enumerate(parts):
        joined[number :: world()] = own
    return joined


def any_of(said: bool) -> bool:
    """Whether any process says so. The hosts ask each other, so that no GPU is waited for."""
    if world() == 1:
        return said
    import torch

    flag = torch.tensor(float(said))
    torch.distributed.all_reduce(flag, group=_hosts())
    return bool(flag)


@cache
def _hosts() -> Any:
    import torch

    return torch.distributed.new_group(backend="gloo")
