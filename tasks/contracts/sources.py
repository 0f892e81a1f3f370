"""What a name in a profile means: a file or folder here, or something on the hub."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt", ".gz", ".zip", ".gguf", ".safetensors")


def is_hub_id(name: str) -> bool:
    """Whether a name that is no path here reads as owner/name; data/train.json is a file that is not there."""
    return _HUB_ID.fullmatch(name) is not None and not name.lower().endswith(_FILES) and not Path(name).exists()


def is_lost_path(name: str) -> bool:
    """Whether a name can only be a path, and nothing is there."""
    return not Path(name).exists() and ("/" in name or "\\" in name or name.lower().endswith(_FILES)) and not is_hub_id(name)
