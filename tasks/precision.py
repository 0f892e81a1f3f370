"""The number format that a student computes in here: `dtype: auto` is what this machine multiplies fast, by a product that was timed once."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.contracts.failures import StudentError

# What makes another processor of this one, for torch and its libraries; the same names are what an old processor is imitated with.
_DECIDING = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "CUDA_VISIBLE_DEVICES")
SLOWER = 10.0  # times, from which a number format that somebody asked for is worth a warning


class Precision(NamedTuple):
    """The number format of a run and how fast its products are beside the other's, in billions of operations a second."""

    dtype: Literal["bfloat16", "float32"]
    bfloat16: float | None  # None: not timed, because float32 was asked for
    float32: float | None

    def __str__(self) -> str:
        if self.bfloat16 is None or self.float32 is None:
            return f"{self.dtype}, as the profile asks"
        said = f"{self.dtype}: products run at {self.float32:.0f} GFLOP/s in float32 and {self.bfloat16:.0f} in bfloat16 here"
        slower = self.float32 / max(self.bfloat16, 1e-9)
        if self.dtype == "float32" or slower < SLOWER:
            return said
        return f"{said}. This is {slower:.0f} times slower than float32: set recipe.student.dtype to auto"


def precision(wanted: Literal["auto", "bfloat16", "float32"], *, device: str) -> Precision:
    """The format for `wanted`: itself, or the faster one where it is "auto"; raises StudentError where that cannot be timed.

    Nothing is timed for float32, which no machine lacks; for bfloat16 only to warn, so not being able to is no fault.
    """
    if wanted == "float32":
        return Precision(wanted, bfloat16=None, float32=None)
    try:
        found = _rates(device)
    except StudentError:
        if wanted == "auto":
            raise
        return Precision(wanted, bfloat16=None, float32=None)
    dtype = wanted if wanted != "auto" else "bfloat16" if found["bfloat16"] > found["float32"] else "float32"
    return Precision(dtype, bfloat16=found["bfloat16"], float32=found["float32"])


@cache
def _rates(device: str) -> dict[str, float]:
    """Timed in a process of its own, which may load torch, and kept: it is a fact of the machine, and an answer that wavered would move addresses."""
    path = _cache_folder() / f"rates-{_machine(device)}.json"
    with suppress(OSError, ValueError, KeyError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(kept[name]) for name in ("float32", "bfloat16")}
    command = [sys.executable, "-m", "tasks.training.rates", device]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise StudentError(f"How fast this machine multiplies could not be timed ({last}); set recipe.student.dtype to float32 or bfloat16")
    found: dict[str, float] = json.loads(done.stdout)
    with suppress(OSError):  # a home that cannot be written to costs a few seconds a run, not the run
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(path)
    return found


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "socratune"


def _machine(device: str) -> str:
    """Names what the rates depend on: processor, torch, and whatever narrows either."""
    processor = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = "|".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})) or processor
    told = [device, processor, platform.node(), version("torch"), *(os.environ.get(name, "") for name in _DECIDING)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
