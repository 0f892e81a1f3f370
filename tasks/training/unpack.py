"""4-bit weights to bfloat16 as one Triton kernel, scales included. Imported on CUDA with Triton only.

bitsandbytes does the same in three kernels, which read and write the scales twice; each micro-batch expands every weight of the student twice.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BYTES = 1024  # of packed weights a program, two weights each


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(packed, absmax, code, outer, offset, table, out, count, bytes_: tl.constexpr):  # type: ignore[no-untyped-def]  # Triton reads annotations as code
    at = tl.program_id(0).to(tl.int64) * bytes_ + tl.arange(0, bytes_)
    inside = at < count
    pair = tl.load(packed + at, mask=inside, other=0)
    block = at // 32  # 64 weights share a scale
    scale = tl.load(code + tl.load(absmax + block, mask=inside, other=0)) * tl.load(outer + block // 256, mask=inside, other=0.0) + tl.load(offset)
    first = tl.load(table + (pair >> 4)) * scale
    second = tl.load(table + (pair & 15)) * scale
    both = tl.interleave(first, second).to(out.dtype.element_ty)
    places = tl.program_id(0).to(tl.int64) * bytes_ * 2 + tl.arange(0, 2 * bytes_)
    tl.store(out + places, both, mask=places < 2 * count)


def unpack(packed: Tensor, absmax: Tensor, code: Tensor, outer: Tensor, offset: Tensor, table: Tensor, *, shape: list[int], dtype: torch.dtype) -> Tensor:
    """The weight [out, in] of NF4 bytes with doubly quantised scales.

    Weight i is table[nibble i] * s for the scale s = code[absmax[i // 64]] * outer[i // 64 // 256] + offset; of each byte the high nibble comes first.
    """
    made = torch.empty(shape, dtype=dtype, device=packed.device)
    count = made.numel() // 2
    _kernel[(triton.cdiv(count, _BYTES),)](packed, absmax, code, outer, offset, table, made, count, _BYTES, num_warps=4)
    return made
