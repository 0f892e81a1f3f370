"""The readings: each starts a server and clients of its own, one client after the other under the same conditions, and returns a table."""

import json
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.contracts.rows import Drafted
from tasks.gateways.ledger import Ledger
from tasks.gateways.simulated_faults import tokens_of
from tasks.gateways.simulated_knowledge import ECHO
from tasks.logic.benchmarks.teacher_talk import teacher_messages
from tests.bench.teacher.processes import PLACE, PROJECT, Server, run_client, serving

CLIENTS = ("ours", "sdk", "tenacity", "curator")
NAMES = {"ours": "ours", "sdk": "openai SDK, gather", "tenacity": "tenacity + aiolimiter", "curator": "curator 0.1.31"}
IN_FLIGHT = 200  # calls on the wire that every client may have
LATENCY = 0.1  # seconds a reply
COST = {"wall": "wall s", "cpu": "client CPU s", "rss_mb": "peak RSS MB"}
Row = dict[str, Any]


@dataclass
class Table:
    """A title, the columns to show (key -> heading) and one row a client; notes stand below."""

    title: str
    columns: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns.values()) + " |", "|" + " --- |" * len(self.columns)]
        lines += ["| " + " | ".join(_show(row.get(key)) for key in self.columns) + " |" for row in self.rows]
        errors = [f"{row['client']}: {row['error']}" for row in self.rows if row.get("error")]
        return "\n".join([*lines, "", *(f"- {note}" for note in [*self.notes, *errors])]) + "\n"


