"""Whole ledgers: exported to Parquet, imported on another machine, counted, verified. Every one streams, so size does not matter."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contracts.failures import ArtifactError
from tasks.gateways.ledger import Entry, Ledger
from tasks.gateways.teacher import Reply

_ROWS = 5_000  # a row group, and a transaction
_REPLY = {
    "text": pa.string(), "finish_reason": pa.string(), "model": pa.string(), "tokens_in": pa.int64(), "tokens_out": pa.int64(),
    "tokens_cached": pa.int64(), "request_id": pa.string(), "status": pa.int64(), "tries": pa.int64(), "seconds": pa.float64(),
    "estimated": pa.bool_(), "thought": pa.int64(),
}  # fmt: skip
_SCHEMA = pa.schema(
    [("key", pa.string()), ("source", pa.string()), ("usd", pa.float64()), ("mode", pa.string()), ("created_at", pa.string()), *_REPLY.items()],
    metadata={"socratune": "ledger-2"},
)


@dataclass(frozen=True, kw_only=True)
class LedgerStats:
    """What a ledger holds. `replies` by (source, model, mode); `usd_kept` is what the replies in it cost."""

    rows: int
    damaged: tuple[str, ...]
    replies: dict[tuple[str, str, str], int]
    finish_reasons: dict[str, int]
    tokens_in: int
    tokens_out: int
    usd_kept: float
    usd_spent: float
    bytes: int


def ledger_stats(ledger: Ledger) -> LedgerStats:
    """Count everything, checksums included."""
    replies: Counter[tuple[str, str, str]] = Counter()
    reasons: Counter[str] = Counter()
    damaged, tokens_in, tokens_out, usd = [], 0, 0, 0.0
    for entry in ledger.entries():
        if isinstance(entry, str):
            damaged.append(entry)
            continue
        replies[entry.source, entry.reply.model, entry.mode] += 1
        reasons[entry.reply.finish_reason or "none"] += 1
        tokens_in, tokens_out, usd = tokens_in + entry.reply.tokens_in, tokens_out + entry.reply.tokens_out, usd + (entry.usd or 0.0)
    size = sum(path.stat().st_size for path in ledger.path.parent.glob(f"{ledger.path.name}*"))
    return LedgerStats(
        rows=sum(replies.values()) + len(damaged), damaged=tuple(damaged), replies=dict(replies), finish_reasons=dict(reasons),
        tokens_in=tokens_in, tokens_out=tokens_out, usd_kept=usd, usd_spent=ledger.spent(), bytes=size,
    )  # fmt: skip


def verify_ledger(ledger: Ledger) -> list[str]:
    """Everything that is wrong with the file, in words; empty for a sound one."""
    faults = []
    try:
        faults += [str(fault) for (fault,) in ledger.db.execute("PRAGMA integrity_check") if fault != "ok"]
        damaged = (entry for entry in ledger.entries() if isinstance(entry, str))
        faults += [f"row {key} fails its checksum; it will be bought again when it is next asked for" for key in damaged]
    except (sqlite3.DatabaseError, ArtifactError) as error:
        faults.append(f"the file cannot be read to its end ({error}): export what can be read and import it into a new ledger")
    return faults


def lost_rows(ledger: Ledger, *, kept: int) -> int:
    """How many replies the file once held and an export of `kept` rows does not: these are bought again."""
    return max(len(_indexed(ledger)) - kept, 0)


def export_ledger(ledger: Ledger, path: Path) -> int:
    """Write every sound row to a Parquet file, as far as the ledger can be read; returns how many. Lone surrogates in texts are replaced."""
    entries = _readable(ledger)
    count = 0
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        while some := list(islice(entries, _ROWS)):
            writer.write_table(pa.Table.from_pylist([_row(entry) for entry in some], schema=_SCHEMA))
            count += len(some)
    return count


def _readable(ledger: Ledger) -> Iterator[Entry]:
    """Sound rows, also behind a place where the file's structure is damaged: those are found by the index of keys, one by one."""
    try:
        yield from (entry for entry in ledger.entries() if isinstance(entry, Entry))
    except (sqlite3.DatabaseError, ArtifactError):
        read = set(_before_damage(ledger))
        for key in _indexed(ledger):
            if key not in read:
                with suppress(sqlite3.DatabaseError, ArtifactError):
                    yield from [entry for entry in ledger.entries(keys=[key]) if isinstance(entry, Entry)]


def _before_damage(ledger: Ledger) -> Iterator[str]:
    """The keys of the rows that can be read in their order."""
    with suppress(sqlite3.DatabaseError, ArtifactError):
        for entry in ledger.entries():
            yield entry if isinstance(entry, str) else entry.key


def _indexed(ledger: Ledger) -> list[str]:
    """The keys that the index knows, as far as it can be read."""
    keys: list[str] = []
    with suppress(sqlite3.DatabaseError, ArtifactError):
        keys.extend(key for (key,) in ledger.db.execute("SELECT key FROM replies INDEXED BY sqlite_autoindex_replies_1 ORDER BY key"))
    return keys


def import_ledger(ledger: Ledger, path: Path) -> int:
    """Add the rows of an export that the ledger lacks; returns how many. They were paid elsewhere and do not count as spent here."""
    entries = read_export(path)
    new = 0
    while some := list(islice(entries, _ROWS)):
        ledger.find_many(entry.key for entry in some)  # so that damaged rows are replaced
        with ledger.transaction():
            for entry in some:
                new += ledger.put(entry.key, entry.reply, source=entry.source, usd=entry.usd, mode="imported")
    return new


def read_export(path: Path) -> Iterator[Entry]:
    """The rows of an export, one at a time. Raises ArtifactError when the file is none."""
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(_SCHEMA):
                raise ArtifactError(f"{path} is no ledger export of this version; make one with `socratune ledger export`")
            for batch in file.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    yield _entry(row)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read as a ledger export ({error}); make one with `socratune ledger export`") from error


def _row(entry: Entry) -> dict[str, Any]:
    reply = {name: getattr(entry.reply, name) for name in _REPLY}
    reply["text"] = entry.reply.text.encode("utf-8", "replace").decode("utf-8")
    return {"key": entry.key, "source": entry.source, "usd": entry.usd, "mode": entry.mode, "created_at": entry.created_at, **reply}


def _entry(row: dict[str, Any]) -> Entry:
    reply = Reply(**{name: row.pop(name) for name in _REPLY})
    return Entry(reply=reply, **row)
