"""The request ledger: one SQLite file that remembers every teacher reply by what was asked.

Each reply is committed as it arrives, so a process killed with -9 loses only its calls in flight. The budget is held by
reservations made in the transaction that admits a call: spent + reserved never exceeds the cap, whoever else writes. Every row carries
a checksum: a damaged one counts as not there and is bought again, alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from tasks.contracts.asks import Usage
from tasks.contracts.failures import ArtifactError
from tasks.gateways.teacher import Billed, Reply
from tasks.logic.estimate import Known

SCHEMA_VERSION = 2
STALE_SECONDS = 3600.0  # a call's reservation of a process on another host is dropped after this; no call lives that long
LOOK_UP = 500  # keys a query

_SCHEMA = """
CREATE TABLE replies (
    key TEXT NOT NULL UNIQUE, source TEXT NOT NULL, body TEXT NOT NULL, usd REAL, mode TEXT NOT NULL, created_at TEXT NOT NULL, checksum BLOB NOT NULL
);
CREATE TABLE reservations (id INTEGER PRIMARY KEY, usd REAL NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, made_at REAL NOT NULL, batch TEXT);
CREATE TABLE totals (calls INTEGER NOT NULL, retries INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, usd REAL NOT NULL);
INSERT INTO totals VALUES (0, 0, 0, 0, 0.0);
CREATE TABLE batches (
    id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, state TEXT NOT NULL, file_id TEXT, remote_id TEXT, host TEXT NOT NULL, pid INTEGER NOT NULL
);
CREATE TABLE batch_lines (key TEXT NOT NULL, batch TEXT NOT NULL, PRIMARY KEY (key, batch)) WITHOUT ROWID;
"""
_ADVICE = {  # by what SQLite says
    "full": "make room on its disk and run again: every reply so far is kept",
    "disk I/O": "make room on its disk, or look whether the disk is sound, and run again: every reply so far is kept",
    "readonly": "make the file and its folder writable for you, or set execution.ledger to another file",
    "unable to open": "make the file and its folder writable for you, or set execution.ledger to another file",
    "locked": "another process holds it; run again when that one has ended",
    "not a database": "it cannot be used as a ledger; move it away or set execution.ledger to another file",
    "malformed": "save what can be read with `socratune ledger export`, move the file away, import the export into a new one: only the lost is bought again",
}
Mode = Literal["online", "batch", "imported"]


class _Telling(sqlite3.Connection):
    """A connection whose errors say, in one line, which file it is and what to do."""

    path = Path()

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """As any connection's."""
        try:
            return super().execute(*arguments)
        except sqlite3.Error as error:
            raise _told(self.path, error) from None


