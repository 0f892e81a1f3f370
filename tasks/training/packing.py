"""Rows without padding: many prompts and completions end to end in one sequence, each seeing only its own text.

The unit is a `Bundle`: one prompt and the completions that are read after it. A training example has one completion, a preference pair two,
a choice question one a choice. The prompt is computed once: the first completion stands behind it as one text, each further one attends to
the prompt's keys and values as if it stood there instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tasks.training.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Token ids of a prompt and of the completions that follow it; `key` names its row in the table, for noise that depends on nothing else."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    key: int = 0

    @property
    def size(self) -> int:
        """Tokens that are computed: the prompt once, and every completion but its last token, which predicts nothing."""
        return len(self.prompt) + sum(len(each) - 1 for each in self.completions)

    @classmethod
    def of(cls, *rows: Tokens, key: int = 0) -> Bundle:
        """Rows that have the same prompt; rows without a prompt have no part to share and must come alone."""
        prompt = rows[0].ids[: rows[0].prompt]
        return cls(prompt=prompt, completions=tuple(row.ids[row.prompt :] for row in rows), key=key)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Bundles as tensors. T tokens, S attention segments, K key positions, N scored tokens, C completions.

    `ids`, `positions`, `rows` [T]: token, its place in its own text, and its bundle's key. `ends_q`, `ends_k` [S + 1]: where segments end in the
    queries and in the keys; `keys` [K] says which token each key is of (None: the tokens as they stand). `source`, `target` [N]: the token
    whose hidden state predicts, and the token that it predicts. `lengths` [C]: scored tokens of each completion. `longest`: tokens of the
    longest segment. `places` [T, M]: where each token stands in `keys`, -1 beyond its last place. `filled`: the same grown to fixed sizes.
    """

    ids: Tensor
    positions: Tensor
    rows: Tensor
    ends_q: Tensor
    ends_k: Tensor
    keys: Tensor | None
    source: Tensor
    target: Tensor
    lengths: Tensor
    longest: int
    places: Tensor | None = None
    filled: Packed | None = None

    def to(self, device: torch.device | str) -> Packed:
        """The same on another device."""
        moved: dict[str, Any] = {name: to_device(value, torch.device(device)) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device. A copy from ordinary memory would wait for all that a GPU has yet to do; one from pinned memory takes its turn."""
    return (values.pin_memory() if device.type == "cuda" and not values.is_cuda else values).to(device, non_blocking=True)


def pack(bundles: Sequence[Bundle]) -> Packed:
    """Lay bundles end to end. Completions are numbered in the order of bundles, and inside a bundle in its own order."""
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    keys: list[int] = []
    ends_q, ends_k = [0], [0]
    source: list[int] = []
    target: list[int] = []
    lengths: list[int] = []
    for bundle in bundles:
        begin, prompt = len(ids), len(bundle.prompt)
        if not all(bundle.completions):
            raise ValueError("a completion without tokens has no probability")
        for number, completion in enumerate(bundle.completions):
            first, read = len(ids), completion[:-1]
            text = read if number else (*bundle.prompt, *read)
            if text:
                ids += text
                positions += range(prompt if number else 0, prompt + len(read))
                rows += [bundle.key] * len(text)
                keys += [*range(begin, begin + prompt if number else begin), *range(first, len(ids))]
                ends_q.append(len(ids))
                ends_k.append(len(keys))
            # what predicts the first token is the prompt's last one; nothing predicts the first token of a text without prompt
            source += [*([begin + prompt - 1] if prompt else []), *range(len(ids) - len(read), len(ids))]
            target += completion if prompt else completion[1:]
            lengths.append(len(completion) if prompt else len(completion) - 1)
    shared = len(keys) != len(ids)
    key_index = torch.tensor(keys) if shared else None
    longest = max(end - start for start, end in pairwise(ends_k))
    return Packed(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        rows=torch.tensor(rows),
        ends_q=torch.tensor(ends_q, dtype=torch.int32),
        ends_k=torch.tensor(ends_k, dtype=torch.int32),
        keys=key_index,
        source=torch.tensor(source),
        target=torch.tensor(target),
        lengths=torch.tensor(lengths),
        longest=longest,
        places=None if key_index is None else _places(key_index, tokens=len(ids)),
    )


def _places(keys: Tensor, *, tokens: int) -> Tensor:
    """For each token its places in `keys` [T, M], in order, -1 where it has fewer than others: the gradient of a shared key is the sum over them."""
    counts = torch.bincount(keys, minlength=tokens)
    order = torch.argsort(keys, stable=True)
    owner = keys[order]
    places = torch.full((tokens, int(counts.max())), -1)
    places[owner, torch.arange(len(keys)) - (counts.cumsum(0) - counts)[owner]] = order
    return places


def split(sizes: Sequence[int], *, budget: int, parts: int = 1) -> list[list[int]]:
    """Indices of `sizes` in as few groups as keep each within `budget`, of like totals; the number of groups is a multiple of `parts`.

    An item larger than the budget stands alone. Longest first into the emptiest group: totals differ by less than one item.
    """
    order = sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))
    count = -(-max(1, -(-sum(sizes) // budget)) // parts) * parts
    while True:
        groups: list[list[int]] = [[] for _ in range(count)]
        totals = [0] * count
        for index in order:
            place = totals.index(min(totals))
            groups[place].append(index)
            totals[place] += sizes[index]
        if count >= len(sizes) or all(total <= budget or len(group) == 1 for total, group in zip(totals, groups, strict=True)):
            return groups
        count += parts


def fill(packed: Packed, *, tokens: int, segments: int, scored: int, keys: int, longest: int) -> Packed:
    """The same batch grown to fixed sizes, so that one recorded CUDA graph serves many batches. Filling is a text of its own that nobody scores.

    Its tokens are the id 0 at positions 0, 1, ...; further segments are empty; scored places that are added point at token 0 and are to be cut off.
    Nothing flows back through filling, so its keys have no places.
    """
    extra, now = tokens - len(packed.ids), len(packed.ids)
    filling = torch.arange(extra)
    ends_q = [tokens] if extra else []
    known = packed.keys if packed.keys is not None else torch.arange(now)
    ends_k = [keys] if extra else []
    grown_keys = torch.cat([known, now + torch.arange(keys - len(known)) % max(extra, 1)])
    rest = segments - (len(packed.ends_q) - 1) - len(ends_q)
    return replace(
        packed,
        ids=torch.cat([packed.ids, torch.zeros(extra, dtype=torch.long)]),
        positions=torch.cat([packed.positions, filling]),
        rows=torch.cat([packed.rows, torch.full((extra,), -1)]),
        ends_q=torch.cat([packed.ends_q, torch.tensor(ends_q + [tokens] * rest, dtype=torch.int32)]),
        ends_k=torch.cat([packed.ends_k, torch.tensor(ends_k + [keys] * rest, dtype=torch.int32)]),
        keys=grown_keys if packed.keys is not None else None,
        places=None if packed.places is None else torch.cat([packed.places, torch.full((extra, packed.places.shape[1]), -1)]),
        source=torch.cat([packed.source, torch.zeros(scored - len(packed.source), dtype=torch.long)]),
        target=torch.cat([packed.target, torch.zeros(scored - len(packed.target), dtype=torch.long)]),
        longest=longest,
    )
