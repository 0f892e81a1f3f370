"""A stable name for a plain value. Refuses what has none, because a permissive fallback forks identity between processes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import fields, is_dataclass
from enum import Enum

from pydantic import BaseModel

from tasks.contracts.failures import NotFingerprintable


def canonical(value: object) -> object:
    """Plain JSON form of `value`: None, bool, int, finite float, str, and containers, enums, dataclasses and pydantic models of these.

    Raises NotFingerprintable for anything else: paths (hash the content instead), sets, objects, NaN.
    """
    if value is None or (isinstance(value, (bool, int)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotFingerprintable(f"{value} has no stable form; use a finite number or leave the field out")
        return value
    if isinstance(value, BaseModel):
        return {name: canonical(getattr(value, name)) for name in type(value).model_fields}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: canonical(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise NotFingerprintable("a mapping with keys that are not text has no stable form")
        return {str(key): canonical(item) for key, item in value.items()}
    raise NotFingerprintable(f"{type(value).__qualname__} has no stable form; recipes hold numbers, text, enums and sequences of these")


def fingerprint(value: object) -> str:
    """64 hexadecimal digits of SHA-256 over the canonical JSON of `value`."""
    text = json.dumps(canonical(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