def _told(path: Path, error: sqlite3.Error) -> ArtifactError:
    """What is wrong with a ledger, and what to do."""
    said = str(error)
    advice = next((words for sign, words in _ADVICE.items() if sign in said), _ADVICE["malformed"])
    return ArtifactError(f"the teacher ledger {path}: {said}; {advice}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the ledger as it travels: exported, imported, verified."""

    key: str
    source: str
    reply: Reply
    usd: float | None
    mode: str
    created_at: str


@dataclass
class Ledger:
    """Replies by key, with the spending cap of the whole file. Safe for several processes; one object belongs to one thread.

    Opening creates the file. Raises ArtifactError when `path` is no ledger, or one of another version. `damaged` are keys whose row failed
    its checksum.
    """

    path: Path
    budget_usd: float | None
    damaged: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"the folder of the teacher ledger {self.path} cannot be made ({error}); set execution.root or execution.ledger") from None
        try:
            self.db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None, factory=_Telling)
        except sqlite3.Error as error:
            raise _told(self.path, error) from None
        self.db.path = self.path
        self.db.text_factory = lambda raw: raw.decode("utf-8", "replace")  # a damaged byte must reach the checksum, not raise
        try:
            self._prepare()
        except BaseException:
            self.db.close()
            raise

    def _prepare(self) -> None:
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        with self.transaction():
            (version,) = self.db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self.db.execute(statement)
                self.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if version not in (0, SCHEMA_VERSION):
            raise ArtifactError(
                f"{self.path} is a teacher ledger of version {version}, this program reads version {SCHEMA_VERSION}; set execution.ledger to another file"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Take the write lock at once, so that what is read inside is still true when it is written."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self.db.in_transaction:  # a full disk has ended it already
                self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def find(self, key: str) -> Reply | None:
        """The stored reply, or None."""
        return self.find_many([key]).get(key)

    def find_many(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The stored replies among `keys`. A damaged row is left out and noted in `damaged`."""
        found: dict[str, Reply] = {}
        wanted = list(keys)
        for start in range(0, len(wanted), LOOK_UP):
            some = wanted[start : start + LOOK_UP]
            marks = ",".join("?" * len(some))
            for key, source, body, usd, mode, created_at, checksum in self._select(f"SELECT * FROM replies WHERE key IN ({marks})", some):
                reply = _decoded(body) if checksum == _checksum(key, source, body, usd, mode, created_at) else None
                if reply is None:
                    self.damaged.add(key)
                else:
                    found[key] = reply
        return found

    def _select(self, query: str, values: Sequence[str]) -> list[tuple[Any, ...]]:
        """Rows of a query; raises ArtifactError where the file's structure is damaged."""
        try:
            return self.db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise _told(self.path, error) from None

    def record(self, key: str, reply: Reply, *, source: str, usd: float | None, mode: Mode = "online", reservation: int = 0) -> bool:
        """Commit one reply and give its reservation back. Two processes that bought the same reply keep the first and count both as spent.

        Returns whether this reply is the one that was kept.
        """
        with self.transaction():
            new = self.put(key, reply, source=source, usd=usd, mode=mode)
            self._count(reply, usd)
            if reservation:
                self.db.execute("DELETE FROM reservations WHERE id = ?", (reservation,))
        return new

    def charge(self, billed: Billed, usd: float) -> None:
        """Count what a call cost that brought no reply."""
        self.db.execute("UPDATE totals SET tokens_in = tokens_in + ?, tokens_out = tokens_out + ?, usd = usd + ?", (billed.tokens_in, billed.tokens_out, usd))

    def record_batch(self, batch: str, replies: Mapping[str, tuple[Reply, float | None]], *, source: str, lost: Sequence[tuple[Billed, float]] = ()) -> None:
        """Commit the replies of one batch, what was `lost` in it, and that it is collected, in one transaction, so that all is counted as spent once."""
        with self.transaction():
            for billed, dollars in lost:
                self.charge(billed, dollars)
            for key, (reply, usd) in replies.items():
                self.put(key, reply, source=source, usd=usd, mode="batch")
                self._count(reply, usd)
            self.db.execute("UPDATE batches SET state = 'collected' WHERE id = ?", (batch,))

    def put(self, key: str, reply: Reply, *, source: str, usd: float | None, mode: Mode) -> bool:
        """Write one row inside a transaction, replacing a damaged one; returns whether it was new."""
        price = None if usd is None else float(usd)
        values = (key, source, json.dumps(vars(reply), separators=(",", ":")), price, mode, datetime.now(UTC).isoformat(timespec="milliseconds"))
        word = "REPLACE" if key in self.damaged else "IGNORE"
        new = self.db.execute(f"INSERT OR {word} INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, _checksum(*values))).rowcount > 0
        self.damaged.discard(key)
        return new

    def _count(self, reply: Reply, usd: float | None) -> None:
        self.db.execute(
            "UPDATE totals SET calls = calls + 1, retries = retries + ?, tokens_in = tokens_in + ?, tokens_out = tokens_out + ?, usd = usd + ?",
            (reply.tries - 1, reply.tokens_in, reply.tokens_out, usd or 0.0),
        )

    def reserve(self, usd: float) -> int | None:
        """Hold `usd` for one call; returns the reservation, or None when spent + reserved + usd would pass the cap."""
        if self.budget_usd is None:
            return 0
        with self.transaction():
            return self.hold(usd, batch=None)

    def hold(self, usd: float, *, batch: str | None) -> int | None:
        """As `reserve`, inside a transaction; for one call, or for the whole of `batch`."""
        if not self._fits(usd):
            self.drop_stale()
            if not self._fits(usd):
                return None
        values = (usd, socket.gethostname(), os.getpid(), time.time(), batch)
        return self.db.execute("INSERT INTO reservations (usd, host, pid, made_at, batch) VALUES (?, ?, ?, ?, ?)", values).lastrowid

    def release(self, reservation: int) -> None:
        """Give a reservation back, after its call came to nothing."""
        if reservation:
            with self.transaction():
                self.db.execute("DELETE FROM reservations WHERE id = ?", (reservation,))

    def headroom(self) -> float:
        """Dollars that are neither spent nor reserved; infinite without a cap."""
        (held,) = self.db.execute("SELECT coalesce(sum(usd), 0.0) FROM reservations").fetchone()
        return float("inf") if self.budget_usd is None else self.budget_usd - self.spent() - float(held)

    def _fits(self, usd: float) -> bool:
        return usd <= self.headroom()

    def drop_stale(self) -> None:
        """Inside a transaction, drop what dead processes still hold, so that a kill -9 does not block the budget for ever.

        A batch lives on without its process, so its reservation stays. A process on another host is taken for dead after STALE_SECONDS.
        """
        rows = self.db.execute("SELECT id, host, pid, made_at FROM reservations WHERE batch IS NULL").fetchall()
        here, oldest = socket.gethostname(), time.time() - STALE_SECONDS
        stale = [(key,) for key, host, pid, made_at in rows if (not alive(pid) if host == here else made_at < oldest)]
        self.db.executemany("DELETE FROM reservations WHERE id = ?", stale)

    def spent(self) -> float:
        """Dollars paid so far, over the life of the file."""
        (usd,) = self.db.execute("SELECT usd FROM totals").fetchone()
        return float(usd)

    def usage(self) -> Usage:
        """Totals over the life of the file. `cached`, `reasks` and `failed` belong to a run, so they are 0 here."""
        calls, retries, tokens_in, tokens_out, usd = self.db.execute("SELECT calls, retries, tokens_in, tokens_out, usd FROM totals").fetchone()
        return Usage(calls=calls, retries=retries, tokens_in=tokens_in, tokens_out=tokens_out, usd=usd)

    def usual(self, model: str, *, above: int) -> Known | None:
        """Mean length and latency of up to 2,000 whole replies of a model or its dated versions, None where it has none.

        Replies without a latency (recorded ones, and those of batches) do not count, nor do those of at most `above` tokens.
        """
        tokens, seconds, name, end = (f"json_extract(body, '$.{field}')" for field in ("tokens_out", "seconds", "model", "finish_reason"))
        timed = (
            f"SELECT {tokens} AS tokens, {seconds} AS seconds FROM replies WHERE json_valid(body) "
            f"AND ({name} = :model OR {name} GLOB :model || '-[0-9]*') AND {end} = 'stop' AND {seconds} > 0 AND {tokens} > :above"
        )
        rows = self.db.execute(f"SELECT avg(tokens), avg(seconds) FROM ({timed} LIMIT 2000)", {"model": model, "above": above}).fetchone()
        return None if rows[0] is None else Known(tokens_out=rows[0], seconds=rows[1])

    def knows(self, model: str) -> bool:
        """Whether any reply of a model, or of its dated versions, is kept."""
        name = "json_extract(body, '$.model')"
        query = f"SELECT 1 FROM replies WHERE json_valid(body) AND ({name} = :model OR {name} GLOB :model || '-[0-9]*') LIMIT 1"
        return self.db.execute(query, {"model": model}).fetchone() is not None

    def entries(self, *, keys: Sequence[str] | None = None) -> Iterator[Entry | str]:
        """Every row in the order in which they came (or those asked for), one at a time; a damaged row comes as its key alone."""
        wanted = "" if keys is None else f" WHERE key IN ({','.join('?' * len(keys))})"
        for key, source, body, usd, mode, created_at, checksum in self.db.execute(f"SELECT * FROM replies{wanted} ORDER BY rowid", keys or ()):
            reply = _decoded(body) if checksum == _checksum(key, source, body, usd, mode, created_at) else None
            yield key if reply is None else Entry(key=key, source=source, reply=reply, usd=usd, mode=mode, created_at=created_at)


def _checksum(*values: object) -> bytes:
    return hashlib.blake2b(repr(values).encode(), digest_size=8).digest()


def _decoded(body: str) -> Reply | None:
    """A stored reply; None for a body of another shape, which only an edit by hand can have made."""
    try:
        return Reply(**json.loads(body))
    except (ValueError, TypeError):
        return None


def alive(pid: int) -> bool:
    """Whether a process of this host still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
