"""What the ledger remembers of batches: which questions are in which, and how far each has come."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tasks.gateways.ledger import LOOK_UP, Ledger, alive


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A batch of ours that is not closed. `file_id` once its file is uploaded, `remote_id` once the API runs it; `busy` while another process sends it."""

    id: str
    file_id: str | None
    remote_id: str | None
    busy: bool = False


class BatchStore:
    """The tables `batches` and `batch_lines` of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def draw(self, endpoint: str, costs: Sequence[tuple[str, float]]) -> tuple[str, list[str]] | None:
        """A new batch of as many of the (key, worst dollars) as the budget holds, in one transaction; None where none fits or none is left."""
        with self._ledger.transaction():
            self._ledger.drop_stale()
            self._drop_dead_draws()
            headroom = self._ledger.headroom()
            keys, total = [], 0.0
            for key, usd in costs:
                if total + usd > headroom:
                    break
                keys.append(key)
                total += usd
            batch = uuid.uuid4().hex
            if not keys or self._ledger.hold(total, batch=batch) is None:
                return None
            self._ledger.db.execute("INSERT INTO batches VALUES (?, ?, 'drawn', NULL, NULL, ?, ?)", (batch, endpoint, socket.gethostname(), os.getpid()))
            self._ledger.db.executemany("INSERT INTO batch_lines VALUES (?, ?)", [(key, batch) for key in keys])
        return batch, keys

    def uploaded(self, batch: str, file_id: str) -> Drawn:
        """Note the uploaded file."""
        self._ledger.db.execute("UPDATE batches SET state = 'uploaded', file_id = ? WHERE id = ?", (file_id, batch))
        return Drawn(id=batch, file_id=file_id, remote_id=None)

    def sent(self, batch: str, remote_id: str) -> None:
        """Note that the API runs it."""
        self._ledger.db.execute("UPDATE batches SET state = 'sent', remote_id = ? WHERE id = ?", (remote_id, batch))

    def close(self, batch: str) -> None:
        """Forget a batch that was collected or never sent, and give its reservation back."""
        with self._ledger.transaction():
            self._delete(batch)

    def _delete(self, batch: str) -> None:
        self._ledger.db.execute("DELETE FROM batch_lines WHERE batch = ?", (batch,))
        self._ledger.db.execute("DELETE FROM reservations WHERE batch = ?", (batch,))
        self._ledger.db.execute("DELETE FROM batches WHERE id = ?", (batch,))

    def close_collected(self) -> None:
        """Close batches whose replies are kept: a run that was killed right after it collected them could not."""
        for (batch,) in self._ledger.db.execute("SELECT id FROM batches WHERE state = 'collected'").fetchall():
            self.close(batch)

    def forget(self) -> int:
        """Close every batch, collected or not; returns how many. What the provider still answers in them is paid and lost."""
        batches = self._ledger.db.execute("SELECT id FROM batches").fetchall()
        for (batch,) in batches:
            self.close(batch)
        return len(batches)

    def held(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that a batch at the provider is to answer, or may be: one that is uploaded may have been started."""
        sent = self._ledger.db.execute("SELECT id FROM batches WHERE state IN ('uploaded', 'sent')").fetchall()
        return self.lines_of(batch for (batch,) in sent) & set(keys) if sent else set()

    def _drop_dead_draws(self) -> None:
        """Inside a transaction, forget batches that a process of this host drew and never uploaded before it died."""
        drawn = self._ledger.db.execute("SELECT id, pid FROM batches WHERE state = 'drawn' AND host = ?", (socket.gethostname(),)).fetchall()
        for batch, pid in drawn:
            if not alive(pid):
                self._delete(batch)

    def open_batches(self, endpoint: str, *, keys: Collection[str]) -> list[Drawn]:
        """Batches at this endpoint that hold any of the keys."""
        rows = self._ledger.db.execute("SELECT id, file_id, remote_id, host, pid FROM batches WHERE endpoint = ?", (endpoint,)).fetchall()
        here = (socket.gethostname(), os.getpid())
        return [
            Drawn(id=batch, file_id=file, remote_id=remote, busy=remote is None and (host, pid) != here and host == here[0] and alive(pid))
            for batch, file, remote, host, pid in rows
            if not self.lines_of([batch]).isdisjoint(keys)
        ]

    def lines_of(self, batches: Iterable[str]) -> set[str]:
        """The keys that these batches hold."""
        wanted, found = list(batches), set()
        for start in range(0, len(wanted), LOOK_UP):
            some = wanted[start : start + LOOK_UP]
            marks = ",".join("?" * len(some))
            found |= {key for (key,) in self._ledger.db.execute(f"SELECT key FROM batch_lines WHERE batch IN ({marks})", some)}
        return found
