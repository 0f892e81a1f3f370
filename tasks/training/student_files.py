"""What a student's folder must hold, looked at before anything is loaded: which file is wrong, and what to do."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from tasks.contracts.failures import StudentError

TODAY = date(2024, 7, 26)  # of every template that prints the date: a student is asked tomorrow in the words that it was taught today (Meta's own default)
CLOCK = "strftime_now"  # how a chat template asks what day it is
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
_INDEX = "model.safetensors.index.json"
_ADVICE = "copy the folder again, or set recipe.student.model to another one"


def check_student(folder: Path, *, quantization: str) -> None:
    """Raise StudentError, in one line, for a folder that cannot be loaded as it is, or that would be loaded as something else."""
    if not folder.is_dir():
        raise StudentError(f"{folder} is no folder; set recipe.student.model to a folder with a model, or to a hub id")
    if (folder / "adapter_config.json").exists():
        raise StudentError(
            f"{folder / 'adapter_config.json'}: the student is a LoRA adapter, which needs its base; merge them (peft: "
            "AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW), and the tokenizer) and name the new folder"
        )
    config = _object(folder / "config.json")
    if not config.get("model_type"):
        raise StudentError(f"{folder / 'config.json'} names no model_type, so nobody knows what to build; {_ADVICE}")
    _check_quantization(folder, config.get("quantization_config"), quantization=quantization)
    if not any((folder / name).exists() for name in _TOKENIZERS):
        raise StudentError(f"{folder} has no tokenizer (none of {', '.join(_TOKENIZERS)}); copy the one of its model into the folder")
    _check_weights(folder)


def prompt_date(folder: Path) -> str:
    """The day that every prompt of the student names where its chat template asks for the date, "" where it does not."""
    files = [*(folder / name for name in _TEMPLATES), *folder.glob("additional_chat_templates/*")]
    return TODAY.isoformat() if any(CLOCK in path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()) else ""


def _check_quantization(folder: Path, given: object, *, quantization: str) -> None:
    if not given:
        return
    method = given.get("quant_method", "unknown") if isinstance(given, dict) else "unknown"
    if quantization == "none" or method != "bitsandbytes":
        raise StudentError(
            f"{folder / 'config.json'}: the weights are already quantised ({method}), which recipe.student.quantization={quantization} cannot take; "
            "name the unquantised model, and quantization nf4 to have it in 4 bits"
        )


def _check_weights(folder: Path) -> None:
    """That every file of weights is there and whole. Other formats than safetensors are the loader's business."""
    if (folder / _INDEX).exists():
        shards = _object(folder / _INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise StudentError(f"{folder / _INDEX} lists no weights; {_ADVICE}")
        files = [folder / str(name) for name in sorted(set(shards.values()))]
    else:
        files = sorted(folder.glob("*.safetensors"))
        if not files and not list(folder.glob("pytorch_model*.bin")):
            raise StudentError(f"{folder} holds no weights (model.safetensors); {_ADVICE}")
    for file in files:
        if not file.is_file():
            raise StudentError(f"{file} is missing, and {_INDEX} lists it; {_ADVICE}")
        _check_safetensors(file)


def _check_safetensors(file: Path) -> None:
    """A header whose length comes first, then as many bytes as it says."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= size else b""
    try:
        tensors = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"), default=0)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError):
        raise StudentError(f"{file} is damaged or no safetensors file ({size:,} bytes, without a whole header); {_ADVICE}") from None
    if size != 8 + length + end:
        raise StudentError(f"{file} is cut short or damaged: {size:,} bytes, and its header speaks of {8 + length + end:,}; {_ADVICE}")


def _object(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise StudentError(f"{file} is missing; {_ADVICE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise StudentError(f"{file} cannot be read as JSON ({error}); {_ADVICE}") from None
    if not isinstance(read, dict):
        raise StudentError(f"{file} holds no JSON object; {_ADVICE}")
    return read
