"""Text from outside as data: whole characters only, nothing that steers a terminal or ends a string early."""

from __future__ import annotations

_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def clean(text: str) -> str:
    """`text` with lone surrogates replaced and control characters but tab and newline removed."""
    return text.encode("utf-8", "replace").decode("utf-8").translate(_CONTROLS)


def line_of(text: str) -> str:
    """`text` cleaned, as one line with single spaces."""
    return clean(" ".join(text.split()))
