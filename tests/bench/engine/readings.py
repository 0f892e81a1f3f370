"""The readings, their bars, and the taking of one of them. A process takes one reading of one side and ends, so nothing of it touches the next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bench.engine.measure import Generated, Row, Trained, guarded
from tests.bench.engine.work import EPOCHS, Job

SIDES = ("seeds", "best", "ours")


@dataclass(frozen=True)
class Bar:
    """What ours is to reach: `key` of a row at least, or at most, this much."""

    key: str
    value: float
    unit: str
    at_most: bool = False

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.value:,g} {self.unit}"

    def reached(self, row: Row) -> bool | None:
        """None where nothing was measured; a reading that ran out of memory has not reached it."""
        if row.get("error"):
            return False if row["error"] == "OOM" else None
        if (found := row.get(self.key)) is None:
            return None
        return found <= self.value if self.at_most else found >= self.value


@dataclass(frozen=True)
class Reading:
    """A group's name is that of the make target; `law` is the one of the rows' lengths. `settings` are our machine's, for readings of our side alone."""

    group: str
    unit: str
    bars: tuple[Bar, ...]
    law: str = ""
    capped: bool = False
    processes: int = 1  # one a GPU, each with its 32 samples; ours alone, beside `base`
    base: str = ""
    rival: str = ""  # the side whose rate `gain` is counted in
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def sides(self) -> tuple[str, ...]:
        """What is read; public settings do not spread one job over GPUs, nor count memory."""
        return ("ours",) if self.processes > 1 or self.settings else SIDES


COUNT = Bar("off_percent", 5, "% off the count", at_most=True)
PLAIN, AGAIN = ("compile", "never"), ("recompute", "always")


def _rate(value: float, unit: str) -> tuple[Bar, ...]:
    return (Bar("rate", value, unit),)


READINGS = {
    "sft_direct": Reading("train", "seq/s", (*_rate(200, "seq/s"), COUNT), law="direct"),
    "sft_cot": Reading("train", "seq/s", (*_rate(100, "seq/s"), COUNT), law="cot"),
    "sft_direct_8gb": Reading("train", "seq/s", (*_rate(110, "seq/s"), COUNT), law="direct", capped=True),
    "sft_cot_8gb": Reading("train", "seq/s", (*_rate(60, "seq/s"), COUNT), law="cot", capped=True),
    "sft_2x2048_8gb": Reading("train", "seq/s", (Bar("peak_gib", 5.6, "GiB", at_most=True), COUNT), capped=True),
    "sft_cot_2gpu": Reading("gpus", "seq/s", (Bar("scaling", 1.8, "x one GPU"),), law="cot", processes=2, base="sft_cot"),
    "sft_cot_4gpu": Reading("gpus", "seq/s", (Bar("scaling", 3.5, "x one GPU"),), law="cot", processes=4, base="sft_cot"),
    "dpo": Reading("dpo", "pairs/s", (*_rate(60, "pairs/s"), COUNT)),
    "dpo_8gb": Reading("dpo", "pairs/s", (*_rate(15, "pairs/s"), COUNT), capped=True),
    "sample": Reading("sample", "samples/s", (Bar("gain", 3, "x seeds"), Bar("cpu_gain", 1.5, "x seeds on a CPU")), rival="seeds"),
    "generate": Reading("generate", "tok/s", (*_rate(12000, "tok/s"), Bar("step_ms", 10, "ms", at_most=True))),
    "fit_plain": Reading("memory", "seq/s", (COUNT,), law="cot", settings=(PLAIN,)),
    "fit_plain_8gb": Reading("memory", "seq/s", (COUNT,), law="cot", capped=True, settings=(PLAIN,)),
    "fit_again": Reading("memory", "seq/s", (COUNT,), law="cot", settings=(AGAIN,)),
    "fit_again_plain_8gb": Reading("memory", "seq/s", (COUNT,), law="cot", capped=True, settings=(AGAIN, PLAIN)),
}
GROUPS = tuple(dict.fromkeys(reading.group for reading in READINGS.values()))


def job_of(name: str, *, model: str, cpu: bool, quick: bool, **drawn: Any) -> Job:
    """What a reading asks of a side; `drawn` are the fields of a Job that only samples know."""
    reading = READINGS[name]
    asked = {"law": reading.law, "capped": reading.capped, "processes": reading.processes, "settings": reading.settings}
    return Job(reading=name, model=model, cpu=cpu, quick=quick, **asked, **drawn)


def take(job: Job, side: str, *, plan: str) -> Row:
    """One reading of one side, in this process."""
    if READINGS[job.reading].group == "sample":
        return guarded(_drawn(job, side), capped=job.capped)
    return guarded(_ours(job) if side == "ours" else _peer(job, side, plan), capped=job.capped)


def _drawn(job: Job, side: str) -> Callable[[], Row]:
    from tests.bench.engine import drawing

    return lambda: drawing.ours(job) if side == "ours" else drawing.loop(job, side)


def _ours(job: Job) -> Callable[[], Row]:
    from tests.bench.engine import ours

    def reading() -> Row:
        match READINGS[job.reading].group:
            case "train" | "gpus" | "memory":
                return trained(job, ours.sft_seconds(job))
            case "dpo":
                return trained(job, ours.dpo_seconds(job))
            case _:
                return generated(job, ours.generate_seconds(job))

    return reading


def _peer(job: Job, side: str, changes: str) -> Callable[[], Row]:
    from tests.bench.engine import peers

    def reading() -> Row:
        if (group := READINGS[job.reading].group) == "generate":
            return generated(job, peers.generate_seconds(job, side))
        plan = peers.plan_of(job, side, changes)
        seconds = peers.sft_seconds if group == "train" else peers.dpo_seconds
        return trained(job, seconds(job, plan)) | {"plan": str(plan)}

    return reading


def trained(job: Job, found: Trained) -> Row:
    """Rows or pairs a second; a reference pass made ahead counts once for each pair, and the steps in each epoch."""
    each = found.step / job.batch + found.reference / EPOCHS
    spread = (max(found.steps) - min(found.steps)) / found.step
    ahead = {"reference_pairs_s": 1 / found.reference} if found.reference else {}
    how = {"counted_gib": found.counted, "plan": found.how} if found.how else {}
    return {"rate": 1 / each, "step_ms": found.step * 1000, "steps": len(found.steps), "spread": spread, **ahead, **how}


def generated(job: Job, found: Generated) -> Row:
    """New tokens a second, prefill included; milliseconds of one decode step of all prompts together."""
    rate = job.prompts_at_once * job.new_tokens / found.total
    return {"rate": rate, "step_ms": (found.total - found.prefill) / (job.new_tokens - 1) * 1000, "prefill_ms": found.prefill * 1000}
