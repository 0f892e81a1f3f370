"""`make bench-train`, `-dpo`, `-generate`, `-sample`, `-memory`: ours beside plain TRL (`seeds`) and TRL at its best (`best`), on students of random weights.

Prints Markdown; keeps JSON lines. A GPU is needed, of any size for the 8 GB readings and of 100 GB for the others' rivals; `--cpu` shows that all of it runs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.bench.engine.measure import CAP_GIB, Row
from tests.bench.engine.readings import GROUPS, READINGS, SIDES, job_of, take

PROJECT = Path(__file__).resolve().parents[3]
PLACE = PROJECT / "data" / ".bench"
LIMIT = 420.0  # seconds a reading may take
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONWARNINGS": "ignore"}
HEADINGS = ("reading", "side", "a second", "step ms", "peak GiB", "counted GiB", "reserved GiB", "bar", "reached", "how")


def main() -> None:
    options = _options()
    if options.one:
        name, side = options.one
        job = job_of(name, model=options.model, cpu=options.cpu, quick=options.quick, **_drawn(options))
        row = take(job, side, plan=options.plan)
        if os.environ.get("RANK", "0") == "0":
            options.result.write_text(json.dumps(row))
        sys.stderr.flush()
        os._exit(0)  # the device's memory goes with the process; taking all apart first takes seconds
    header = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {options.model}{', tiny on a CPU' if options.cpu else ''}{', quick' if options.quick else ''}"
    print(f"## Engine bench\n\n{header}, Python {platform.python_version()}, {_versions()}, commit {_commit()}\n", flush=True)
    rows: dict[tuple[str, str], Row] = {}
    for name in options.only:
        for side in [side for side in options.sides if side in READINGS[name].sides]:
            row = _same_run(name, side, rows) or _one(name, side, options)
            if "rate" in row and "rate" in (one := rows.get((READINGS[name].base, side), {})):
                row["scaling"] = row["rate"] / one["rate"]
            if side == "ours" and "rate" in row and "rate" in (rival := rows.get((name, READINGS[name].rival), {})):
                row["cpu_gain" if options.cpu else "gain"] = row["rate"] / rival["rate"]
            rows[name, side] = row
            sys.stderr.write(f"{name} {side}: {json.dumps(row)}\n")
            kept = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": _commit(), "model": options.model, "cpu": options.cpu}
            with options.out.open("a") as file:
                file.write(json.dumps({**kept, "quick": options.quick, "reading": name, "side": side, **row}) + "\n")
    print(_table(rows, barred=options.model == "llama7b" and (bool(options.student) or not options.cpu)))
    print(_ratios(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine", description=__doc__)
    parser.add_argument("group", nargs="?", default="all", choices=(*GROUPS, "all"))
    parser.add_argument("--only", help=f"readings of the group, of {','.join(READINGS)}")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--quick", action="store_true", help="fewer steps: to see that all works, not to quote")
    parser.add_argument("--cpu", action="store_true", help="tiny shapes without a GPU: to see that all runs; the figures mean nothing")
    parser.add_argument("--out", type=Path, default=PLACE / "engine.jsonl", help="JSON lines; %(default)s")
    parser.add_argument("--model", default="llama7b", choices=("llama7b", "phi35"))
    parser.add_argument("--student", type=Path, help="sample: folder of a real student's weights, asked pocketqa's questions; also with --cpu")
    parser.add_argument("--adapter", type=Path, help="sample: folder of an adapter on top of it")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"), help="sample: of the real student")
    parser.add_argument("--questions", type=int, default=300, help="sample: eight samples of each; %(default)s")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a reading may take; %(default)s")
    parser.add_argument("--plan", default="", help="changes of best's settings: micro=8,precompute=1 (names are those of peers.Plan)")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    of_group = [name for name, reading in READINGS.items() if options.group in (reading.group, "all")]
    options.only = options.only.split(",") if options.only else of_group
    options.sides = options.sides.split(",")
    if unknown := {*options.only} - {*of_group} | {*options.sides} - {*SIDES}:
        parser.error(f"no such reading of the group, or side: {', '.join(sorted(unknown))}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    return options


def _drawn(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a Job that only samples know."""
    folders = {name: str(folder.resolve()) if folder else "" for name, folder in (("student", options.student), ("adapter", options.adapter))}
    return {**folders, "dtype": options.dtype, "questions": options.questions}


