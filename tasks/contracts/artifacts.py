"""The only artifact I/O: typed tables in Parquet, model folders, and the record that makes either one exist.

An artifact is a folder `data/<stage>/<key>/` (tables) or `models/<stage>/<key>/` (models) whose `artifact.json` is written
last, through a temporary name, fsync and rename: no `artifact.json`, no artifact. Refs travel between tasks, not rows.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from tasks.contracts.failures import ArtifactError, NotYet
from tasks.contracts.fingerprint import canonical, fingerprint

R = TypeVar("R")
RECORD = "artifact.json"
TABLE = "part-0.parquet"
TEST_READS = "test_reads.jsonl"
_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), tuple[str, ...]: pa.list_(pa.string())}
_PACKAGES = ("prefect", "torch", "transformers", "peft", "trl", "bitsandbytes", "openai", "pyarrow", "pandas")


class TableRef(BaseModel, Generic[R]):
    """A table by content: hashing a ref is hashing its rows. `path` is relative to the artifact root."""

    model_config = ConfigDict(frozen=True)
    stage: str
    key: str
    digest: str
    rows: int
    path: str


class ModelRef(BaseModel):
    """A model folder (full weights, or an adapter over `base`) by content. `path` is relative to the artifact root."""

    model_config = ConfigDict(frozen=True)
    stage: str
    key: str
    digest: str
    path: str
    base: str  # path of the full model an adapter sits on, relative to the root; "" for full weights


@dataclass(frozen=True)
class Address:
    """Where a stage's output lives and everything its name was hashed from."""

    stage: str
    version: int
    recipe: object
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Digest of stage, version, recipe section and input digests."""
        return fingerprint({"stage": self.stage, "version": self.version, "recipe": self.recipe, "inputs": dict(self.inputs)})

    @property
    def key(self) -> str:
        """The eight digits that name the folder."""
        return self.fingerprint[:8]


def arrow_schema(row_type: type) -> pa.Schema:
    """Parquet schema of a row class, every column required."""
    hints = typing.get_type_hints(row_type)
    return pa.schema([pa.field(field.name, _ARROW[hints[field.name]], nullable=False) for field in fields(row_type)])


def write_rows(path: Path, rows: Iterable[R], row_type: type[R]) -> int:
    """Write rows of `row_type` to one Parquet file; returns how many."""
    schema = arrow_schema(row_type)
    listed = list(rows)
    columns = [pa.array([_plain(getattr(row, name)) for row in listed], type=schema.field(name).type) for name in schema.names]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), path)
    return len(listed)


def read_rows(path: Path, row_type: type[R]) -> list[R]:
    """Read rows of `row_type`; raises ArtifactError naming the file and the column that differs."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read as Parquet ({error}); delete its folder and run again: it will be recomputed") from error
    wanted = arrow_schema(row_type)
    found = {field.name: field.type for field in table.schema}
    for field in wanted:
        if found.get(field.name) != field.type:
            raise ArtifactError(
                f"{path}: column {field.name!r} is {found.get(field.name, 'missing')}, {row_type.__name__} needs {field.type}; delete the folder and run again"
            )
    names = wanted.names
    columns = [table.column(name).to_pylist() for name in names]
    lists = {name for name in names if pa.types.is_list(wanted.field(name).type)}
    return [
        row_type(**{name: tuple(value) if name in lists else value for name, value in zip(names, values, strict=True)}) for values in zip(*columns, strict=True)
    ]


