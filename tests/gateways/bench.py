"""What the gateway tests ask with: the real client, a real ledger; only the waits of back-off return at once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.contracts.asks import Answer, Ask, Usage
from tasks.contracts.rows import Drafted, Question
from tasks.gateways.batch_caller import BatchCaller
from tasks.gateways.caller import Caller, price_of
from tasks.gateways.ledger import Ledger
from tasks.gateways.limits import Limiter
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.gateways.prices import Price
from tasks.gateways.teacher import Settings, Teacher
from tasks.logic.benchmarks import pocketqa
from tasks.logic.benchmarks.teacher_talk import parse_teacher_reply, teacher_messages

KEY = "sk-canary-0123456789abcdef"


def questions(count: int) -> list[Question]:
    return list(pocketqa.sample(split="dev", n=count, seed=0))


def ask_for(question: Question, *, sample: int = 0, hinted: bool = False) -> Ask:
    row = Drafted(**vars(question), draft="Answer: Yes", draft_verdict="yes", draft_questions=("Is it so?",), drafter="d")
    return Ask(qid=question.qid, sample=sample, messages=teacher_messages(row, hint=hinted), hinted=hinted)


def asks(count: int) -> list[Ask]:
    return [ask_for(question) for question in questions(count)]


def judge(text: str) -> str | None:
    return parse_teacher_reply(text).problem or None


@dataclass
class Bench:
    """What a test asks with: one ledger file, one set of limits, and everything that was waited for."""

    ledger: Path
    settings: Settings = field(default_factory=lambda: Settings(model="gpt-4", temperature=0.0, max_tokens=200, attempts=2))
    budget: float | None = None
    price: Price | None = None
    in_flight: int = 8
    judge: Callable[[str], str | None] = judge
    waits: list[float] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def ask(self, wanted: list[Ask], *, teacher: Teacher | None = None) -> tuple[list[Answer], Usage]:
        async with teacher or OpenAITeacher(timeout_seconds=20.0) as opened:
            with Ledger(self.ledger, budget_usd=self.budget) as ledger:
                return await self.caller(opened, ledger).ask(wanted, progress=self._note)

    async def ask_in_batches(self, wanted: list[Ask]) -> tuple[list[Answer], Usage]:
        async with OpenAITeacher(timeout_seconds=20.0) as teacher:
            with Ledger(self.ledger, budget_usd=self.budget) as ledger:
                caller = BatchCaller(caller=self.caller(teacher, ledger, batch=True), teacher=teacher, poll_seconds=1.0, sleep=self._sleep)
                return await caller.ask(wanted, progress=self._note)

    def caller(self, teacher: Teacher, ledger: Ledger, *, batch: bool = False) -> Caller:
        limiter = Limiter(requests_per_minute=10**6, tokens_per_minute=10**9, max_in_flight=self.in_flight, sleep=self._sleep)
        price = price_of(teacher, model=self.settings.model, given=self.price)
        return Caller(teacher=teacher, ledger=ledger, limiter=limiter, settings=self.settings, judge=self.judge, price=price.in_batch() if batch else price)

    def _note(self, done: int, total: int, usage: Usage) -> None:
        self.progress.append((done, total))

    def attempts(self, count: int) -> "Bench":
        return replace(self, settings=replace(self.settings, attempts=count))

    def kept(self) -> int:
        with Ledger(self.ledger, budget_usd=None) as ledger:
            return ledger.usage().calls
