"""Folders that are no student: the file that is wrong is named, with what to do, and no library speaks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.failures import StudentError
from tasks.training.student import load_student
from tests.training.jobs import weights


def _config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def _cut(folder: Path, name: str, share: float) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * share)])


def _sharded(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


BROKEN: dict[str, tuple[Callable[[Path], object], str, str]] = {  # what is done to a sound folder, the file named, words of the advice
    "an adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter_config.json", "merge_and_unload"),
    "weights cut short": (lambda folder: _cut(folder, "model.safetensors", 0.6), "model.safetensors", "is cut short"),
    "weights cut in their header": (lambda folder: _cut(folder, "model.safetensors", 0.0001), "model.safetensors", "without a whole header"),
    "no bytes": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors", "without a whole header"),
    "a pointer of git": (lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs"), "model.safetensors", "damaged"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors", "holds no weights"),
    "a shard missing": (lambda folder: _sharded(folder, '{"weight_map": {"a": "model-2.safetensors"}}'), "model-2.safetensors", "is missing"),
    "an empty index": (lambda folder: _sharded(folder, '{"weight_map": {}}'), "model.safetensors.index.json", "lists no weights"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "config.json", "is missing"),
    "half a configuration": (lambda folder: _cut(folder, "config.json", 0.5), "config.json", "cannot be read as JSON"),
    "a configuration that is a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json", "no JSON object"),
    "no kind of model": (lambda folder: _config(folder, model_type=None), "config.json", "model_type"),
    "an unknown kind of model": (lambda folder: _config(folder, model_type="nobody-knows", architectures=["Nobody"]), "nobody-knows", "name another one"),
    "another width": (lambda folder: _config(folder, hidden_size=256, head_dim=64), "", "cannot be loaded"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json", "has no tokenizer"),
    "half a tokenizer": (lambda folder: _cut(folder, "tokenizer.json", 0.5), "", "cannot be loaded"),
    "quantised by another": (lambda folder: _config(folder, quantization_config={"quant_method": "gptq", "bits": 4}), "config.json", "quantised (gptq)"),
    "quantised already": (
        lambda folder: _config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "config.json", "quantised (bitsandbytes)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_is_no_student_is_one_line_that_names_the_file(tiny: Path, tmp_path: Path, name: str) -> None:
    spoil, file, words = BROKEN[name]
    folder = shutil.copytree(tiny, tmp_path / "student")
    spoil(folder)
    with pytest.raises(StudentError) as caught:
        load_student(weights(folder), folder=tmp_path, device="cpu", trainable=False)
    said = str(caught.value)
    assert "\n" not in said
    assert str(folder) in said
    assert file in said
    assert words in said


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudentError, match="nowhere is no folder"):
        load_student(weights(tmp_path / "nowhere"), folder=tmp_path, device="cpu", trainable=False)
