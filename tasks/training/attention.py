"""Attention over packed texts, registered with transformers under the name "packed".

On CUDA one kernel serves all segments (torch's variable-length flash attention); elsewhere, and in float32, each segment is one call of torch's
scaled_dot_product_attention: no work is spent on pairs of texts that must not see each other, and no mask is ever built. Calls without segments
(generation, padded batches) go to transformers' own SDPA form.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tasks.training.adapted import can_compile
from tasks.training.packing import Packed

NAME = "packed"


def segments(packed: Packed) -> dict[str, Any]:
    """What a transformers decoder hands through to `packed_attention`, beside ids and positions."""
    return {
        # A mask of four dimensions is passed on as it is, so that none is built. Nobody reads this one.
        "attention_mask": packed.ids.new_zeros(1, 1, 1, 1, dtype=torch.bool),
        "cu_seq_lens_q": packed.ends_q,
        "cu_seq_lens_k": packed.ends_k,
        "max_length_q": packed.longest,
        "max_length_k": packed.longest,
        "segment_keys": packed.keys,
        "key_places": packed.places,
    }


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int = 0,
    max_length_k: int = 0,
    segment_keys: Tensor | None = None,
    key_places: Tensor | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Query [1, heads, T, d], key and value [1, kv heads, T, d] to [1, T, heads, d]; causal inside each segment, aligned at its end."""
    if cu_seq_lens_q is None or cu_seq_lens_k is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest)
        return out, None
    if segment_keys is not None and key_places is not None:
        key, value = (repeat_keys(each.transpose(1, 2)[0], segment_keys, key_places).transpose(0, 1)[None] for each in (key, value))
    if query.is_cuda and query.dtype != torch.float32:
        return _one_kernel(query, key, value, cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k, scaling, sliding_window), None
    return _one_by_one(query, key, value, cu_seq_lens_q.tolist(), cu_seq_lens_k.tolist(), scaling, sliding_window), None


def _one_kernel(
    query: Tensor, key: Tensor, value: Tensor, ends_q: Tensor, ends_k: Tensor, longest_q: int, longest_k: int, scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    q, k, v = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))
    seen = (-1 if window is None else window - 1, 0)
    out = varlen_attn(q, k, v, ends_q, ends_k, longest_q, longest_k, scale=scaling, window_size=seen)
    return out.unsqueeze(0)  # type: ignore[union-attr]


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, ends_q: list[int], ends_k: list[int], scaling: float | None, window: int | None) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    parts = []
    for (begin_q, end_q), (begin_k, end_k) in zip(pairwise(ends_q), pairwise(ends_k), strict=True):
        q, k, v = query[:, :, begin_q:end_q], key[:, :, begin_k:end_k], value[:, :, begin_k:end_k]
        long_q, long_k = end_q - begin_q, end_k - begin_k
        mask = None
        if long_q != long_k or (window is not None and long_k > window):
            distance = torch.arange(long_k - long_q, long_k, device=q.device)[:, None] - torch.arange(long_k, device=q.device)
            mask = (distance >= 0) & (distance < (window or long_k))
        parts.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped))
    return torch.cat(parts, dim=2).transpose(1, 2)


@torch.library.custom_op("socratune::repeat_keys", mutates_args=())
def repeat_keys(states: Tensor, keys: Tensor, places: Tensor) -> Tensor:
    """Keys or values [T, heads, d] in the order of `keys` [K]; `places` [T, M] is its inverse."""
    return states.index_select(0, keys)


@repeat_keys.register_fake
def _(states: Tensor, keys: Tensor, places: Tensor) -> Tensor:
    return states.new_empty(keys.shape[0], *states.shape[1:])


def join_keys(gradient: Tensor, places: Tensor) -> Tensor:
    """What `repeat_keys` passes back: for each token the sum over its places, of [K, heads, d]."""
    total = torch.where((places[:, 0] >= 0)[:, None, None], gradient[places[:, 0].clamp(min=0)], 0.0)
    for column in range(1, places.shape[1]):
        total = total + torch.where((places[:, column] >= 0)[:, None, None], gradient[places[:, column].clamp(min=0)], 0.0)
    return total


@torch.library.custom_op("socratune::repeat_keys_backward", mutates_args=())
def repeat_keys_backward(gradient: Tensor, places: Tensor) -> Tensor:
    """`join_keys` as one kernel on CUDA: torch's own backward of an index is an order of magnitude slower."""
    if not gradient.is_cuda:
        return join_keys(gradient, places)
    torch._dynamo.mark_dynamic(gradient, 0)
    torch._dynamo.mark_dynamic(places, 0)
    return _kernel()(gradient, places)  # type: ignore[no-any-return]


@repeat_keys_backward.register_fake
def _(gradient: Tensor, places: Tensor) -> Tensor:
    return gradient.new_empty(places.shape[0], *gradient.shape[1:])


@cache
def _kernel() -> Any:
    return torch.compile(join_keys) if can_compile() else join_keys


def _keep_places(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[2])


def _back(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return repeat_keys_backward(gradient.contiguous(), ctx.saved_tensors[0]), None, None


repeat_keys.register_autograd(_back, setup_context=_keep_places)


def register() -> None:
    """Make `attn_implementation="packed"` known to transformers; calls without segments get SDPA's masks."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


register()
