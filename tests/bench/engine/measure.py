"""Time and memory of one process on one GPU."""

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

GIB = 2**30
CAP_GIB = (8188 - 600) / 1024  # an RTX 4060's memory less what the CUDA context and the desktop take: 7.41
Row = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """Seconds of each measured optimiser step, the reference pass's seconds a pair where it is not part of the step, and how it was computed."""

    steps: list[float]
    reference: float = 0.0
    counted: float | None = None  # GiB of the peak by the fit oracle, where there is one
    how: str = ""

    @property
    def step(self) -> float:
        return statistics.median(self.steps)


@dataclass(frozen=True)
class Generated:
    """Seconds of generating for all prompts, prefill included, and of the prefill (with the first token) alone."""

    total: float
    prefill: float


def now() -> float:
    """The time once the device has done all it was told to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], object]) -> float:
    started = now()
    work()
    return now() - started


def timed_steps(step: Callable[[], object], *, warm: int, steps: int) -> list[float]:
    """Seconds of each of `steps` calls that follow `warm` calls."""
    return [timed(step) for _ in range(warm + steps)][warm:]


def hold_to_8gb() -> None:
    """From here on the allocator refuses what an 8 GB card would not have, and cuBLAS works in what it takes there (8 MiB; 32 on Hopper)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP_GIB * GIB / torch.cuda.get_device_properties(0).total_memory))


def peaks() -> Row:
    """Of the whole process so far, the making of the model included."""
    if not torch.cuda.is_available():
        return {"peak_gib": None, "reserved_gib": None}
    return {"peak_gib": torch.cuda.max_memory_allocated() / GIB, "reserved_gib": torch.cuda.max_memory_reserved() / GIB}


def guarded(reading: Callable[[], Row], *, capped: bool) -> Row:
    """What the reading found and its peaks. A lack of memory or of an implementation is a result; any other error is raised."""
    if capped:
        hold_to_8gb()
    started = time.perf_counter()
    try:
        found = reading()
    except NotImplementedError as error:
        found = {"error": f"not there yet: {error}"}
    except RuntimeError as error:  # torch.OutOfMemoryError is one; a library's own allocation fails with a plain one
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error).lower():
            raise
        found = {"error": "OOM"}
    gc.collect()
    found |= peaks()
    if found.get("counted_gib") and found["peak_gib"]:
        found["off_percent"] = abs(found["counted_gib"] / found["peak_gib"] - 1) * 100
    return {**found, "wall": time.perf_counter() - started}
