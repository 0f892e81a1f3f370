"""A server that draws a fault for most first calls, keeps its own bill, and the check that nothing was lost, paid twice or let slip."""

from __future__ import annotations

import io
import json
import logging
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tasks.contracts.rows import Drafted, Outcome
from tasks.gateways.ledger import Ledger
from tasks.gateways.prices import Price
from tasks.gateways.simulated_faults import Fault, small_hash
from tasks.gateways.simulated_server import SimulatedServer, serve_simulated
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.benchmarks.teacher_talk import REPLY_SCHEMA
from tasks.logic.teaching import Talk, taught_rows
from tests.gateways.bench import KEY, Bench, ask_for, questions
from tests.gateways.odd_replies import BARE, BILLS, CONTENTS, OUTAGES, REFUSALS, THOUGHT, UNUSABLE, WRAPPED, Odd, chat, refusal

PRICE = Price(input=1.0, cached_input=0.5, output=2.0, origin="bench")
_ECHO = Odd(name="repeats the key", status=400, body=refusal(f"bad text, sent with {KEY}"))
_TEXTS = [Odd(name=name, body=chat(text)) for name, text, _ in WRAPPED if name != "deep"]
MENU = [case for case in [*CONTENTS, *BILLS, *REFUSALS, *OUTAGES, *UNUSABLE, *_TEXTS, _ECHO] if not case.prose]
_WIRE = (Fault(status=500), Fault(status=429, headers={"retry-after-ms": "1"}), Fault(shape="reset"), Fault(shape="closed"))
SOUND = 0.3  # share of calls that are answered well


@dataclass
class MixedServer(SimulatedServer):
    """Whatever it answers follows from its seed, the question and how often it was asked; `bill` is in tokens."""

    error_rate: float = 0.0
    no_bias: float = 0.0
    bill: list[tuple[int, int]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)  # completions by request body
    drawn: Counter[str] = field(default_factory=Counter)

    def instead(self, body: dict[str, Any]) -> tuple[int, Any]:
        prompt = body["messages"][1]["content"]
        luck = small_hash(f"{self.seed}|{prompt}")
        never = MENU[luck % len(MENU)]
        if never.status == 200:  # one that is refused is refused whenever it is asked
            self.asked[prompt] += 1
            luck = small_hash(f"{self.seed}|{prompt}|{self.asked[prompt]}")
        sound = luck / 2**64 < SOUND or (self.asked[prompt] > 3 and never.again)
        case = Odd(name="sound", body=chat(BARE)) if sound and never.status == 200 else MENU[luck % len(MENU)] if never.status == 200 else never
        if case.status != 200 and never.status == 200:
            case = Odd(name="sound", body=chat(BARE))
        self.drawn[case.name] += 1
        if case.status == 200 and isinstance(case.body, dict) and case.body.get("usage"):
            self.bill.append(case.tokens)
        if case.status == 200 and not case.again:
            self.kept[json.dumps(body, sort_keys=True)] += 1
            if isinstance(case.body, str):
                return 200, chat(BARE) if self.billed(case) else case.body
        return case.status, case.body

    def billed(self, case: Odd) -> bool:
        """A completion that travels as a text is sent as an object instead, so that a batch can carry it."""
        self.bill.append(case.tokens)
        return True


async def ask_all(folder: Path, *, count: int, seed: int, batch: bool) -> dict[str, Any]:
    """Ask `count` questions; returns the figures after everything was checked."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    root = logging.getLogger()
    root.addHandler(handler)
    level, root.level = root.level, logging.DEBUG
    wire = {number: _WIRE[number % len(_WIRE)] for number in range(20, 20 * count, 11)}
    server = MixedServer(seed=seed, faults={} if batch else wire)
    talk = Talk(benchmark=get_benchmark("pocketqa"), ask=True, as_json=True)
    few = questions(200)
    drawn = [replace(few[place % 200], qid=f"q{place}", question=f"{few[place % 200].question} (case {place})") for place in range(count)]
    wanted = [replace(ask_for(each), schema=REPLY_SCHEMA) for each in drawn]
    bench = Bench(ledger=folder / "ledger.sqlite", price=PRICE, in_flight=32, judge=talk.problem).attempts(3)
    try:
        with serve_simulated(server) as url, patch.dict(os.environ, OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY, NO_PROXY="127.0.0.1"):
            answers, usage = await (bench.ask_in_batches(wanted) if batch else bench.ask(wanted))
    finally:
        root.removeHandler(handler)
        root.level = level
    drafted = [Drafted(**vars(each), draft="", draft_verdict="yes", draft_questions=(), drafter="d") for each in drawn]
    rows = taught_rows(drafted, answers, talk=talk)
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(vars(row), default=str) for row in rows), encoding="utf-8")
    bill = sum(PRICE.usd(tokens_in=tokens_in, tokens_out=tokens_out) for tokens_in, tokens_out in server.bill) * (0.5 if batch else 1.0)
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        spent = ledger.spent()
    assert len(rows) == count
    assert all(row.outcome in set(Outcome) for row in rows)
    assert all(row.note for row in rows if row.outcome != Outcome.OK)
    assert abs(spent - bill) < 1e-6, (spent, bill)
    assert abs(usage.usd - bill) < 1e-6, (usage.usd, bill)
    assert max(server.kept.values()) == 1
    everything = said.getvalue().encode() + b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert KEY.encode() not in everything
    assert THOUGHT.encode() not in everything
    outcomes = Counter(str(row.outcome) for row in rows)
    return {"batch": batch, "rows": len(rows), "outcomes": dict(outcomes), "kinds": len(server.drawn), "spent": round(spent, 6), "bill": round(bill, 6)}
