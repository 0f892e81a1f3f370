"""Looking ahead: what a run would find stored and what it would have to make, without making it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from tasks.contracts.asks import Estimate


@dataclass
class Foreseen:
    """What a run would find, gathered instead of running: stages in order (label, stored or not, seconds it took), and the teacher's cost."""

    stages: list[tuple[str, bool, float]] = field(default_factory=list)
    estimate: Estimate | None = None


_foreseen: ContextVar[Foreseen | None] = ContextVar("foreseen", default=None)


def foreseen() -> Foreseen | None:
    """Where to note what would happen, while `foresee` is on; None in a real run."""
    return _foreseen.get()


@contextmanager
def foresee() -> Iterator[Foreseen]:
    """While the block runs, stages look up what is stored and compute nothing. What is not stored has a ref without a digest; reading it raises NotYet."""
    made = Foreseen()
    token = _foreseen.set(made)
    try:
        yield made
    finally:
        _foreseen.reset(token)
