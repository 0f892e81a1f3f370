"""The fit oracle: what training will take of a GPU's memory, from the model's shape alone; and how much to compute at once.

Counted, not measured: weights, adapters with gradients and both Adam moments, what each token leaves for the backward, and the largest passing
tensors. `tests/bench/engine` compares it with what is measured.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

from tasks.contracts.failures import GuardError
from tasks.contracts.shapes import Shape

GIB = 2**30
HEAD_TOKENS = 512  # scored at once: their logits, tokens x vocabulary in float32, are the largest tensor of a step
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight: half a byte, a scale byte for 64 of them, and a float for 256 scales
ADAPTER_BYTES = 4 + 4 + 8 + 2  # float32 weight, gradient, two Adam moments; a narrow copy of the weight
FLOOR_TOKENS = 256  # below this a batch wastes the GPU: rather recompute layers
MOST_TOKENS = 16_384  # beyond this a larger batch is no faster


def grain(tokens: int) -> int:
    """What the size of a batch is rounded up to, so that a few recordings serve all."""
    return 64 if tokens <= 4096 else 128


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a step will be computed: at most `tokens` at once, layers again in the backward or not, and the peak that is expected of it in bytes."""

    tokens: int
    recompute: bool
    peak: float
    roomy: bool = False  # memory is ample: expanded weights, normalised states, activations and what dropout leaves are all kept


def shape_of(config: Any) -> Shape:
    """The shape that a transformers configuration describes."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        queries=heads * size,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * size,
        layers=config.num_hidden_layers,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        fused=getattr(config, "model_type", "") == "phi3",
    )


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is to be trained.

    `width`: bytes of a plain number, 2 for bfloat16; `adapter`: its weights; `compiled`: fused kernels; `keys`: keys a token, more than 1 where
    completions share prompts; `workspaces`: bytes that libraries take for themselves.
    """

    shape: Shape
    adapter: int
    four_bit: bool
    width: int
    compiled: bool
    dropout: bool = True
    keys: float = 1.0
    workspaces: int = 0

    def peak(self, tokens: int, *, recompute: bool, roomy: bool = False) -> float:
        """Bytes allocated at the peak of a step that computes `tokens` at once. Recomputed layers have their inputs in host memory."""
        shape = self.shape
        tokens += self.keys > 1
        tokens += -tokens % grain(tokens)
        weights = shape.linear * (NF4_BYTES if self.four_bit else self.width) + (shape.linear * self.width if roomy and self.four_bit else 0)
        tables = shape.vocabulary * shape.hidden * (1 if shape.tied else 2) * self.width
        layer = self._layer(roomy=roomy)
        held = layer + 2 * shape.hidden * self.width if recompute else layer * shape.layers
        slopes = 2 * shape.hidden * self.width  # scored states and the slopes of their log-probabilities
        head = min(HEAD_TOKENS, tokens) * shape.vocabulary * (2 * self.width + 4)
        expanded = shape.largest * self.width if self.four_bit and not roomy else 0
        shared = 3 * shape.keys * self.keys * self.width if self.keys > 1 else 0  # gradients of repeated keys and values on their way
        passing = expanded + (3 * shape.inner * self.width + shared) * tokens
        # The head comes before the last layer's gradients; where layers are recomputed, its part is gone before the first of them is.
        moving = max(slopes * tokens + head, held * tokens + passing) if recompute else (held + slopes) * tokens + max(head, passing)
        returned = 4 * self.adapter if roomy else 0  # gradients of one batch before they are added
        return weights + tables + self.adapter * ADAPTER_BYTES + moving + returned + self.workspaces

    def _layer(self, *, roomy: bool) -> float:
        """Bytes that one layer keeps of one token for its backward. Frugal compiled layers compute norms and activations again from them."""
        shape, width = self.shape, self.width
        given = shape.inputs if roomy and self.dropout else shape.inner + 2 * shape.hidden  # what dropout left for each linear part, or what all read
        # The values of a layer that makes queries and keys as well are a piece of one tensor, which stays with them unless they are copied.
        whole = shape.queries + shape.keys if shape.fused and self.keys == 1 else 0
        if self.compiled:
            kept = 2 * shape.hidden + 2 * shape.queries + 2 * shape.keys * self.keys + 2 * shape.inner
            return (kept + given + whole if roomy else kept) * width
        attention = (2 + 2 * self.keys) * shape.queries + (whole if shape.keys == shape.queries else 0)  # keys and values are copied for all their heads
        return (given + attention + 3 * shape.inner) * width + 2 * shape.hidden * 4  # gate, its activation and up; norms in float32


def choose(load: Load, *, recompute: str, tokens: int | None, longest: int, window: int, memory: float, setting: str) -> Fit:
    """How to compute steps of up to `window` tokens, whose longest row has `longest`, within `memory` bytes.

    The first of these that fits: the whole window at once, keeping all there is; the whole window; a part of it; a part with layers recomputed.
    `tokens` given is taken as it is. Raises GuardError where nothing fits.
    """
    wanted = min(window, MOST_TOKENS) if tokens is None else min(tokens, window)
    wanted = max(wanted, longest)
    if recompute != "always":
        if load.peak(wanted, recompute=False, roomy=True) <= memory:
            return Fit(tokens=wanted, recompute=False, peak=load.peak(wanted, recompute=False, roomy=True), roomy=True)
        least = longest if recompute == "never" else max(longest, min(FLOOR_TOKENS, wanted))
        most = _most(load, recompute=False, memory=memory, limit=wanted)
        if most >= (least if tokens is None else wanted):
            return Fit(tokens=min(wanted, most), recompute=False, peak=load.peak(min(wanted, most), recompute=False))
    if recompute != "never":
        most = _most(load, recompute=True, memory=memory, limit=wanted)
        if most >= (longest if tokens is None else wanted):
            return Fit(tokens=min(wanted, most), recompute=True, peak=load.peak(min(wanted, most), recompute=True))
    least = longest if tokens is None else wanted
    raise GuardError(
        f"Training would take {load.peak(least, recompute=recompute != 'never') / GIB:.1f} GiB of GPU memory where {memory / GIB:.1f} are free, by {setting}: "
        "use shorter rows (max_length), fewer batch_tokens, a lower LoRA rank, a smaller student, or a larger GPU"
    )


def _most(load: Load, *, recompute: bool, memory: float, limit: int) -> int:
    """The most tokens at once, up to `limit`, that stay within `memory` bytes."""
    return bisect.bisect_right(range(limit + 1), memory, lo=1, key=lambda tokens: load.peak(tokens, recompute=recompute)) - 1
