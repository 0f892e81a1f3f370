"""Frozen linear layers with a trained low-rank adapter, as one operator that keeps little for its backward.

Peft owns the layers and their weights; `lean(model)` only replaces how they compute. What is kept for the backward is the input alone, which
layers that read the same tensor share: 4-bit weights are expanded again, and dropout is drawn again instead of stored. Dropout is a hash of
seed, optimiser step, row, position, layer and feature. So the same row sees the same dropout however a batch is cut, packed or spread over
processes, and a resumed run needs no state of a random generator. It cannot be told from independent coin flips by the tests beside it.
"""

from __future__ import annotations

import shutil
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from tasks.contracts.failures import StudentError

_MIX = (0x7FEB352D, -0x7B935975)  # multipliers of the "lowbias32" integer hash (Wellons, hash-prospector); the second is 0x846CA68B as int32


@dataclass
class Noise:
    """What dropout depends on beside layer and feature.

    `salt` (int32, no dimensions) stands for seed and optimiser step; None turns dropout off. `keys` [T] are those of the batch under way. The
    salt is changed in place, so that a recorded CUDA graph draws anew at every replay.
    """

    salt: Tensor | None = None
    keys: Tensor | None = None
    kept: bool = False  # what dropout leaves is kept for the backward instead of drawn again: faster, for twice the memory
    narrow: bool = False  # the layers' `narrow` copies of their adapters are those of this very moment

    def shake(self, *, seed: int, step: int, device: torch.device) -> None:
        """Go on to another optimiser step."""
        if self.salt is None:
            self.salt = torch.zeros((), dtype=torch.int32, device=device)
        self.salt.fill_(_wrap(seed * 0x9E3779B1 + step * 0x85EBCA77))

    def draw(self, rows: Tensor, positions: Tensor) -> None:
        """Make the keys of a batch [T] from where its tokens belong."""
        self.keys = None if self.salt is None else mix(mix(rows.to(torch.int32) ^ self.salt) ^ positions.to(torch.int32))


def mix(value: Tensor) -> Tensor:
    """A bijective hash of int32 values; nearby inputs give unrelated outputs."""
    value = (value ^ ((value >> 16) & 0xFFFF)) * _MIX[0]
    value = (value ^ ((value >> 15) & 0x1FFFF)) * _MIX[1]
    return value ^ ((value >> 16) & 0xFFFF)


def drop(x: Tensor, keys: Tensor, columns: Tensor, share: float) -> Tensor:
    """Inverted dropout of x [T, F]: a `share` of the entries is zeroed, the rest scaled up. Equal `keys` [T] and `columns` [F] zero equal entries."""
    kept = mix(keys[:, None] ^ columns) >= _wrap(int(share * 2**32) + 2**31)
    return torch.where(kept, x * (1.0 / (1.0 - share)), 0.0)


def column_keys(features: int, *, layer: int, device: torch.device) -> Tensor:
    """One int32 a feature [F], different for every layer."""
    return mix(torch.arange(features, device=device, dtype=torch.int32) ^ _wrap(layer * 0x9E3779B1))


def _wrap(value: int) -> int:
    """The int32 with the same lowest 32 bits."""
    return (value + 2**31) % 2**32 - 2**31


@cache
def can_compile() -> bool:
    """Whether torch can build kernels here: it needs Triton and a C compiler."""
    from torch.utils._triton import has_triton

    return bool(has_triton()) and any(shutil.which(name) for name in ("cc", "gcc", "clang"))


@cache
def _kernel(share: float) -> Any:
    """`drop` of a share as one CUDA kernel for any number of tokens; plain where none can be built."""

    def bound(x: Tensor, keys: Tensor, columns: Tensor) -> Tensor:
        return drop(x, keys, columns, share)

    return torch.compile(bound) if can_compile() else bound


def _drop(x: Tensor, keys: Tensor | None, columns: Tensor, share: float) -> Tensor:
    if keys is None:
        return x
    if not x.is_cuda:
        return drop(x, keys, columns, share)
    # The number of tokens varies; the number of features must not: a division by a variable, once an entry, would cost three times the rest.
    torch._dynamo.mark_dynamic(x, 0)
    torch._dynamo.mark_dynamic(keys, 0)
    torch._dynamo.mark_static(x, 1)
    torch._dynamo.mark_static(columns, 0)
    return _kernel(share)(x, keys, columns)  # type: ignore[no-any-return]


