"""The teacher's nouns, and `ask_all`: ask a batch of questions through the ledger, pay for none of them twice.

A `Teacher` turns one `Ask` into one `Reply`. Everything that all kinds of teacher share lives here: the ledger look-up, the
budget, the re-asks, the outcome of each question. Whether a text is usable is the caller's to say (`judge`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, Self

from tasks.contracts.asks import Answer, Ask, Usage
from tasks.contracts.failures import BudgetReached, NoReply, NotRecorded, TeacherRefused, TeacherUnavailable
from tasks.contracts.fingerprint import fingerprint
from tasks.contracts.rows import Outcome

if TYPE_CHECKING:
    from tasks.gateways.ledger import Ledger
    from tasks.gateways.limits import Limiter

GIVE_UP_AFTER = 20  # asks in a row that got no reply after all their retries: the endpoint is down, not the question odd


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the endpoint answered. `tries` HTTP calls were needed; `seconds` is the latency of the last one."""

    text: str
    finish_reason: str
    model: str  # as the endpoint reported it
    tokens_in: int
    tokens_out: int
    request_id: str
    tries: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How every ask of a batch is sampled. `attempts`: asks per question before a cut or faulted reply is kept as such."""

    model: str
    temperature: float
    max_tokens: int
    attempts: int


class Teacher(Protocol):
    """Someone who replies. Used as an async context manager, which sets it up and tears it down."""

    @property
    def can_take_hints(self) -> bool:
        """Whether a hinted ask may get another reply than a plain one."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exception: object) -> None: ...

    def source(self, ask: Ask) -> str:
        """What besides the request decides the reply: the endpoint's path, or the digest of a recording. Part of the ledger key."""
        ...

    def price(self, *, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """Dollars for one call; None where no price is known."""
        ...

    async def reply(self, ask: Ask, *, settings: Settings, reask: int, limiter: Limiter) -> Reply:
        """One reply, at the limiter's pace. Raises NoReply for this ask alone; TeacherRefused or TeacherUnavailable end the run."""
        ...


def request_key(ask: Ask, *, source: str, settings: Settings, reask: int) -> str:
    """Ledger key: SHA-256 of everything that decides a reply and of nothing else (qid, attempts, code and speed are not in it)."""
    request: dict[str, object] = {
        "source": source,
        "messages": ask.messages,
        "model": settings.model,
        "sampling": {"temperature": float(settings.temperature), "max_tokens": settings.max_tokens},
        "response_schema": None,
        "sample": ask.sample,
    }
    return fingerprint(request if reask == 0 else {**request, "reask": reask})


def estimated_tokens(messages: Sequence[dict[str, str]]) -> int:
    """Usual prompt size in tokens: 4 bytes of English a token and 4 tokens of framing a message."""
    return sum(len(text.encode("utf-8", "replace")) // 4 + 4 for message in messages for text in message.values())


def largest_tokens(messages: Sequence[dict[str, str]]) -> int:
    """Upper bound of the prompt's tokens: no byte-level tokenizer makes more tokens than there are bytes."""
    return sum(len(text.encode("utf-8", "replace")) + 8 for message in messages for text in message.values())


async def ask_all(
    asks: Sequence[Ask],
    *,
    teacher: Teacher,
    ledger: Ledger,
    limiter: Limiter,
    settings: Settings,
    judge: Callable[[str], str | None],
    progress: Callable[[int, int], None],
) -> tuple[list[Answer], Usage]:
    """Ask everything; answers come in the order asked. Equal asks are sent once.

    `judge` returns why a whole reply is unusable, or None; `progress(done, total)` is called after each question.
    A question without a usable reply is an Answer like any other. Raises TeacherRefused, TeacherUnavailable or BudgetReached
    when going on is pointless: calls on the wire are then still awaited and recorded, because they are paid.
    """
    caller = _Caller(teacher=teacher, ledger=ledger, limiter=limiter, settings=settings, judge=judge)
    caller.refuse_unpriced()
    keys = [request_key(ask, source=teacher.source(ask), settings=settings, reask=0) for ask in asks]
    shares = Counter(keys)
    done = 0

    async def one(key: str, ask: Ask) -> Answer:
        nonlocal done
        try:
            answer = await caller.answer(ask)
        except Exception:
            limiter.close()  # before anything else runs, so that not one more call starts
            raise
        done += shares[key]
        progress(done, len(asks))
        return answer

    firsts = dict(zip(reversed(keys), reversed(asks), strict=True))
    tasks = {key: asyncio.create_task(one(key, ask)) for key, ask in reversed(firsts.items())}
    await _finish(tasks.values(), limiter)
    answers = [replace(tasks[key].result(), ask=ask) for key, ask in zip(keys, asks, strict=True)]
    return answers, caller.usage + Usage(cached=len(asks) - len(tasks))


async def _finish(tasks: Iterable[asyncio.Task[Answer]], limiter: Limiter) -> None:
    """Wait for all tasks, or for the first error: then cancel those that wait, let calls on the wire end, and raise it."""
    everything = set(tasks)
    try:
        if everything:
            await asyncio.wait(everything, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        pending = {task for task in everything if not task.done()}
        if pending:
            limiter.close()  # where the caller was cancelled
            for task in pending - limiter.on_wire:
                task.cancel()
            await asyncio.wait(pending)
    faults = [fault for task in everything if not task.cancelled() and (fault := task.exception()) is not None]
    if faults:
        raise faults[0]


@dataclass
class _Caller:
    """One `ask_all` at work: the ledger, the budget and the re-asks around a teacher."""

    teacher: Teacher
    ledger: Ledger
    limiter: Limiter
    settings: Settings
    judge: Callable[[str], str | None]
    usage: Usage = field(default_factory=Usage)
    silent: int = 0  # asks in a row without a reply
    reserved: int = 0  # calls of this batch that hold a reservation
    admission: asyncio.Lock = field(default_factory=asyncio.Lock)
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    def refuse_unpriced(self) -> None:
        """A cap cannot be held over calls of unknown price."""
        model = self.settings.model
        if self.ledger.budget_usd is not None and self.teacher.price(model=model, tokens_in=1, tokens_out=1) is None:
            raise TeacherRefused(
                f"no price is known for the model {model!r}, so the budget of ${self.ledger.budget_usd:g} cannot be kept: "
                "name a model with a published price, or set execution.teacher.budget_usd to null"
            )

    async def answer(self, ask: Ask) -> Answer:
        """Ask until a reply is usable or the attempts are used up."""
        answer: Answer | None = None
        for reask in range(self.settings.attempts):
            try:
                reply = await self._reply(ask, reask)
            except NoReply as error:
                self._count_silence(error)
                return answer or self._failed(ask, error)
            outcome, note = self._outcome(reply)
            answer = Answer(ask=ask, outcome=outcome, text=reply.text, model=reply.model, attempts=reask + 1, note=note)
            if outcome is Outcome.OK:
                break
        assert answer is not None, "settings.attempts must be at least 1"
        return answer

    def _outcome(self, reply: Reply) -> tuple[Outcome, str]:
        if reply.finish_reason == "length":
            return Outcome.CUT, f"cut at {reply.tokens_out} tokens; raise recipe.teacher.max_tokens"
        if reply.finish_reason == "content_filter":
            return Outcome.REFUSED, "a content filter answered"
        problem = self.judge(reply.text)
        return (Outcome.OK, "") if problem is None else (Outcome.UNPARSED, problem)

    def _count_silence(self, error: NoReply) -> None:
        self.usage += Usage(retries=error.tries - 1)
        if isinstance(error, NotRecorded):
            return
        self.silent += 1
        if self.silent >= GIVE_UP_AFTER:
            raise TeacherUnavailable(f"{self.silent} questions in a row got no reply; the last said: {error}. What was answered is kept; run again later")

    def _failed(self, ask: Ask, error: NoReply) -> Answer:
        self.usage += Usage(failed=1)
        return Answer(ask=ask, outcome=Outcome.FAILED, text="", model="", attempts=1, note=str(error))

    async def _reply(self, ask: Ask, reask: int) -> Reply:
        source = self.teacher.source(ask)
        key = request_key(ask, source=source, settings=self.settings, reask=reask)
        stored = self.ledger.find(key)
        if stored is not None:
            self.usage += Usage(cached=1)
            return stored
        model = self.settings.model
        worst = self.teacher.price(model=model, tokens_in=largest_tokens(ask.messages), tokens_out=self.settings.max_tokens)
        async with self._reservation(worst or 0.0):
            reply = await self.teacher.reply(ask, settings=self.settings, reask=reask, limiter=self.limiter)
            usd = self.teacher.price(model=model, tokens_in=reply.tokens_in, tokens_out=reply.tokens_out)
            self.ledger.record(key, reply, source=source, usd=usd)
        self.silent = 0
        self.usage += Usage(calls=1, retries=reply.tries - 1, tokens_in=reply.tokens_in, tokens_out=reply.tokens_out, usd=usd or 0.0)
        return reply

    @asynccontextmanager
    async def _reservation(self, usd: float) -> AsyncIterator[None]:
        """Hold `usd` of the budget for one call. Waits while calls of this batch may still give back what they did not need."""
        async with self.admission:
            while (reservation := self.ledger.reserve(usd)) is None:
                if not self.reserved:
                    raise BudgetReached(
                        f"the next call may cost ${usd:.4f}, which would pass execution.teacher.budget_usd = {self.ledger.budget_usd:g} "
                        f"(${self.ledger.spent():.4f} spent). Every reply so far is kept in the ledger; raise the cap and run again to go on"
                    )
                self.settled.clear()
                await self.settled.wait()
            self.reserved += 1
        try:
            yield
        finally:
            self.reserved -= 1
            self.ledger.release(reservation)
            self.settled.set()
