"""How fast this machine multiplies in each number format: `python -m tasks.training.rates DEVICE` times real products and prints them as JSON.

Flags would not do: some processors list bfloat16 and compute it slower than float32, and torch has a slow way for whatever has no fast one.
"""

from __future__ import annotations

import json
import sys
import time

import torch

from tasks.training.device import choose_device

_SIZES = (1024, 576, 1536)  # rows, inputs and outputs of one product: a small student's widest layer
_SECONDS = 0.25  # for each format
_FEWEST = 3


def product_rate(dtype: torch.dtype, *, device: torch.device) -> float:
    """Billions of floating-point operations a second of `x W^T`, at the fastest of several tries: other work on the machine only slows them."""
    rows, inputs, outputs = _SIZES
    x, weight = torch.ones(rows, inputs, dtype=dtype, device=device), torch.ones(outputs, inputs, dtype=dtype, device=device)
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < _FEWEST or time.perf_counter() - begun < _SECONDS:
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return 2 * rows * inputs * outputs / min(times) / 1e9


def rates(wanted: str) -> dict[str, float]:
    """The rate of each number format on the device that "auto", "cpu" or "cuda" means; a GPU that only imitates bfloat16 has none of it."""
    device = choose_device(wanted)
    narrow = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return {"float32": product_rate(torch.float32, device=device), "bfloat16": product_rate(torch.bfloat16, device=device) if narrow else 0.0}


if __name__ == "__main__":
    print(json.dumps(rates(sys.argv[1])))  # noqa: T201  # its parent reads it