def expand(frozen: list[Tensor], shape: list[int], dtype: torch.dtype) -> Tensor:
    """The weight [out, in] of a frozen layer: as it is, or expanded from NF4 with double quantisation."""
    if len(frozen) == 1:
        return frozen[0]
    packed, absmax, code, outer, offset, table = frozen
    if packed.is_cuda and can_compile():
        from tasks.training.unpack import unpack

        return unpack(packed, absmax, code, outer, offset, table, shape=shape, dtype=dtype)
    scales = torch.ops.bitsandbytes.dequantize_blockwise(absmax, outer, code, 256, torch.float32) + offset
    expanded: Tensor = torch.ops.bitsandbytes.dequantize_4bit(packed, scales, 64, "nf4", shape, dtype)
    return expanded


def _scaled(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """scale * left @ right in one kernel: a step of QLoRA is thousands of small ones, and each costs some microseconds beside its work."""
    return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=scale)


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left @ right in another precision, unrounded between where the device can."""
    if left.is_cuda and left.dtype != dtype:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


@torch.library.custom_op("socratune::adapted", mutates_args=())
def adapted(
    x: Tensor,
    a: Tensor,
    b: Tensor,
    narrow: list[Tensor],
    bias: Tensor | None,
    keys: Tensor | None,
    columns: Tensor,
    frozen: list[Tensor],
    shape: list[int],
    scale: float,
    share: float,
    kept: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, in] to (W x + bias + scale * B A drop(x) [T, out], scale * A drop(x) [T, r], and drop(x) where it is to be `kept`).

    `narrow` is empty, or holds A and B in the precision of x.
    """
    down, up = narrow or (a.to(x.dtype), b.to(x.dtype))
    dropped = _drop(x, keys, columns, share)
    low = _scaled(dropped, down.t(), scale)
    out = linear(low, up, bias)  # the narrow product first: the wide one hides reading it
    out.addmm_(x, expand(frozen, shape, x.dtype).t())
    return out, low, dropped if kept and keys is not None else x.new_empty(0)


