"""Which device a step runs on, how much of its memory it may use, and how a CPU's memory is kept."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

import torch

from tasks.contracts.failures import StudentError
from tasks.contracts.jobs import Machine


def choose_device(wanted: str) -> torch.device:
    """The device for "auto", "cpu" or "cuda"; raises StudentError where CUDA is wanted and absent, or has fewer GPUs than there are processes."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise StudentError("execution.train.device is cuda, but torch sees no CUDA device; set it to auto or cpu, or mend the driver")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))  # set where a step runs in several processes, one a GPU
    if local >= torch.cuda.device_count():
        raise StudentError(f"execution.train.processes asks for more GPUs than the {torch.cuda.device_count()} that torch sees; lower it")
    return torch.device("cuda", local)


_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # parameters of glibc's mallopt
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep what it frees. glibc gives each large tensor back to the system, which zeroes the pages of the next one: a bfloat16 training step
    on a CPU took a third longer. Elsewhere than on glibc nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_MMAP_MAX, 0)
            libc.mallopt(_TRIM_THRESHOLD, _NEVER)


def hold_memory(machine: Machine) -> None:
    """Let torch take no more of the GPU than `execution.train.gpu_memory_gib`, and keep what it took of a CPU's."""
    device = choose_device(machine.device)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda" and machine.gpu_memory_gib is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, machine.gpu_memory_gib * 2**30 / total), device)


def workspace_bytes() -> int:
    """What cuBLAS takes for each thread and stream that multiplies, by its documentation and torch's: CUBLAS_WORKSPACE_CONFIG, or 32 MiB from Hopper on."""
    usual = ":4096:8" if torch.cuda.get_device_capability()[0] >= 9 else ":4096:2:16:8"
    words = [int(word) for word in (os.environ.get("CUBLAS_WORKSPACE_CONFIG") or usual).split(":")[1:]]
    return 1024 * sum(size * count for size, count in zip(words[::2], words[1::2], strict=True))


def free_bytes(device: torch.device) -> int:
    """Memory that may still be taken: of a GPU what is free and allowed, of a machine what its system calls available."""
    if device.type == "cuda":
        allocated, total = torch.cuda.memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        physical = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - allocated
        return min(physical, int(torch.cuda.memory.get_per_process_memory_fraction(device) * total) - allocated)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_AVPHYS_PAGES" in os.sysconf_names else 0