def _same_run(name: str, side: str, rows: dict[tuple[str, str], Row]) -> Row | None:
    """The seeds' settings are the same inside 8 GB, so a run that stayed below the cap need not be made again."""
    row = rows.get((name.removesuffix("_8gb"), side)) if side == "seeds" and name.endswith("_8gb") else None
    fits = row is not None and (row.get("reserved_gib") or CAP_GIB + 1) <= CAP_GIB
    return {**row, "same_run": True} if row and fits else None


def _one(name: str, side: str, options: argparse.Namespace) -> Row:
    """A reading in a process of its own; its output goes to a log, whose end is shown if it fails."""
    PLACE.mkdir(parents=True, exist_ok=True)
    log = PLACE / f"engine-{name}-{side}.log"
    flags = [flag for flag, given in (("--cpu", options.cpu), ("--quick", options.quick)) if given]
    environment = {**QUIET, "PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ} | ({"CUDA_VISIBLE_DEVICES": ""} if options.cpu else {})
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        drawn = [part for key, value in _drawn(options).items() if value for part in (f"--{key}", str(value))]
        given = [*drawn, "--model", options.model, "--plan", options.plan, "--result", str(result), *flags]
        count = READINGS[name].processes
        environment.setdefault("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count))))  # a trainer cuts its batch for all that it sees
        starter = [] if count == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command = [sys.executable, *starter, "-m", "tests.bench.engine", "--one", name, side, *given]
        with log.open("w") as file:
            try:
                code = subprocess.run(command, cwd=PROJECT, env=environment, stdout=file, stderr=file, timeout=options.limit, check=False).returncode
            except subprocess.TimeoutExpired:
                return {"error": f"still running after {options.limit:.0f} s"}
        if result.is_file():
            return json.loads(result.read_text())
    lines = log.read_text(errors="replace").strip().splitlines()
    sys.stderr.write("\n".join(["", *lines[-25:], ""]))
    return {"error": f"ended with {code}: {lines[-1][:150] if lines else 'no output'}"}


def _table(rows: dict[tuple[str, str], Row], *, barred: bool) -> str:
    """The bars are for the 7B on a GPU, so nothing else is held to them."""
    lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
    for (name, side), row in rows.items():
        reading = READINGS[name]
        bars = [(str(bar), {True: "yes", False: "no", None: "-"}[bar.reached(row) if barred else None]) for bar in reading.bars]
        rate = f"{row['rate']:,.1f} {reading.unit}" if "rate" in row else row.get("error", "-")
        rate += f" ({row['scaling']:.2f} x one GPU)" if "scaling" in row else ""
        figures = [_figure(row.get(key), digits) for key, digits in (("step_ms", 1), ("peak_gib", 2), ("counted_gib", 2), ("reserved_gib", 2))]
        how = row.get("plan", "") + (", the run without the cap" if row.get("same_run") else "")
        lines.append(_line([name, side, rate, *figures, ", ".join(bar for bar, _ in bars), ", ".join(said for _, said in bars), how]))
    return "\n".join(lines) + "\n"


def _ratios(rows: dict[tuple[str, str], Row]) -> str:
    lines = [_line(["reading", "ours / best", "ours / seeds"]), _line(["---"] * 3)]
    for name in dict.fromkeys(name for name, _ in rows):
        ours, *others = (rows.get((name, side), {}).get("rate") for side in ("ours", "best", "seeds"))
        lines.append(_line([name, *(f"{ours / other:.2f}x" if ours and other else "-" for other in others)]))
    return "\n".join(lines) + "\n"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _versions() -> str:
    found = []
    for name in ("torch", "transformers", "trl", "peft", "bitsandbytes", "liger-kernel", "triton"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def _commit() -> str:
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
