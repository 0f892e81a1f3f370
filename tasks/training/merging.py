"""Plain weights to decode with: adapters merged into linear layers and 4-bit layers spelled out, for a while and beside the trained ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tasks.training.device import free_bytes

logger = logging.getLogger(__name__)


@contextmanager
def decoding_weights(model: Any, *, cached_tokens: int) -> Iterator[Any]:
    """The model with adapters merged into linear layers and 4-bit layers spelled out, where free memory holds a copy and `cached_tokens` of keys and values.

    Only modules are exchanged, and put back: weights, adapters and gradients are not touched. Where memory is short, the model as it is.
    """
    found = dict(_mergeable(model))
    size = model.get_input_embeddings().weight.element_size()
    needed = sum(size * module.in_features * module.out_features for module in found.values()) + cached_tokens * _token_bytes(model, size)
    if found and 1.1 * needed > free_bytes(model.get_input_embeddings().weight.device):
        logger.warning("Decoding with adapters apart, which is slower: merged weights need %.1f GB of free memory", 1.1 * needed / 1e9)
        found = {}
    try:
        for name, module in found.items():
            model.set_submodule(name, _merged(module, model.get_input_embeddings().weight.dtype))
        yield model
    finally:
        for name, module in found.items():
            model.set_submodule(name, module)


def _mergeable(model: Any) -> Iterator[tuple[str, Any]]:
    """Linear layers with a plain, active adapter, and 4-bit ones without."""
    from bitsandbytes.nn.modules import Linear4bit
    from peft.tuners.lora import LoraLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    inside = tuple(f"{name}." for name, _ in adapted)
    for name, module in adapted:
        plain = not (module.merged or module.disable_adapters or module.lora_variant or any(module.lora_bias.values()))
        if plain and isinstance(module.get_base_layer(), nn.Linear):
            yield name, module
    yield from ((name, module) for name, module in model.named_modules() if isinstance(module, Linear4bit) and not name.startswith(inside))


@torch.no_grad()
def _merged(module: Any, dtype: torch.dtype) -> nn.Linear:
    """A plain layer that does what an adapted or 4-bit one does; the sum is made in float32."""
    from bitsandbytes.functional import dequantize_4bit

    base = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    state = getattr(base.weight, "quant_state", None)
    weight = (base.weight.data if state is None else dequantize_4bit(base.weight.data, state)).float()
    for name in module.active_adapters if base is not module else ():
        if name in module.lora_A:
            weight = weight + module.scaling[name] * (module.lora_B[name].weight.float() @ module.lora_A[name].weight.float())
    plain = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    plain.bias = base.bias
    return plain.train(module.training)


def _token_bytes(model: Any, size: int) -> int:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * size)
