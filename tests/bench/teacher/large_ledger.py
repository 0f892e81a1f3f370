"""A ledger of many rows: written, looked up in shards, verified and exported. Memory is that of the whole process, so each size is one process."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tasks.gateways.ledger import Ledger
from tasks.gateways.ledger_files import export_ledger, verify_ledger
from tasks.gateways.simulated_knowledge import ECHO
from tasks.gateways.teacher import Reply

SHARD = 500


def keys(rows: int, start: int) -> list[str]:
    return [f"{number:064x}" for number in range(start, min(start + SHARD, rows))]


def main(folder: Path, rows: int) -> dict[str, Any]:
    path = folder / f"ledger-{rows}.sqlite"
    reply = Reply(text=ECHO.text(), finish_reason="stop", model="m", tokens_in=150, tokens_out=60, request_id="r", seconds=0.1)
    with Ledger(path, budget_usd=None) as ledger:
        started = time.perf_counter()
        for start in range(0, rows, SHARD):
            with ledger.transaction():
                for key in keys(rows, start):
                    ledger.put(key, reply, source="/v1/chat/completions", usd=0.01, mode="online")
        written = time.perf_counter()
        found = sum(len(ledger.find_many(keys(rows, start))) for start in range(0, rows, SHARD))
        read = time.perf_counter()
        faults = verify_ledger(ledger)
        verified = time.perf_counter()
        exported = export_ledger(ledger, folder / "export.parquet")
        ended = time.perf_counter()
    assert (found, faults, exported) == (rows, [], rows)
    return {
        "rows": rows,
        "hits": rows / (read - written),
        "written": rows / (written - started),
        "verify": verified - read,
        "export": ended - verified,
        "mb": path.stat().st_size / 1e6,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
