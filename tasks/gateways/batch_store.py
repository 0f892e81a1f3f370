"""What the ledger remembers of batches: which questions are in which, and how far each has come."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.gateways.ledger import LOOK_UP, Ledger


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A batch of ours that is not closed. `file_id` once its file is uploaded, `remote_id` once the API runs it."""

    id: str
    file_id: str | None
    remote_id: str | None


class BatchStore:
    """The tables `batches` and `batch_lines` of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def draw(self, endpoint: str, costs: Sequence[tuple[str, float]]) -> tuple[str, list[str]] | None:
        """A new batch of as many of the (key, worst dollars) as the budget holds, in one transaction; None where none fits or none is left."""
        with self._ledger.transaction():
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
            self._ledger.db.execute("INSERT INTO batches VALUES (?, ?, 'drawn', NULL, NULL, ?)", (batch, endpoint, datetime.now(UTC).isoformat()))
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
            self._ledger.db.execute("DELETE FROM batch_lines WHERE batch = ?", (batch,))
            self._ledger.db.execute("DELETE FROM reservations WHERE batch = ?", (batch,))
            self._ledger.db.execute("DELETE FROM batches WHERE id = ?", (batch,))

    def close_collected(self) -> None:
        """Close batches whose every line is answered: a run that was killed after it collected them could not."""
        answered = (
            "SELECT id FROM batches WHERE state = 'sent' AND NOT EXISTS "
            "(SELECT 1 FROM batch_lines l LEFT JOIN replies r ON r.key = l.key WHERE l.batch = batches.id AND r.key IS NULL)"
        )
        for (batch,) in self._ledger.db.execute(answered).fetchall():
            self.close(batch)

    def open_batches(self, endpoint: str, *, keys: Collection[str]) -> list[Drawn]:
        """Batches at this endpoint that hold any of the keys."""
        rows = self._ledger.db.execute("SELECT id, file_id, remote_id FROM batches WHERE endpoint = ?", (endpoint,)).fetchall()
        return [Drawn(id=batch, file_id=file, remote_id=remote) for batch, file, remote in rows if not self.lines_of([batch]).isdisjoint(keys)]

    def lines_of(self, batches: Iterable[str]) -> set[str]:
        """The keys that these batches hold."""
        wanted, found = list(batches), set()
        for start in range(0, len(wanted), LOOK_UP):
            some = wanted[start : start + LOOK_UP]
            marks = ",".join("?" * len(some))
            found |= {key for (key,) in self._ledger.db.execute(f"SELECT key FROM batch_lines WHERE batch IN ({marks})", some)}
        return found
