"""Our client: one teacher, one limiter and one ledger a process; shards of 500 questions, up to four at once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.contracts.asks import Ask
from tasks.contracts.rows import Outcome
from tasks.gateways.caller import Caller
from tasks.gateways.ledger import Ledger
from tasks.gateways.limits import Limiter
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.gateways.prices import FREE
from tasks.gateways.teacher import Settings
from tasks.logic.benchmarks.teacher_talk import parse_teacher_reply
from tests.bench.teacher.meter import measure, messages_for

SHARD, AT_ONCE = 500, 4
NO_LIMIT = 10**9


def judge(text: str) -> str | None:
    return parse_teacher_reply(text).problem or None


async def ask(spec: dict[str, Any]) -> dict[str, Any]:
    settings = Settings(model=spec["model"], temperature=0.0, max_tokens=spec["max_tokens"], attempts=3)
    limiter = Limiter(requests_per_minute=spec["rpm"] or NO_LIMIT, tokens_per_minute=spec["tpm"] or NO_LIMIT, max_in_flight=spec["in_flight"])
    lost = 0
    async with OpenAITeacher(timeout_seconds=spec["timeout"]) as teacher:
        with Ledger(Path(spec["work"]) / "ledger.sqlite", budget_usd=None) as ledger:
            caller = Caller(teacher=teacher, ledger=ledger, limiter=limiter, settings=settings, judge=judge, price=FREE)

            async def worker(starts: Iterator[int]) -> None:
                nonlocal lost
                for start in starts:
                    numbers = range(start, min(start + SHARD, spec["count"]))
                    asks = [Ask(qid=str(number), sample=0, messages=tuple(messages_for(spec, number)), hinted=False) for number in numbers]
                    answers, _ = await caller.ask(asks, progress=lambda *_: None)
                    lost += sum(answer.outcome is not Outcome.OK for answer in answers)

            starts = iter(range(0, spec["count"], SHARD))
            workers = [asyncio.create_task(worker(starts)) for _ in range(AT_ONCE)]
            done = await asyncio.gather(*workers, return_exceptions=True)
    errors = [error for error in done if isinstance(error, Exception)]
    if errors:
        raise errors[0]
    return {"lost": lost}


if __name__ == "__main__":
    measure(lambda spec: asyncio.run(ask(spec)))
