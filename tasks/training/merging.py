"""Plain weights to decode with: adapters merged into linear layers and 4-bit layers spelled out, for a while and beside the trained ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tasks.training.device import free_bytes

logger = logging.getLogger(__name__)
SIBLINGS = ("q_proj", "k_proj", "v_proj")  # read the same states; as one product they take three quarters of the time where rows are few


class Joined(nn.Module):
    """Linear layers of the same input as one product: the first that is asked computes it for all."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        self.weight = nn.Parameter(torch.cat([layer.weight.data for layer in layers]), requires_grad=False)
        biases = [layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.data for layer in layers]
        self.bias = None if all(layer.bias is None for layer in layers) else nn.Parameter(torch.cat(biases), requires_grad=False)
        self.seen: Tensor | None = None
        self.made: list[Tensor] = []
        self.taken = 0

    def take(self, number: int, x: Tensor) -> Tensor:
        """What layer `number` makes of x [.., in]."""
        if x is not self.seen:
            self.seen, self.taken = x, 0
            self.made = list(torch.split(nn.functional.linear(x, self.weight, self.bias), self.sizes, dim=-1))
        made = self.made[number]
        self.taken += 1
        if self.taken == len(self.sizes):  # nothing is held between steps
            self.seen, self.made = None, []
        return made


class Part(nn.Module):
    """One of the joined layers, in its place."""

    def __init__(self, joined: Joined, number: int) -> None:
        super().__init__()
        self.joined, self.number = joined, number

    @property
    def weight(self) -> Tensor:
        """The layer's own rows [out, in]."""
        return torch.split(self.joined.weight, self.joined.sizes)[self.number]

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's own."""
        return self.joined.take(self.number, x)


@contextmanager
def decoding_weights(model: Any, *, beside: int) -> Iterator[Any]:
    """The model with adapters merged into linear layers and 4-bit layers spelled out, where free memory holds a copy and the bytes `beside` it.

    Only modules are exchanged, and put back: weights, adapters and gradients are not touched. Where memory is short, the model as it is.
    """
    found = dict(_mergeable(model))
    size = model.get_input_embeddings().weight.element_size()
    needed = sum(size * module.in_features * module.out_features for module in found.values()) + beside
    if found and 1.1 * needed > free_bytes(model.get_input_embeddings().weight.device):
        logger.warning("Decoding with adapters apart, which is slower: merged weights need %.1f GB of free memory", 1.1 * needed / 1e9)
        found = {}
    try:
        for name, module in found.items():
            model.set_submodule(name, _merged(module, model.get_input_embeddings().weight.dtype))
        for name in [name for name in found if name.endswith(f".{SIBLINGS[0]}")]:
            _join(model.get_submodule(name.rpartition(".")[0]))
        yield model
    finally:
        for name, module in found.items():
            model.set_submodule(name, module)


def expand(model: Any) -> bool:
    """Make a model plain float32 for good, adapters merged and 4-bit layers spelled out; returns False, and changes nothing, where a GPU has no room."""
    found = dict(_mergeable(model))
    rest = sum(each.numel() for name, each in model.named_parameters() if not name.startswith(tuple(f"{name}." for name in found)))
    device = model.get_input_embeddings().weight.device
    needed = 4 * (rest + sum(module.in_features * module.out_features for module in found.values()))
    if device.type == "cuda" and 1.2 * needed > free_bytes(device):
        return False
    for name, module in found.items():
        model.set_submodule(name, _merged(module, torch.float32))
    nn.Module.float(model)  # transformers refuses its own for a model that was loaded in 4 bits
    return True


def _join(attention: Any) -> None:
    """Put parts of one product in place of siblings that are all plain."""
    layers = [getattr(attention, name, None) for name in SIBLINGS]
    if all(type(layer) is nn.Linear for layer in layers):
        joined = Joined(layers)  # type: ignore[arg-type]
        for number, name in enumerate(SIBLINGS):
            setattr(attention, name, Part(joined, number))


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
