"""Attention of one new token a row over stored keys and values, as one Triton kernel: each program streams what one head of one row has stored, once.

It reads the slots in use and no others, so that no width of the storage has to be chosen. Imported on CUDA with Triton only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_SLOTS = 16  # read at once; with one warp a program this came closest to what the memory gives on an H200 (4.0 of 4.2 TB/s)


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]  # Triton reads annotations as code
    query, keys, values, out, first, slot, scale, row_stride, head_stride, group: tl.constexpr, size: tl.constexpr, slots: tl.constexpr
):
    row, head = tl.program_id(0), tl.program_id(1)
    heads = tl.num_programs(1)
    inside = tl.arange(0, size)
    asked = tl.load(query + (row * heads + head) * size + inside).to(tl.float32) * scale
    start, end = tl.load(first + row), tl.load(slot) + 1
    base = row.to(tl.int64) * row_stride + (head // group).to(tl.int64) * head_stride
    best = -float("inf")
    total = 0.0
    mixed = tl.zeros([size], tl.float32)
    for begin in range(start // slots * slots, end, slots):
        place = begin + tl.arange(0, slots)
        used = (place >= start) & (place < end)
        at = base + place[:, None] * size + inside[None, :]
        stored = tl.load(keys + at, mask=used[:, None], other=0.0).to(tl.float32)
        scores = tl.where(used, tl.sum(stored * asked[None, :], axis=1), -float("inf"))
        higher = tl.maximum(best, tl.max(scores, axis=0))
        shares = tl.exp(scores - higher)
        shrunk = tl.exp(best - higher)
        told = tl.load(values + at, mask=used[:, None], other=0.0).to(tl.float32)
        mixed = mixed * shrunk + tl.sum(told * shares[:, None], axis=0)
        total = total * shrunk + tl.sum(shares, axis=0)
        best = higher
    tl.store(out + (row * heads + head) * size + inside, mixed / total)


def attend_one_token(query: Tensor, keys: Tensor, values: Tensor, *, first: Tensor, slot: Tensor, scale: float) -> Tensor:
    """Query [rows, heads, 1, d] over keys and values [rows, key heads, slots, d] to [rows, 1, heads, d].

    Row r sees its slots from first[r] to slot[0], both counted from 0 and included; the storage's last two dimensions are contiguous, d is a power of two.
    """
    rows, heads, _, size = query.shape
    query = query.contiguous()
    out = torch.empty_like(query)
    _kernel[(rows, heads)](query, keys, values, out, first, slot, scale, keys.stride(0), keys.stride(1), heads // keys.shape[1], size, _SLOTS, num_warps=1)
    return out.view(rows, 1, heads, size)


@triton.jit  # type: ignore[untyped-decorator]
def _store(  # type: ignore[no-untyped-def]
    new_keys, new_values, keys, values, slot, keys_stride, values_stride, row_stride, head_stride, used, size: tl.constexpr, width: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, width)
    inside = place < used
    target = row * row_stride + (place // size).to(tl.int64) * head_stride + tl.load(slot) * size + place % size
    tl.store(keys + target, tl.load(new_keys + row * keys_stride + place, mask=inside), mask=inside)
    tl.store(values + target, tl.load(new_values + row * values_stride + place, mask=inside), mask=inside)


def store_one_token(new_keys: Tensor, new_values: Tensor, keys: Tensor, values: Tensor, *, slot: Tensor) -> None:
    """Write [rows, key heads, 1, d] into slot[0] of both storages, in one launch."""
    rows, heads, _, size = new_keys.shape
    new_keys, new_values = _rows_together(new_keys), _rows_together(new_values)
    strides = (new_keys.stride(0), new_values.stride(0), keys.stride(0), keys.stride(1))
    _store[(rows,)](new_keys, new_values, keys, values, slot, *strides, heads * size, size, triton.next_power_of_2(heads * size), num_warps=4)


def _rows_together(states: Tensor) -> Tensor:
    """States [rows, heads, 1, d] whose rows lie whole, however far apart."""
    return states if states.stride(3) == 1 and states.stride(1) == states.shape[3] else states.contiguous()
