"""How a transformers model reads and writes fixed slots, one token a row: its cache, its attention, and its layers as one compiled function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache, StaticLayer

from tasks.training.adapted import can_compile

_ATTENTION = "socratune_one_token"


class Slots(StaticLayer):  # type: ignore[no-untyped-call]
    """A layer's storage for one step: writes slot `cumulative_length`, a tensor that the step moves, and shows the first `width` slots."""

    def __init__(self, keys: Tensor, values: Tensor, slot: Tensor, width: int) -> None:
        super().__init__(max_cache_len=width)
        self.keys, self.values, self.cumulative_length, self.is_initialized = keys, values, slot, True

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # what is compiled then depends on the number of rows only, not on widths
    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store [rows, heads, 1, head size]; return all visible slots."""
        assert self.keys is not None
        assert self.values is not None
        if one_kernel(self.keys, self.values):
            from tasks.training.one_token import store_one_token  # needs Triton

            store_one_token(key_states, value_states, self.keys, self.values, slot=self.cumulative_length)
        else:
            self.keys.index_copy_(2, self.cumulative_length, key_states)
            self.values.index_copy_(2, self.cumulative_length, value_states)
        return self.keys[:, :, : self.max_cache_len], self.values[:, :, : self.max_cache_len]


def one_kernel(keys: Tensor, values: Tensor) -> bool:
    """Whether one kernel attends to a storage [rows, key heads, slots, head size]: it reads the slots in use and needs neither width nor mask."""
    size = keys.shape[-1]
    return keys.is_cuda and keys.dtype in (torch.bfloat16, torch.float16) and size == values.shape[-1] and size & (size - 1) == 0 and can_compile()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    scaling: float | None = None,
    first_slot: Tensor | None = None,
    last_slot: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one token [rows, heads, 1, head size] over stored slots [rows, key heads, slots, head size].

    Row r sees the slots from `first_slot[r]` to `last_slot[0]`, by one kernel; without these, what an additive mask [rows, 1, 1, slots] leaves. Then
    heads that share a key head are one matrix, so that keys and values are read where they lie, once; other attention would first copy them per head.
    """
    rows, heads, _one, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    if first_slot is not None and last_slot is not None:
        from tasks.training.one_token import attend_one_token  # needs Triton

        return attend_one_token(query, key, value, first=first_slot, slot=last_slot, scale=scale), None
    if attention_mask.shape[-1] != key.shape[2]:
        raise RuntimeError("This student's layers do not hand first_slot and last_slot on to attention, so its slots in use are unknown")
    grouped = query.reshape(rows, key.shape[1], -1, size)
    scores = torch.add(attention_mask, grouped @ key.transpose(2, 3), alpha=scale)
    return (scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value).reshape(rows, 1, heads, -1), None


AttentionInterface.register(_ATTENTION, attend)


@contextmanager
def one_token_attention(model: Any) -> Iterator[None]:
    """`attend` in place of the model's attention."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


@contextmanager
def plain_layers(model: Any) -> Iterator[None]:
    """Decoder layers without what training compiled of them: with a cache it would be compiled anew for every layer."""
    layers = [layer for layer in model.get_decoder().layers if "forward" in layer.__dict__]
    compiled = [layer.__dict__.pop("forward") for layer in layers]
    try:
        yield
    finally:
        for layer, forward in zip(layers, compiled, strict=True):
            layer.forward = forward


@contextmanager
def compiled_layers(model: Any, *, wanted: bool) -> Iterator[None]:
    """Decoder layers run as one compiled function: a layer sees a cache of its own only, as number 0, so that all layers look alike to the compiler."""
    layers = list(model.get_decoder().layers) if wanted else []
    shared: dict[type, Callable[..., Any]] = {kind: torch.compile(kind.forward, dynamic=False) for kind in {type(layer) for layer in layers}}
    numbered = [(module, module.layer_idx) for layer in layers for module in layer.modules() if isinstance(getattr(module, "layer_idx", None), int)]
    before = [layer.__dict__.get("forward") for layer in layers]

    def forward(layer: Any, number: int) -> Callable[..., Any]:
        def run(*args: Any, past_key_values: Cache, **kwargs: Any) -> Any:
            return shared[type(layer)](layer, *args, past_key_values=Cache(layers=[past_key_values.layers[number]]), **kwargs)

        return run

    try:
        for module, _ in numbered:
            module.layer_idx = 0
        for number, layer in enumerate(layers):
            layer.forward = forward(layer, number)
        with torch._dynamo.config.patch(recompile_limit=64):  # one for each number of rows; past the limit it would quietly stop compiling
            yield
    finally:
        for module, number in numbered:
            module.layer_idx = number
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own
