"""Prepare a finished run for the Hub: an adapter and the curated data, each in a folder with its card. Nothing is uploaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.contracts.artifacts import TABLE, read_record, read_rows, write_atomically
from tasks.contracts.failures import DataError, GuardError
from tasks.contracts.outcomes import read_run
from tasks.contracts.rows import Curated
from tasks.logic.report.cards import base_model, data_card, model_card, publishable_config

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "vocab.json", "merges.txt", "chat_template.jinja")
EXPORTS = ("track_a", "track_b", "pairs")
UNPUBLISHED = ("request_id", "attempts", "status")  # of a reply: how an account asked for it
KEYS = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")


def prepare_release(run: Path, *, model: str, out: Path) -> str:
    """Write `out`/model and `out`/data; returns what was written and the commands that upload it.

    Raises DataError when `run` is no finished run, did not train `model`, or `out` is in use, and GuardError when a file names this machine or holds a key.
    """
    summary = read_run(run)
    root = run.resolve().parents[2]
    stages = {line["stage"]: root / line["artifact"] for line in summary["stages"]}
    adapters = {name.removeprefix("finetune "): path for name, path in stages.items() if name.startswith("finetune ")} | {"aligned": stages["align"]}
    if model not in adapters:
        raise DataError(f"this run trained no {model!r}; its adapters: {', '.join(sorted(adapters))}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not empty; give --out a new folder, so that nothing of an earlier release is left in it")
    student = next(path for name, path in stages.items() if name.startswith("student "))
    _write_model(out / "model", summary, model=model, adapter=adapters[model], student=student)
    _write_data(out / "data", summary, run=run, curated=stages["curate"])
    _refuse_leaks(out, root)
    name = f"{summary['profile']}-{model}".replace("_", "-")
    return (
        f"{out}/model and {out}/data are ready. Read both README.md, add a license, then upload them yourself:\n"
        f"  hf upload YOUR_NAME/{name} {out}/model .\n"
        f"  hf upload YOUR_NAME/{name}-data {out}/data . --repo-type dataset"
    )


def _write_model(folder: Path, summary: Mapping[str, Any], *, model: str, adapter: Path, student: Path) -> None:
    folder.mkdir(parents=True)
    base = base_model(summary["student"])
    shutil.copyfile(adapter / WEIGHTS, folder / WEIGHTS)
    for source in [adapter / CONFIG, *(student / name for name in TOKENIZER if (student / name).is_file())]:
        if source.name in (CONFIG, "tokenizer_config.json"):
            config = publishable_config(json.loads(source.read_text(encoding="utf-8")), base=base)
            write_atomically(folder / source.name, json.dumps(config, indent=1, ensure_ascii=False))
        else:
            shutil.copyfile(source, folder / source.name)
    card = model_card(summary, model=model, trained=read_record(adapter), student=read_record(student)["summary"])
    write_atomically(folder / "README.md", card)


def _write_data(folder: Path, summary: Mapping[str, Any], *, run: Path, curated: Path) -> None:
    folder.mkdir(parents=True)
    rows = [{key: value for key, value in asdict(row).items() if key not in UNPUBLISHED} for row in read_rows(curated / TABLE, Curated)]
    counts = {"curated": _write_lines(folder / "curated.jsonl", (json.dumps(row, ensure_ascii=False) for row in rows))}
    for name in EXPORTS:
        lines = (run / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
        counts[name] = _write_lines(folder / f"{name}.jsonl", filter(None, lines))
    write_atomically(folder / "README.md", data_card(summary, rows=counts))


def _write_lines(path: Path, lines: Iterable[str]) -> int:
    listed = list(lines)
    write_atomically(path, "".join(f"{line}\n" for line in listed))
    return len(listed)


def _refuse_leaks(out: Path, root: Path) -> None:
    """Look through every byte that would be published; what is found is taken away again."""
    private = {f"{root}{os.sep}", f"{Path.home()}{os.sep}", *filter(None, (os.environ.get(name) for name in KEYS))}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if any(word.encode() in content for word in private):
            shutil.rmtree(out)
            raise GuardError(f"{path.relative_to(out)} would publish a path of this machine or a key; nothing was prepared. Look for it in the run's artifacts")