def _show(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class Bench:
    """One run of the bench: how long, and for which clients; `missing` says why a client is not among them."""

    quick: bool
    clients: tuple[str, ...]
    missing: dict[str, str] = field(default_factory=dict)

    def spec(self, reading: str, client: str, *, count: int, **changes: object) -> Row:
        """What a client is told; its working folder is emptied."""
        work = PLACE / "work" / f"{reading}-{client}"
        shutil.rmtree(work, ignore_errors=True)
        base = {"count": count, "rpm": None, "tpm": None, "in_flight": IN_FLIGHT, "timeout": 60.0, "model": "gpt-4o-mini", "max_tokens": 400}
        return {**base, "messages": messages(), "work": str(work), **changes}

    def table(self, title: str, columns: dict[str, str], *, of: tuple[str, ...] = CLIENTS) -> Table:
        """An empty table, with a row for each client that is missing."""
        table = Table(title=title + (" (quick)" if self.quick else ""), columns={"client": "client", **columns})
        table.rows = [{"client": NAMES[name], "error": why} for name, why in self.missing.items() if name in of]
        return table


def messages() -> list[dict[str, str]]:
    """Our real prompt, about a question that has the number of the row in it."""
    question = "Is {number} larger than the number of days in a year?"
    gold = {"answer": "yes", "facts": (), "decomposition": (), "entities": ()}
    draft = {"draft": "I think so. Answer: Yes", "draft_verdict": "yes", "draft_questions": ("How many days has a year?",), "drafter": "d"}
    row = Drafted(qid="q", split="train", kind="", term="", description="", question=question, **gold, **draft)
    return [dict(message) for message in teacher_messages(row, hint=False)]


def paced(reading: str, bench: Bench, *, rpm: int, tpm: int | None) -> Table:
    """As many questions as the limit lets through in two minutes, through a server that holds every client to it."""
    seconds = 15 if bench.quick else 120
    each = sum(tokens_of({"messages": [{"content": message["content"].replace("{number}", "12345")} for message in messages()]}, ECHO))
    count = (tpm // each if tpm else rpm) * seconds // 60
    limit = f"{tpm:,} tokens a minute ({rpm:,} calls)" if tpm else f"{rpm:,} calls a minute"
    columns = {"share": "share of the allowed rate, %", "rejected": "429s", "burst": "most in one second", "lost": "rows lost", **COST}
    table = bench.table(f"{reading}: {limit}, {count:,} questions, {seconds} s at the full rate", columns)
    for client in bench.clients:
        with serving(rpm=rpm, tpm=tpm, latency=LATENCY) as server:
            spec = bench.spec(reading, client, count=count, rpm=rpm, tpm=tpm)
            found = run_client(client, spec, server=server, limit=seconds * 3 + 120)
            stats = server.stats()
        admitted = stats["admitted"]
        used, allowed = (admitted["tokens"], tpm) if tpm else (admitted["requests"], rpm)
        share = used / (allowed * admitted["seconds"] / 60) * 100 if admitted["seconds"] else None
        seen = {"share": share, "rejected": stats["rejected"], "burst": max(calls for calls, _ in stats["per_second"]), "window_max": stats["window_max"]}
        table.rows.append({"client": NAMES[client], **found, **seen, "count": count})
    table.notes = ["Share: what the server let through, over the time from the first call that reached it to the last, nothing excluded."]
    table.notes.append("Over 100 %: a burst at the start, which any 60 s may hold once; a quick reading is shorter than the window, so a burst is all it sees.")
    if tpm:
        table.notes.append("Tokens are counted as used (prompt + reply). The SDK has no such setting; the others are given both.")
    return table


def cpu(bench: Bench) -> Table:
    """CPU a call, without limits: what each client costs beside the bare SDK."""
    count, rounds = (400, 1) if bench.quick else (2000, 3)
    columns = {"per_call_ms": "CPU ms a call", "ratio": "x bare SDK", "wall": "wall s", "lost": "rows lost", "rss_mb": "peak RSS MB"}
    table = bench.table(f"cpu: {count:,} questions, no limit, latency {LATENCY} s, median of {rounds}", columns)
    found: dict[str, list[Row]] = {client: [] for client in bench.clients}
    for _ in range(rounds):
        for client in bench.clients:
            with serving(latency=LATENCY) as server:
                found[client].append(run_client(client, bench.spec("cpu", client, count=count, in_flight=100), server=server, limit=300))
    medians = {client: statistics.median(row["cpu"] / count * 1000 for row in rows) for client, rows in found.items() if all("cpu" in row for row in rows)}
    for client, rows in found.items():
        mine, bare = medians.get(client), medians.get("sdk")
        walls = [row["wall"] for row in rows if "wall" in row]
        wall = statistics.median(walls) if walls else None
        row = {**rows[-1], "client": NAMES[client], "per_call_ms": mine, "ratio": mine / bare if mine and bare else None, "wall": wall, "count": count}
        table.rows.append(row)
    table.notes = ["CPU of asking, imports not counted; 100 calls in flight. Ours writes each reply to its ledger, curator to its files; the others keep none."]
    return table


def faults(bench: Bench) -> Table:
    """Three in ten first attempts go wrong in a way that a caller can recover from."""
    count, rpm = (400, 6000) if bench.quick else (2000, 6000)
    bought = {"duplicates": "good replies bought twice", "reasks": "re-asks", "calls": "calls", "rejected": "429s of the limiter"}
    columns = {"lost": "rows lost", **bought, "wall": "wall s"}
    table = bench.table(f"faults: {count:,} questions, 30 % of first attempts faulty, {rpm:,} calls a minute", columns)
    for client in bench.clients:
        with serving(rpm=rpm, latency=LATENCY, faulty_share=0.3, hang_seconds=2.0) as server:
            found = run_client(client, bench.spec("faults", client, count=count, rpm=rpm), server=server, limit=400)
            table.rows.append({"client": NAMES[client], **found, **_counts(server), "count": count})
    table.notes = ["Faults: 429 in three header forms, 500, 503, reset, a hang of 2 s that ends in a closed connection, broken JSON, cut, null."]
    table.notes.append("Rows lost: no reply, or one that is cut or null. Re-asks: calls for a conversation whose last reply could not be used.")
    return table


def _counts(server: Server) -> Row:
    stats = server.stats()
    return {name: stats[name] for name in ("calls", "replied", "duplicates", "reasks", "rejected", "by_status")}


def scale(bench: Bench) -> Table:
    """Ours alone: a hundred thousand questions, and the same once more from the ledger."""
    count = 5_000 if bench.quick else 100_000
    columns = {**COST, "per_second": "rows/s", "ledger_mb": "ledger MB", "lost": "rows lost", "calls": "calls"}
    table = bench.table(f"scale: {count:,} questions, no limit, latency 0.02 s", columns, of=())
    with serving(latency=0.02) as server:
        spec = bench.spec("scale", "ours", count=count)
        for name in ("first pass", "second pass, all from the ledger"):
            before = server.stats()["calls"]
            found = run_client("ours", spec, server=server, limit=1800)
            ledger = sum(path.stat().st_size for path in (PLACE / "work" / "scale-ours").glob("ledger.sqlite*")) / 1e6
            per_second = count / found["wall"] if "wall" in found else None
            row = {"client": name, **found, "per_second": per_second, "ledger_mb": ledger, "calls": server.stats()["calls"] - before, "count": count}
            table.rows.append(row)
    return table


def kill(bench: Bench) -> Table:
    """kill -9 half way; the same command again; then the same with one question more."""
    count = 400 if bench.quick else 2000
    columns = {"before": "calls before the kill", "again": "calls after", "duplicates": "paid again", "lost": "rows lost", "one_more": "one row more: calls"}
    table = bench.table(f"kill: {count:,} questions, kill -9 near call {count // 2:,}", columns)
    for client in bench.clients:
        with serving(latency=LATENCY) as server:
            spec = bench.spec("kill", client, count=count, in_flight=50)
            run_client(client, spec, server=server, limit=300, cached=True, kill_when=lambda server=server: server.stats()["calls"] >= count // 2)
            before = server.stats()["calls"]
            found = run_client(client, spec, server=server, limit=300, cached=True)
            after = server.stats()
            run_client(client, {**spec, "count": count + 1}, server=server, limit=300, cached=True)
            row = {"before": before, "again": after["calls"] - before, "duplicates": after["duplicates"], "one_more": server.stats()["calls"] - after["calls"]}
            table.rows.append({"client": NAMES[client], **found, **row, "count": count})
    table.notes = ["Paid again: usable replies to a request that had one already. 50 calls in flight. The SDK and tenacity keep nothing, so they start over."]
    table.notes.append("curator runs with its cache on here; each of its runs begins with one empty request, to learn the limits.")
    return table


def quota(bench: Bench) -> Table:
    """The account runs out of credit after 100 calls; every further one is refused with insufficient_quota."""
    count, credit = 500, 100
    columns = {"wasted": "calls after the credit was gone", "wall": "wall s", "said": "what it said"}
    table = bench.table(f"quota: {count} questions, credit for {credit} calls", columns)
    for client in bench.clients:
        with serving(latency=LATENCY, credit=credit) as server:
            found = run_client(client, bench.spec("quota", client, count=count, in_flight=20), server=server, limit=30 if bench.quick else 120)
            error = found.pop("error", None)
            said = error[:130].replace("|", "/") if error else f"{found['lost']} rows lost"
            table.rows.append({"client": NAMES[client], **found, "wasted": server.stats()["calls"] - credit, "said": said, "count": count})
    table.notes = ["20 calls in flight: that many may be on the wire when the first refusal comes."]
    return table


def kills(bench: Bench) -> Table:
    """Ours alone: killed with -9 again and again at random moments of one stage, then finished."""
    count, times, in_flight = (400, 5, 20) if bench.quick else (2000, 50, 20)
    columns = {"killed": "kills", "calls": "calls", "duplicates": "paid again", "allowed": "kills x in flight", "lost": "rows lost"}
    columns |= {"gone": "committed replies lost"}
    table = bench.table(f"kills: {count:,} questions, kill -9 at {times} random moments, {in_flight} calls in flight", columns, of=())
    chance = random.Random(0)
    with serving(latency=LATENCY) as server:
        spec = bench.spec("kills", "ours", count=count, in_flight=in_flight)
        kept, gone = 0, 0
        for _ in range(times):
            stop = server.stats()["calls"] + chance.randint(1, 2 * count // times - 5)
            run_client("ours", spec, server=server, limit=300, kill_when=lambda stop=stop: server.stats()["calls"] >= stop)
            rows = _rows(spec)
            gone += max(kept - rows, 0)
            kept = rows
        found = run_client("ours", spec, server=server, limit=300)
        stats = server.stats()
    row = {"killed": times, "calls": stats["calls"], "duplicates": stats["duplicates"], "allowed": times * in_flight, "gone": gone}
    table.rows.append({"client": NAMES["ours"], **found, **row, "count": count})
    return table


def _rows(spec: Row) -> int:
    """Replies in the ledger of a client that is not running."""
    with Ledger(Path(spec["work"]) / "ledger.sqlite", budget_usd=None) as ledger:
        return ledger.usage().calls


def million(bench: Bench) -> Table:
    """Ours alone: ledgers of growing size, looked up in shards of 500, verified, exported."""
    sizes = (1_000, 10_000) if bench.quick else (10_000, 100_000, 1_000_000)
    columns = {"rows": "rows", "hits": "hits/s", "written": "written/s", "verify": "verify s", "export": "export s", "mb": "ledger MB", "rss_mb": "peak RSS MB"}
    table = bench.table("million: ledgers of growing size", columns, of=())
    folder = PLACE / "work" / "million"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for rows in sizes:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.teacher.large_ledger", str(folder), str(rows)], cwd=PROJECT, capture_output=True, text=True, check=True
        )
        table.rows.append({"client": NAMES["ours"], **json.loads(done.stdout)})
    shutil.rmtree(folder)
    return table


def prefect(bench: Bench) -> Table:
    """Ours alone: the teach stage on a real Prefect server, every reply in the ledger."""
    count = 2_000 if bench.quick else 200_000
    columns = {"questions": "questions", "task_runs": "Prefect task runs", "wall": "wall s", "rss_mb": "peak RSS MB"}
    table = bench.table(f"prefect: {count:,} questions through the teach stage", columns, of=())
    folder = PLACE / "work" / "prefect"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "tests.bench.teacher.prefect_run", str(folder), str(count)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    table.rows.append({"client": NAMES["ours"], **json.loads(done.stdout.splitlines()[-1])})
    shutil.rmtree(folder)
    return table


READINGS: dict[str, Callable[[Bench], Table]] = {
    "rpm600": lambda bench: paced("rpm600", bench, rpm=600, tpm=None),
    "rpm6000": lambda bench: paced("rpm6000", bench, rpm=6000, tpm=None),
    "tpm": lambda bench: paced("tpm", bench, rpm=10_000_000, tpm=600_000),
    "cpu": cpu,
    "faults": faults,
    "scale": scale,
    "kill": kill,
    "kills": kills,
    "million": million,
    "prefect": prefect,
    "quota": quota,
}
