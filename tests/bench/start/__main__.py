"""`python -m tests.bench.start [--demo]`: what a person waits for before anything is computed. Ratios are of the same run; judge seconds on a quiet machine.

Prints one JSON line a reading: the import ratio, the seconds of a misspelt profile, and of a finished run that is run again with its temporary server.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.flows.pipeline import PROJECT, Pipeline
from tests.schooled_student import make_schooled_student

OURS, THEIRS = "import flows.full_pipeline", "from prefect import flow, task"


def main() -> None:
    """Take the readings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=9, help="imports of ours and of Prefect's, by turns")
    parser.add_argument("--reruns", type=int, default=3)
    parser.add_argument("--demo", action="store_true", help="run the demo again, which must be finished here, instead of a tiny pipeline made for this")
    options = parser.parse_args()
    _tell("import_ratio", import_ratio(options.pairs))
    _tell("misspelt_profile", {"seconds": round(_timed([sys.executable, "-m", "flows.cli", "run", "dmeo"], code=1)[1], 2)})
    if options.demo:
        command = [sys.executable, "-m", "flows.cli", "run", "demo"]
        _tell("demo_again", [again(command, dict(os.environ)) for _ in range(options.reruns)])
        return
    with tempfile.TemporaryDirectory() as folder:
        student = make_schooled_student(Path(folder) / "student")
        pipeline = Pipeline(root=Path(folder) / "root", student=student, environment={"PREFECT_HOME": f"{folder}/prefect"})
        command = pipeline.command(until="report", changes={})
        _tell("tiny_first", again(command, pipeline.whole_environment()))
        _tell("tiny_again", [again(command, pipeline.whole_environment()) for _ in range(options.reruns)])


def import_ratio(pairs: int) -> dict[str, float]:
    """Processor seconds of importing the whole pipeline over those of Prefect alone, by turns: of the medians, and of the least of each."""
    spent: dict[str, list[float]] = {THEIRS: [], OURS: []}
    for _ in range(pairs):
        for code, seconds in spent.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    median, least = ({code: how(seconds) for code, seconds in spent.items()} for how in (statistics.median, min))
    figures = {"of_medians": median[OURS] / median[THEIRS], "of_minima": least[OURS] / least[THEIRS], "ours": median[OURS], "prefect": median[THEIRS]}
    return {name: round(value, 2) for name, value in figures.items()}


def again(command: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Seconds to the first words of a run and to its end, with a temporary server."""
    first, whole = _timed(command, environment={name: value for name, value in environment.items() if name != "PREFECT_API_URL"})
    return {"first_words": round(first, 2), "seconds": round(whole, 2)}


def _timed(command: Sequence[str], *, code: int = 0, environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Seconds to the first line of what a command says, and to its end."""
    begun = time.monotonic()
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        first = time.monotonic() - begun
        said += process.stderr.read()
    if process.returncode != code:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return first, time.monotonic() - begun


def _tell(name: str, reading: object) -> None:
    sys.stdout.write(json.dumps({name: reading}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