@adapted.register_fake
def _(x: Tensor, a: Tensor, b: Tensor, narrow: list[Tensor], bias: Tensor | None, keys: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    dropped = torch.empty_like(x) if rest[-1] and keys is not None else x.new_empty(0)
    return x.new_empty(x.shape[0], b.shape[0]), x.new_empty(x.shape[0], a.shape[0]), dropped


@torch.library.custom_op("socratune::adapted_backward", mutates_args=())
def adapted_backward(
    gradient: Tensor,
    x: Tensor,
    dropped: Tensor,
    low: Tensor,
    a: Tensor,
    b: Tensor,
    narrow: list[Tensor],
    keys: Tensor | None,
    columns: Tensor,
    frozen: list[Tensor],
    shape: list[int],
    scale: float,
    share: float,
    needs_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [T, in] (empty where nobody needs it), A [r, in] and B [out, r]; the last two in the adapter's own precision.

    Of x and drop(x) one is enough; the other is empty.
    """
    down, up = narrow or (a.to(gradient.dtype), b.to(gradient.dtype))
    through = _scaled(gradient, up, scale)
    grad_b = _product(gradient.t(), low, b.dtype)
    grad_a = _product(through.t(), dropped if dropped.numel() else _drop(x, keys, columns, share), a.dtype)
    if not needs_x:
        return gradient.new_empty(0, a.shape[1]), grad_a, grad_b
    grad_x = _drop(through @ down, keys, columns, share)
    return grad_x.addmm_(gradient, expand(frozen, shape, gradient.dtype)), grad_a, grad_b


@adapted_backward.register_fake
def _(gradient: Tensor, x: Tensor, dropped: Tensor, low: Tensor, a: Tensor, b: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return gradient.new_empty(gradient.shape[0] if rest[-1] else 0, a.shape[1]), torch.empty_like(a), torch.empty_like(b)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, a, b, narrow, _, keys, columns, frozen, shape, scale, share, _kept = inputs
    _, low, dropped = output
    ctx.save_for_backward(x.new_empty(0) if dropped.numel() else x, dropped, low, a, b, keys, columns, *narrow, *frozen)
    ctx.rest, ctx.narrow = (shape, scale, share), len(narrow)


def _back(ctx: Any, gradient: Tensor, *_: Tensor) -> Any:
    x, dropped, low, a, b, keys, columns, *rest = ctx.saved_tensors
    narrow, frozen = rest[: ctx.narrow], rest[ctx.narrow :]
    needs_x = ctx.needs_input_grad[0]
    grad_x, grad_a, grad_b = adapted_backward(gradient.contiguous(), x, dropped, low, a, b, narrow, keys, columns, frozen, *ctx.rest, needs_x)
    unmoved = ([None] * len(narrow), None, None, None, [None] * len(frozen), None, None, None, None)
    return (grad_x if needs_x else None, grad_a, grad_b, *unmoved)


adapted.register_autograd(_back, setup_context=_keep)


def lean(model: Any) -> None:
    """Make every adapted linear layer of a PeftModel compute through `adapted` while gradients are recorded; `model.noise` feeds their dropout."""
    from peft.tuners.lora import LoraLayer

    model.noise = noise = Noise()
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), torch.nn.Linear)]
    for number, module in enumerate(layers):
        base = module.get_base_layer()
        module.noise, module.frozen, module.narrow = noise, frozen_tensors(base), []
        module.columns = column_keys(base.in_features, layer=number, device=base.weight.device)
        module.forward = types.MethodType(_forward, module)


def narrow_into(model: Any, copies: Mapping[int, Tensor]) -> None:
    """Tell adapted layers where copies of their A and B in the precision of their inputs lie, by the id of the parameter."""
    for module in model.modules():
        if hasattr(module, "frozen"):
            module.narrow = [copies[id(each["default"].weight)] for each in (module.lora_A, module.lora_B)]


def expand_once(model: Any) -> None:
    """Keep the weights of 4-bit layers expanded beside them, where memory allows: the same numbers, without the work of each forward and backward."""
    for module in model.modules():
        if len(getattr(module, "frozen", ())) > 1:
            base = module.get_base_layer()
            module.frozen = [expand(module.frozen, [base.out_features, base.in_features], base.compute_dtype or torch.bfloat16)]


def expanded_bytes(model: Any) -> int:
    """Memory that `expand_once` takes."""
    bases = [module.get_base_layer() for module in model.modules() if len(getattr(module, "frozen", ())) > 1]
    return sum(base.out_features * base.in_features * (base.compute_dtype or torch.bfloat16).itemsize for base in bases)


def frozen_tensors(base: Any) -> list[Tensor]:
    """What `expand` needs of a frozen layer: its weight, or six tensors of a 4-bit one."""
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return [base.weight]
    if not state.nested or (state.quant_type, state.blocksize, state.state2.blocksize) != ("nf4", 64, 256):
        raise StudentError("This student's 4-bit weights are not NF4 in blocks of 64 with double quantisation; start from its unquantised weights")
    return [base.weight.data, state.absmax, state.state2.code, state.state2.absmax, state.offset, state.code]


def _forward(module: Any, x: Tensor) -> Tensor:
    base, a, b = module.base_layer, module.lora_A["default"].weight, module.lora_B["default"].weight
    scale = module.scaling["default"]
    if not (torch.is_grad_enabled() or x.is_cuda):  # on a CPU without gradients, calling the operator costs more than it saves
        plain: Tensor = base(x)
        low: Tensor = linear(x, a.to(x.dtype))
        return plain + linear(low, (b * scale).to(x.dtype))
    share = getattr(module.lora_dropout["default"], "p", 0.0)
    keys = module.noise.keys if module.training and share else None
    flat = x.reshape(-1, x.shape[-1])
    shape = [base.out_features, base.in_features]
    narrow = module.narrow if module.noise.narrow else []
    out, *_ = adapted(flat, a, b, narrow, base.bias, keys, module.columns, module.frozen, shape, scale, share, module.noise.kept)
    joined: Tensor = out.view(*x.shape[:-1], -1)
    return joined
