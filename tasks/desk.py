"""Where stages ask a teacher or a judge: through one ledger, at this process's share of the limits, in shards that Prefect shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL

from tasks.contracts.asks import Answer, Ask, Usage
from tasks.contracts.execution import TeacherExecution
from tasks.contracts.failures import Stopped, TeacherUnavailable
from tasks.contracts.recipes import Teacher
from tasks.contracts.rows import Outcome
from tasks.gateways.batch_caller import BatchCaller
from tasks.gateways.caller import Caller
from tasks.gateways.kinds import price_for, settings_of
from tasks.gateways.ledger import Ledger
from tasks.gateways.limits import Limiter
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.gateways.outset import Outset
from tasks.gateways.teacher import Teacher as Replier
from tasks.logic.teaching import shards
from tasks.pace import shared_pace
from tasks.stage import Work

CallerFor = Callable[[Callable[[str], str | None]], Caller | BatchCaller]  # by what says why a whole reply cannot be used
SHARDS_AT_ONCE = 4  # so that the last slow replies of one shard do not hold up the pace


@asynccontextmanager
async def desk(work: Work, *, recipe: Teacher, teacher: Replier, pace: TeacherExecution) -> AsyncIterator[CallerFor]:
    """Makes a caller for all shards of one kind of ask; all of them go through one ledger, at this process's share of the limits."""
    limiter = Limiter(requests_per_minute=pace.requests_per_minute, tokens_per_minute=pace.tokens_per_minute, max_in_flight=pace.max_in_flight)
    price = price_for(teacher, recipe=recipe, pace=pace)
    outset = Outset()
    async with AsyncExitStack() as stack:
        ledger = stack.enter_context(Ledger(work.root.path / work.execution.ledger, budget_usd=pace.budget_usd))

        def caller_for(judge: Callable[[str], str | None]) -> Caller | BatchCaller:
            caller = Caller(teacher=teacher, ledger=ledger, limiter=limiter, settings=settings_of(recipe), judge=judge, price=price, outset=outset)
            if pace.mode == "online":
                return caller
            assert isinstance(teacher, OpenAITeacher), "load_profile refuses other kinds"
            return BatchCaller(caller=caller, teacher=teacher, poll_seconds=pace.poll_seconds)

        if recipe.kind == "openai" and pace.mode == "online" and PREFECT_API_URL.value():  # a server of this process's own counts nobody else
            await stack.enter_async_context(shared_pace(limiter, name=f"socratune-teacher-{recipe.model}"))
        yield caller_for


async def ask_in_shards(work: Work, asks: Sequence[Ask], caller: Caller | BatchCaller, what: str) -> tuple[list[Answer], Usage]:
    """Ask in shards, a Prefect task each, named by `what`; a batch is one shard, because the provider spreads it."""
    size = len(asks) if isinstance(caller, BatchCaller) else work.execution.teacher.shard
    pieces = shards(len(asks), size=size) if asks else []
    places = asyncio.Semaphore(SHARDS_AT_ONCE)
    meter = Meter(total=len(asks))

    async def shard(first: int, end: int) -> tuple[list[Answer], Usage]:
        async def ask_shard() -> tuple[list[Answer], Usage]:
            return await caller.ask(asks[first:end], progress=lambda done, _, usage: work.progress(*meter.read(first, done, usage, what)))

        async with places:
            run = task(name="ask", task_run_name=f"{what} {first + 1} to {end}", cache_policy=NO_CACHE, persist_result=False)
            return await run(ask_shard)()

    # Every shard is waited for, also after an error or a cancellation: what is on the wire is paid and must find the ledger open.
    done = await asyncio.gather(*(shard(first, end) for first, end in pieces), return_exceptions=True)
    faults = [each for each in done if isinstance(each, BaseException)]
    if faults:
        raise next((fault for fault in faults if not isinstance(fault, Stopped)), faults[0])
    finished = [each for each in done if not isinstance(each, BaseException)]
    return [answer for answers, _ in finished for answer in answers], sum((usage for _, usage in finished), Usage())


def refuse_gaps(answers: Sequence[Answer], *, allowed: float) -> None:
    """Raise TeacherUnavailable when too many questions got no reply: before anything more is bought."""
    unanswered = sum(answer.outcome == Outcome.FAILED and not answer.final for answer in answers)
    if unanswered > allowed * len(answers):
        raise TeacherUnavailable(
            f"{unanswered} of {len(answers)} questions got no reply, more than execution.teacher.max_failed_share = {allowed:g}; "
            "the others are in the ledger, so run again: only these are asked then"
        )


@dataclass
class Meter:
    """How far all shards are together, and what the rest may cost at the price of what was bought so far."""

    total: int
    done: int = 0
    usage: Usage = field(default_factory=Usage)
    _shards: dict[int, tuple[int, Usage]] = field(default_factory=dict)

    def read(self, first: int, done: int, usage: Usage, what: str) -> tuple[int, int, str]:
        """Take in a shard's newest figures; returns what to show: done, total and a note."""
        before, spent = self._shards.get(first, (0, Usage()))
        self._shards[first] = (done, usage)
        self.done += done - before
        self.usage += Usage(calls=usage.calls - spent.calls, usd=usage.usd - spent.usd)
        calls, usd = self.usage.calls, self.usage.usd
        cost = f", ${usd:.2f} so far, about ${usd + usd / calls * (self.total - self.done):.2f} in all" if usd else ""
        return self.done, self.total, f"{what}: {calls} bought{cost}"
