"""`python -m tests.bench.faults [--questions 2000]`: a teacher that gets everything wrong at random, and what must hold all the same."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.bench.faults.mixed import ask_all


def main() -> None:
    """Ask and print what came of it; an assertion that fails ends it with 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for batch in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(json.dumps(asyncio.run(ask_all(Path(folder), count=options.questions, seed=options.seed, batch=batch))) + "\n")


if __name__ == "__main__":
    main()
