"""Decoder layers that keep nothing but their input for the backward, and that in host memory: for students whose activations do not fit.

A layer is computed twice, which costs a third more; its input, 8 KB a token and layer for a 7B student, goes to the host and comes back, which takes a
few per cent of the time that computing it takes. Dropout is a hash of where a token belongs, so the second time is the same as the first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor


def recompute_layers(model: Any) -> None:
    """Make every decoder layer of a model compute itself again in the backward, compiled or not."""
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    for layer in network.get_decoder().layers:
        layer.forward = _twice(layer.forward)


def _twice(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return run(hidden, *args, **kwargs)
        anchor = torch.zeros((), requires_grad=True)  # what is trained is inside, so the function must be told that there is something
        return _Recomputed.apply(hidden, partial(_run, run, args, kwargs), anchor)  # type: ignore[no-any-return, no-untyped-call]

    return forward


def _run(run: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor) -> Tensor:
    return run(hidden, *args, **kwargs)


class _Recomputed(torch.autograd.Function):
    """A function of hidden states [.., T, H] that reads parameters by itself; its backward adds to their gradients."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, run: Callable[[Tensor], Tensor], _anchor: Tensor) -> Tensor:
        ctx.run, ctx.device = run, hidden.device
        ctx.hidden = _to_host(hidden)
        with torch.no_grad():
            return run(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        hidden = ctx.hidden.to(ctx.device, non_blocking=True).requires_grad_(ctx.needs_input_grad[0])
        with torch.enable_grad():
            again = ctx.run(hidden)
        torch.autograd.backward([again], list(gradients))
        return hidden.grad, None, None


def _to_host(hidden: Tensor) -> Tensor:
    if not hidden.is_cuda:
        return hidden.detach()
    return torch.empty_like(hidden, device="cpu", pin_memory=True).copy_(hidden.detach(), non_blocking=True)
