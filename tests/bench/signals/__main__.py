"""`make bench-signals`: runs of a tiny student are struck by SIGINT, SIGTERM and SIGKILL at random moments, with Prefect's temporary server and a standing one.

    python -m tests.bench.signals [--signals 100] [--seed 0]

Every run goes on where the one before was struck; one that ends in spite of it makes way for the next seed. Prints a line a signal and a table, and ends with
1 where a bar was missed. At the end an undisturbed run of each server must end with 0, and no reply may have been bought twice but those in flight.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tests.bench.signals.series import Blow, series
from tests.bench.signals.standing import standing_server
from tests.schooled_student import make_schooled_student

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
TURNS = ("start", "teach", "teach", "teach", "training", "training", "prediction", "prediction", "training", "prediction", "draft")
KINDS = ("temporary", "standing")
COLUMNS = "| server | signal | in | n | gone after, median | longest | lines after, most | calls after, most | misses |"


def main() -> None:
    """Strike, say what came of it, and end with 1 where that was not what it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--server", choices=KINDS, help="only with this one")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # in order: the server and the run end too
    kinds = [options.server] if options.server else list(KINDS)
    blows: list[Blow] = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        student = make_schooled_student(Path(folder) / "student")
        for place, kind in enumerate(kinds):
            luck = random.Random(f"{options.seed} {kind}")
            place_of_its_own = Path(folder) / kind
            with (
                standing_server(place_of_its_own / "prefect") if kind == "standing" else nullcontext("") as api,
                series(place_of_its_own, name=kind, student=student, api=api) as struck,
            ):
                for number in range(place, options.signals, len(kinds)):
                    turn = number // len(kinds)
                    blow = struck.strike(SIGNALS[turn % len(SIGNALS)], part=TURNS[turn % len(TURNS)], luck=luck)
                    sys.stdout.write(f"{blow.in_words()}\n")
                    sys.stdout.flush()
                    blows.append(blow)
                faults += struck.undisturbed()
    sys.stdout.write("\n".join(["", *table(blows), "", *faults, ""]))
    sys.exit(1 if faults or any(blow.misses for blow in blows) else 0)


def table(blows: Sequence[Blow]) -> list[str]:
    """Markdown: a line for every server, signal and part of the run."""
    lines = [COLUMNS, "|---|---|---|---|---|---|---|---|---|"]
    for server, name, part in sorted({(blow.server, blow.signal.name, blow.part) for blow in blows}):
        these = [blow for blow in blows if (blow.server, blow.signal.name, blow.part) == (server, name, part)]
        gone = sorted(blow.gone for blow in these)
        lines.append(
            f"| {server} | {name} | {part} | {len(these)} | {gone[len(gone) // 2]:.1f} s | {gone[-1]:.1f} s | {max(blow.lines for blow in these)} "
            f"| {max(blow.calls for blow in these)} | {sum(bool(blow.misses) for blow in these)} |"
        )
    return lines


if __name__ == "__main__":
    main()
