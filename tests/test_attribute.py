"""Which models are one and the same, so that nothing is attributed twice."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.attribute import same_weights
from tasks.contracts.artifacts import ArtifactRoot, ModelRef


def adapter(root: Path, key: str, *, weights: str, history: str) -> ModelRef:
    path = f"models/align/{key}"
    (root / path).mkdir(parents=True)
    files = {"adapter_model.safetensors": {"sha256": weights}, "history.json": {"sha256": history}}
    (root / path / "artifact.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    return ModelRef(stage="align", key=key, digest=weights + history, path=path, base="models/student")


def test_models_that_differ_in_their_history_alone_are_the_same(tmp_path: Path) -> None:
    first, kept = adapter(tmp_path, "a", weights="1", history="2"), adapter(tmp_path, "b", weights="1", history="3")
    trained = adapter(tmp_path, "c", weights="4", history="3")
    root = ArtifactRoot(tmp_path)
    assert same_weights(root, first, kept)
    assert not same_weights(root, kept, trained)
