"""Draws from a model's next-token distribution that are the same on every device and in every batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_PART = 2**22  # entries that `perturb_in_parts` works on at once: their numbers between take a tenth of a gigabyte, where a batch's would take one


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Draw from softmax(logits / temperature). `seeds` has a 63-bit number for each prompt: all that its draws depend on."""

    temperature: float
    seeds: Sequence[int]


def perturb(scores: Tensor, *, seeds: Tensor, step: Tensor, temperature: float) -> Tensor:
    """Scores [rows, vocabulary] whose largest entry is a draw from softmax(scores / temperature): plus Gumbel noise, in float32.

    `seeds` [rows] and `step` (one integer) are int64. Noise is a hash of (seed, step, vocabulary index) in integers: the same on every device and in
    every batch, and a graph can compute it.
    """
    low = _scramble((_scramble(seeds & _WORD) + step) & _WORD)
    high = _scramble(((_scramble((seeds >> 32) ^ 0x5BD1E995) + step) & _WORD) ^ low)  # seeds that differ in their low half only differ here too
    bits = _scramble(torch.arange(scores.shape[1], device=scores.device) ^ low[:, None])
    bits = _scramble(bits ^ high[:, None])  # a second key within: one key alone would give rows permutations of each other's noise
    share = (bits.float() + 0.5).mul_(2.0**-32).clamp_(max=1 - 2.0**-24)  # fine near 0, where the large noise comes from
    return scores.float() / temperature - torch.log1p(share.neg_()).neg_().log_()


def perturb_in_parts(scores: Tensor, *, seeds: Tensor, step: Tensor, temperature: float) -> Tensor:
    """`perturb` of some rows at a time: a vocabulary has 150,000 entries, and what is between scores and result takes many times their memory."""
    rows = max(1, _PART // scores.shape[1])
    parts = zip(torch.split(scores, rows), torch.split(seeds, rows), strict=True)
    return torch.cat([perturb(part, seeds=its, step=step, temperature=temperature) for part, its in parts])


def _scramble(bits: Tensor) -> Tensor:
    """A one-to-one hash of 32-bit numbers held in int64; factors below 2^31, so that no product overflows."""
    for factor in (0x7FEB352D, 0x31848BAB):
        bits = ((bits ^ (bits >> 16)) * factor) & _WORD
    return bits ^ (bits >> 15)
