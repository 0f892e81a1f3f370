"""The fit oracle: what training will take of a GPU's memory, from the model's shape, before anything is loaded; and how much to compute at once.

Counted, not measured: weights, adapters with gradients and both Adam moments, what each token leaves for the backward, and the largest passing
tensors. `tests/bench/engine` compares it with what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.contracts.failures import GuardError

GIB = 2**30
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight: half a byte, a scale byte for 64 of them, and a float for 256 scales
ADAPTER_BYTES = 4 + 4 + 8  # float32 weight, gradient, two Adam moments
FLOOR_TOKENS = 256  # below this a batch wastes the GPU: rather recompute layers
MOST_TOKENS = 16_384  # beyond this a larger batch is no faster


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a decoder that decide its memory, in elements."""

    hidden: int
    inner: int  # width of the feed-forward part
    queries: int  # heads x head size
    keys: int  # key heads x head size
    layers: int
    vocabulary: int
    tied: bool

    @property
    def linear(self) -> int:
        """Weights in all adapted linear layers."""
        return self.layers * (self.hidden * (2 * self.queries + 2 * self.keys) + 3 * self.hidden * self.inner)

    @property
    def largest(self) -> int:
        """Weights of the largest single linear layer that is expanded from 4 bits."""
        return self.hidden * max(self.inner, self.queries)

    def adapter(self, rank: int, *, fused: bool) -> int:
        """Weights of a LoRA adapter on every linear layer; `fused`: query, key and value are one layer, gate and up another."""
        inputs = (self.hidden + self.queries + self.hidden + self.inner) if fused else (3 * self.hidden + self.queries + 2 * self.hidden + self.inner)
        outputs = self.queries + 2 * self.keys + self.hidden + 2 * self.inner + self.hidden
        return self.layers * rank * (inputs + outputs)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a step will be computed: at most `tokens` at once, layers again in the backward or not, and the peak that is expected of it in bytes."""

    tokens: int
    recompute: bool
    peak: float


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
    )


def peak_bytes(shape: Shape, *, adapter: int, four_bit: bool, width: int, tokens: int, recompute: bool, compiled: bool) -> float:
    """Peak of allocated memory in a training step of `tokens` tokens at once. `width`: bytes of a plain number, 2 for bfloat16."""
    weights = shape.linear * (NF4_BYTES if four_bit else width)
    tables = shape.vocabulary * shape.hidden * (1 if shape.tied else 2) * width
    fixed = weights + tables + adapter * ADAPTER_BYTES
    layer = layer_bytes(shape, width=width, compiled=compiled)
    inputs = shape.hidden * width * shape.layers
    held = (inputs + layer if recompute else layer * shape.layers) * tokens
    slopes = 2 * shape.hidden * width * tokens  # hidden states that are scored, and the slopes of their log-probabilities
    expanded = shape.largest * width if four_bit else 0
    passing = expanded + 3 * shape.inner * width * tokens  # gradients of one feed-forward part
    return fixed + held + slopes + passing


def layer_bytes(shape: Shape, *, width: int, compiled: bool) -> float:
    """What one layer keeps of one token for its backward. Compiled layers compute norms and activations again from it."""
    kept = 2 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 2 * shape.inner
    if compiled:
        return kept * width
    norms = 2 * shape.hidden * (width + 4)  # normalised states, and their float32 copies
    return (kept + shape.inner) * width + norms + (shape.queries + shape.keys) * width


def choose(
    shape: Shape, *, adapter: int, four_bit: bool, width: int, compiled: bool, recompute: str, tokens: int | None, longest: int, memory: float, setting: str
) -> Fit:
    """The largest number of tokens at once that stays within `memory` bytes, without recomputing layers where that is enough for the longest row.

    `tokens` given is taken as it is. Raises GuardError where not even the longest row fits.
    """

    def peak(count: int, again: bool) -> float:
        return peak_bytes(shape, adapter=adapter, four_bit=four_bit, width=width, tokens=count, recompute=again, compiled=compiled)

    ways = {"auto": (False, True), "always": (True,), "never": (False,)}[recompute]
    for again in ways:
        base, slope = peak(0, again), peak(1, again) - peak(0, again)
        most = int(min((memory - base) / slope, MOST_TOKENS))
        wanted = most if tokens is None else tokens
        enough = max(longest, FLOOR_TOKENS if tokens is None else 1)
        if most >= max(enough, wanted) or (again is ways[-1] and most >= longest and tokens is None):
            return Fit(tokens=wanted, recompute=again, peak=peak(max(wanted, 0), again))
    raise GuardError(
        f"Training would take {peak(max(longest, tokens or 0), ways[-1]) / GIB:.1f} GiB of GPU memory where {memory / GIB:.1f} are free, by {setting}: "
        "use shorter rows (max_length), fewer batch_tokens, a lower LoRA rank, a smaller student, or a larger GPU"
    )