class ArtifactRoot:
    """The folder that holds `data/` and `models/`. Finds, verifies, reads and seals artifacts."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def folder(self, kind: str, address: Address) -> Path:
        """Final folder of an artifact; `kind` is "data" or "models"."""
        return self.path / kind / address.stage / address.key

    def work_folder(self, address: Address) -> Path:
        """Scratch folder of a stage that is still running; survives a crash so that training can resume in it."""
        folder = self.path / "data" / ".work" / f"{address.stage}-{address.key}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def absolute(self, ref: TableRef[typing.Any] | ModelRef) -> Path:
        """Absolute folder of a ref. Raises NotYet for one that is only foreseen."""
        if not ref.digest:
            raise NotYet(f"the {ref.stage} stage has not run yet")
        return self.path / ref.path

    def read(self, ref: TableRef[R], row_type: type[R]) -> list[R]:
        """Rows of a table. Raises NotYet for one that is only foreseen."""
        return read_rows(self.absolute(ref) / TABLE, row_type)

    def record(self, ref: TableRef[typing.Any] | ModelRef) -> dict[str, typing.Any]:
        """The artifact's `artifact.json`."""
        return read_record(self.absolute(ref))

    def model_at(self, path: str) -> ModelRef:
        """The model in a folder, given relative to the root. Raises ArtifactError where there is none or it has changed."""
        record = read_record(self.path / path)
        if not all(_intact(self.path / path / name, entry) for name, entry in record["files"].items()):
            raise ArtifactError(f"{self.path / path} has changed since it was made; run what made it again")
        stage, key = path.split("/")[-2:]
        return ModelRef(stage=stage, key=key, digest=record["digest"], path=path, base=record["base"])

    def find_table(self, address: Address) -> TableRef[typing.Any] | None:
        """The table at `address` if it is complete and its bytes are those recorded, else None."""
        found = self._find("data", address)
        if found is None or found["partial"]:
            return None
        return self._table_ref(address, found)

    def _table_ref(self, address: Address, found: Mapping[str, typing.Any]) -> TableRef[typing.Any]:
        path = self.folder("data", address).relative_to(self.path).as_posix()
        return TableRef(stage=address.stage, key=address.key, digest=found["digest"], rows=found["rows"], path=path)

    def find_model(self, address: Address) -> ModelRef | None:
        """The model at `address` if it is complete and unchanged, else None."""
        found = self._find("models", address)
        if found is None:
            return None
        path = self.folder("models", address).relative_to(self.path).as_posix()
        return ModelRef(stage=address.stage, key=address.key, digest=found["digest"], path=path, base=found["base"])

    def save_table(
        self, address: Address, rows: Iterable[R], row_type: type[R], *, summary: Mapping[str, object], seconds: float, partial: bool = False
    ) -> TableRef[R]:
        """Write a table and its record. `summary` is what reports show: counts, class shares, dollars.

        A `partial` table serves the run that made it; the next run does not find it and makes it again.
        """
        folder = self._fresh("data", address)
        count = write_rows(folder / TABLE, rows, row_type)
        self._seal(
            folder,
            address,
            summary=summary,
            seconds=seconds,
            extra={"rows": count, "row_type": row_type.__name__, "schema": str(arrow_schema(row_type)), "base": "", "partial": partial},
        )
        found = self._find("data", address)
        if found is None:
            raise ArtifactError(f"{folder} was written but does not verify; is another process writing to it, or is the disk full?")
        return self._table_ref(address, found)

    def save_model(self, address: Address, produced: Path, *, base: str, summary: Mapping[str, object], seconds: float) -> ModelRef:
        """Move a finished model folder into place and write its record."""
        folder = self._fresh("models", address)
        for item in sorted(produced.iterdir()):
            shutil.move(str(item), folder / item.name)
        self._seal(folder, address, summary=summary, seconds=seconds, extra={"rows": 0, "row_type": "", "schema": "", "base": base, "partial": False})
        found = self.find_model(address)
        if found is None:
            raise ArtifactError(f"{folder} was written but does not verify; is another process writing to it, or is the disk full?")
        return found

    def test_reads(self) -> list[dict[str, typing.Any]]:
        """The register of test-split readings, oldest first."""
        path = self.path / "data" / TEST_READS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    def register_test_read(self, entry: Mapping[str, object]) -> None:
        """Append one reading of a test split; a test split is spent, not used."""
        path = self.path / "data" / TEST_READS
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **entry}, sort_keys=True) + "\n")

    def _fresh(self, kind: str, address: Address) -> Path:
        folder = self.folder(kind, address)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _seal(self, folder: Path, address: Address, *, summary: Mapping[str, object], seconds: float, extra: Mapping[str, object]) -> None:
        files = {path.relative_to(folder).as_posix(): _describe(path) for path in sorted(folder.rglob("*")) if path.is_file()}
        digest = fingerprint({name: entry["sha256"] for name, entry in files.items()})
        record = {
            "stage": address.stage,
            "version": address.version,
            "fingerprint": address.fingerprint,
            "recipe": canonical(address.recipe),
            "inputs": dict(address.inputs),
            "digest": digest,
            "files": files,
            "summary": summary,
            "seconds": round(seconds, 3),
            "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "packages": {name: _version(name) for name in _PACKAGES},
            "python": sys.version.split()[0],
            "commit": _commit(),
            **extra,
        }
        write_atomically(folder / RECORD, json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False))

    def _find(self, kind: str, address: Address) -> dict[str, typing.Any] | None:
        folder = self.folder(kind, address)
        if not (folder / RECORD).is_file():
            return None
        try:
            record = read_record(folder)
        except ArtifactError:
            return None
        intact = record.get("fingerprint") == address.fingerprint and all(_intact(folder / name, entry) for name, entry in record["files"].items())
        return record if intact else None


def content_digest(path: Path) -> str:
    """Digest of a file, or of a folder's files by relative name: a file named in a recipe counts by content, not by path."""
    if path.is_dir():
        return fingerprint({item.relative_to(path).as_posix(): file_sha256(item) for item in sorted(path.rglob("*")) if item.is_file()})
    return file_sha256(path)


def write_atomically(path: Path, text: str) -> None:
    """Write text so that a reader sees the old file or the whole new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _describe(path: Path) -> dict[str, typing.Any]:
    stat = path.stat()
    return {"sha256": file_sha256(path), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _intact(path: Path, entry: Mapping[str, typing.Any]) -> bool:
    """A file whose size and modification time are as recorded is taken as unchanged if it is large; small files are hashed."""
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return False
    if entry["bytes"] > 64 * 2**20 and path.stat().st_mtime_ns == entry["mtime_ns"]:
        return True
    return file_sha256(path) == str(entry["sha256"])


def read_record(folder: Path) -> dict[str, typing.Any]:
    """The `artifact.json` of an artifact's folder. Raises ArtifactError where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / RECORD} cannot be read ({error}); delete the folder and run again") from error
    if not isinstance(record, dict):
        raise ArtifactError(f"{folder / RECORD} is not a record; delete the folder and run again")
    return record


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@functools.cache
def _commit() -> str:
    """The project's git commit, "" outside a checkout or without git."""
    if shutil.which("git") is None:
        return ""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
