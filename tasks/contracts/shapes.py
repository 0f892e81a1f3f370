"""Sizes of decoder networks: what memory and time follow from, known without loading one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a decoder that decide its memory, in elements."""

    hidden: int
    inner: int  # width of the feed-forward part
    queries: int  # heads x head size
    keys: int  # key heads x head size
    layers: int
    vocabulary: int
    tied: bool  # one table for embeddings and head
    fused: bool = False  # query, key and value are one layer, gate and up another

    @property
    def linear(self) -> int:
        """Weights in all adapted linear layers."""
        return self.layers * (self.hidden * (2 * self.queries + 2 * self.keys) + 3 * self.hidden * self.inner)

    @property
    def largest(self) -> int:
        """Weights of the largest single linear layer that is expanded from 4 bits."""
        return self.hidden * (max(2 * self.inner, self.queries + 2 * self.keys) if self.fused else max(self.inner, self.queries))

    @property
    def inputs(self) -> int:
        """Width of the inputs of a layer's linear parts, one after another."""
        return (2 if self.fused else 5) * self.hidden + self.queries + self.inner

    def adapter(self, rank: int) -> int:
        """Weights of a LoRA adapter on every linear layer."""
        outputs = self.queries + 2 * self.keys + self.hidden + 2 * self.inner + self.hidden
        return self.layers * rank * (self.inputs + outputs)


# By the config.json of each model on the hub; the students that profiles name.
KNOWN = {
    "smollm2-135m-instruct": Shape(hidden=576, inner=1536, queries=576, keys=192, layers=30, vocabulary=49_152, tied=True),
    "microsoft/Phi-3.5-mini-instruct": Shape(hidden=3072, inner=8192, queries=3072, keys=3072, layers=32, vocabulary=32_064, tied=False, fused=True),
    "Qwen/Qwen2.5-7B-Instruct": Shape(hidden=3584, inner=18_944, queries=3584, keys=512, layers=28, vocabulary=152_064, tied=False),
}
