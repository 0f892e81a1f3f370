"""How long stages took before: what an estimate of the time left starts from."""

from __future__ import annotations

from tasks.contracts.artifacts import RECORD, ArtifactRoot, read_record
from tasks.contracts.failures import ArtifactError


def earlier_seconds(root: ArtifactRoot) -> dict[str, float]:
    """Seconds of the newest artifact of each stage. What cannot be read is no help and no harm."""
    found: dict[str, float] = {}
    for kind in ("data", "models"):
        for path in sorted((root.path / kind).glob(f"*/*/{RECORD}"), key=lambda each: each.stat().st_mtime):
            try:
                found[path.parent.parent.name] = float(read_record(path.parent)["seconds"])
            except (ArtifactError, KeyError, TypeError, ValueError):
                continue
    return found
