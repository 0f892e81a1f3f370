"""How many tokens a prompt has, before it is sent: counted where OpenAI's tables lie on this disk, else estimated. Never downloads."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tiktoken

_FRAMING = 4  # tokens around each message (OpenAI cookbook, "How to count tokens with tiktoken")
_TABLES = "https://openaipublic.blob.core.windows.net/encodings"


def estimated_tokens(messages: Sequence[dict[str, str]], *, model: str) -> int:
    """The prompt's tokens: by the model's own table, else 4 bytes of English a token."""
    table = _table(model)
    if table is None:
        return sum(len(each["content"].encode("utf-8", "replace")) // 4 + _FRAMING for each in messages)
    return sum(len(table.encode_ordinary(each["content"])) + _FRAMING for each in messages)


def most_tokens(messages: Sequence[dict[str, str]]) -> int:
    """Upper bound of the prompt's tokens: no byte-level tokenizer makes more tokens than there are bytes."""
    return sum(len(text.encode("utf-8", "replace")) + 8 for message in messages for text in message.values())


def how_counted(model: str) -> str:
    """Where the figures of `estimated_tokens` come from, in words."""
    table = _table(model)
    return "estimated at 4 bytes a token" if table is None else f"counted with tiktoken's {table.name}"


@functools.cache
def _table(model: str) -> tiktoken.Encoding | None:
    """The model's encoding if it is known and was downloaded before, else None."""
    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return None
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR") or str(Path(tempfile.gettempdir()) / "data-gym-cache")
    cached = Path(folder) / hashlib.sha1(f"{_TABLES}/{name}.tiktoken".encode()).hexdigest()
    return tiktoken.get_encoding(name) if cached.is_file() else None
