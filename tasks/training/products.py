"""Float32 matrix products by the faster of a CPU's two libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SIZE, _EXACT = 256, 1e-5  # float32 misses by 3e-7 of the product's norm, bfloat16 by 2e-3


@contextmanager
def fast_products() -> Iterator[bool]:
    """Let oneDNN make float32 products on a CPU for a while, where it makes them in float32; yields whether it does.

    MKL, torch's choice, runs at less than half of an AMD processor's speed. The only public way past it is torch's leave to round to bfloat16, of which
    oneDNN makes use on processors with matrix units for it alone (AMX); there MKL stays. Which it is, one product tells.
    """
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch makes it at run time
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        exact = _miss() < _EXACT
        if not exact:
            settings.fp32_precision = before
        yield exact
    finally:
        settings.fp32_precision = before


def _miss() -> float:
    """By how much a float32 product misses the one in float64, as a share of its norm."""
    left, right = torch.randn(2, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0))
    true = left.double() @ right.double()
    return float((left @ right - true).norm() / true.norm())
