"""`make bench-teacher`: our caller beside what people use instead, against a simulated endpoint. Prints Markdown; keeps JSON lines under data/.bench."""

import argparse
import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version

from tests.bench.teacher.processes import PLACE, PROJECT, install_curator
from tests.bench.teacher.readings import CLIENTS, READINGS, Bench


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.teacher", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="15 s instead of 120 s a rate, fewer questions: to see that all works, not to quote")
    parser.add_argument("--only", default=",".join(READINGS), help=f"readings, of {','.join(READINGS)}")
    parser.add_argument("--clients", default=",".join(CLIENTS), help=f"of {','.join(CLIENTS)}")
    options = parser.parse_args()
    readings, clients = options.only.split(","), options.clients.split(",")
    unknown = {*readings} - {*READINGS} | {*clients} - {*CLIENTS}
    if unknown:
        parser.error(f"no such reading or client: {', '.join(sorted(unknown))}")
    PLACE.mkdir(parents=True, exist_ok=True)
    missing = {"curator": why} if "curator" in clients and (why := install_curator()) else {}
    bench = Bench(quick=options.quick, clients=tuple(name for name in clients if name not in missing), missing=missing)
    versions = ", ".join(f"{name} {version(name)}" for name in ("openai", "tenacity", "aiolimiter", "uvicorn"))
    print(f"## Teacher bench{', quick: not to be quoted' if bench.quick else ''}\n")
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {os.cpu_count()} cores, {versions}, commit {_commit()}\n")
    for name in readings:
        started = time.monotonic()
        table = READINGS[name](bench)
        print(table.markdown(), flush=True)
        kept = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": _commit(), "quick": bench.quick, "reading": name}
        with (PLACE / "teacher.jsonl").open("a") as file:
            file.write(json.dumps({**kept, "seconds": round(time.monotonic() - started, 1), "title": table.title, "rows": table.rows}) + "\n")


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
