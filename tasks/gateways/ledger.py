"""The request ledger: one SQLite file that remembers every teacher reply by what was asked.

Each reply is committed as it arrives, so a process killed with -9 loses only its calls in flight. The budget is held by
reservations made in the transaction that admits a call: spent + reserved never exceeds the cap, whoever else writes.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from tasks.contracts.asks import Usage
from tasks.contracts.failures import ArtifactError
from tasks.gateways.teacher import Reply

SCHEMA_VERSION = 1
STALE_SECONDS = 3600.0  # a reservation of a process on another host is dropped after this; no call lives that long

_SCHEMA = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY, source TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL, model TEXT NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, usd REAL, seconds REAL NOT NULL, request_id TEXT NOT NULL,
    tries INTEGER NOT NULL, created_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE reservations (id INTEGER PRIMARY KEY, usd REAL NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, made_at REAL NOT NULL);
CREATE TABLE totals (calls INTEGER NOT NULL, retries INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, usd REAL NOT NULL);
INSERT INTO totals VALUES (0, 0, 0, 0, 0.0);
"""


class Ledger:
    """Replies by key, with the spending cap of the whole file. Safe for several processes; one object belongs to one thread."""

    def __init__(self, path: Path, *, budget_usd: float | None) -> None:
        """Open or create the file at `path`. Raises ArtifactError when it is no ledger, or one of another version."""
        self.path = path
        self.budget_usd = budget_usd
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=60.0, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            with self._transaction():
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _SCHEMA.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.DatabaseError as error:
            raise ArtifactError(f"{self.path} cannot be used as a teacher ledger ({error}); move it away or set execution.ledger to another file") from error
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
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Take the write lock at once, so that what is read inside is still true when it is written."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def find(self, key: str) -> Reply | None:
        """The stored reply, or None."""
        row = self._db.execute(
            "SELECT text, finish_reason, model, tokens_in, tokens_out, request_id, tries, seconds FROM replies WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        text, finish_reason, model, tokens_in, tokens_out, request_id, tries, seconds = row
        return Reply(
            text=json.loads(text),
            finish_reason=finish_reason,
            model=model,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            request_id=request_id,
            tries=tries,
            seconds=seconds,
        )

    def record(self, key: str, reply: Reply, *, source: str, usd: float | None) -> None:
        """Commit one reply. Two processes that bought the same reply keep the first and count both in what was spent."""
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key,
                    source,
                    json.dumps(reply.text),  # ASCII, so that a lone surrogate in a paid reply cannot stop it from being stored
                    reply.finish_reason,
                    reply.model,
                    reply.tokens_in,
                    reply.tokens_out,
                    usd,
                    reply.seconds,
                    reply.request_id,
                    reply.tries,
                    datetime.now(UTC).isoformat(timespec="milliseconds"),
                ),
            )
            self._db.execute(
                "UPDATE totals SET calls = calls + 1, retries = retries + ?, tokens_in = tokens_in + ?, tokens_out = tokens_out + ?, usd = usd + ?",
                (reply.tries - 1, reply.tokens_in, reply.tokens_out, usd or 0.0),
            )

    def reserve(self, usd: float) -> int | None:
        """Hold `usd` for one call; returns the reservation, or None when spent + reserved + usd would pass the cap."""
        if self.budget_usd is None:
            return 0
        with self._transaction():
            if not self._fits(usd):
                self._drop_stale()
                if not self._fits(usd):
                    return None
            cursor = self._db.execute(
                "INSERT INTO reservations (usd, host, pid, made_at) VALUES (?, ?, ?, ?)", (usd, socket.gethostname(), os.getpid(), time.time())
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def release(self, reservation: int) -> None:
        """Give a reservation back, after its call was recorded or came to nothing."""
        if reservation:
            with self._transaction():
                self._db.execute("DELETE FROM reservations WHERE id = ?", (reservation,))

    def _fits(self, usd: float) -> bool:
        (held,) = self._db.execute("SELECT coalesce(sum(usd), 0.0) FROM reservations").fetchone()
        return self.budget_usd is not None and self.spent() + float(held) + usd <= self.budget_usd

    def _drop_stale(self) -> None:
        """Drop what dead processes still hold, so that a kill -9 does not block the budget for ever."""
        rows = self._db.execute("SELECT id, host, pid, made_at FROM reservations").fetchall()
        here, oldest = socket.gethostname(), time.time() - STALE_SECONDS
        stale = [(key,) for key, host, pid, made_at in rows if made_at < oldest or (host == here and not _alive(pid))]
        self._db.executemany("DELETE FROM reservations WHERE id = ?", stale)

    def spent(self) -> float:
        """Dollars paid so far, over the life of the file."""
        (usd,) = self._db.execute("SELECT usd FROM totals").fetchone()
        return float(usd)

    def usage(self) -> Usage:
        """Totals over the life of the file. `cached` and `failed` belong to a run, so they are 0 here."""
        calls, retries, tokens_in, tokens_out, usd = self._db.execute("SELECT calls, retries, tokens_in, tokens_out, usd FROM totals").fetchone()
        return Usage(calls=calls, retries=retries, tokens_in=tokens_in, tokens_out=tokens_out, usd=usd)


def _alive(pid: int) -> bool:
    """Whether a process of this host still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
