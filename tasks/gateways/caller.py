"""Ask a batch of questions through the ledger and pay for none of them twice.

Everything that all kinds of teacher and both modes share lives here: the ledger look-up, the chain of re-asks, the budget, the outcome of each
question. One `Caller` serves a process; shards of the same work ask through it side by side. Whether a text is usable is `judge`'s to say.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from tasks.contracts.asks import Answer, Ask, Usage
from tasks.contracts.failures import BudgetReached, NoReply, NotRecorded, Rejected, Stopped, TeacherRefused, TeacherUnavailable
from tasks.contracts.rows import Outcome
from tasks.gateways.batch_store import BatchStore
from tasks.gateways.completions import end_of, told
from tasks.gateways.ledger import Ledger
from tasks.gateways.limits import Limiter
from tasks.gateways.outset import Outset
from tasks.gateways.prices import Price
from tasks.gateways.teacher import Billed, Reply, Request, Settings, Teacher, first_request, repaired

GIVE_UP_AFTER = 20  # asks in a row that got no reply after all their retries: the endpoint is down, not the question odd
Progress = Callable[[int, int, Usage], None]


@dataclass
class Tally:
    """The usage of one call of `Caller.ask`, and the replies that it has in hand."""

    replies: dict[str, Reply] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A question whose next reply must be bought; `so_far` is the unusable answer that it has."""

    request: Request
    key: str
    so_far: Answer | None


@dataclass(kw_only=True)
class Caller:
    """Asks a teacher through a ledger. `price` is what the budget is held by; `judge` returns why a whole reply is unusable, or None."""

    teacher: Teacher
    ledger: Ledger
    limiter: Limiter
    settings: Settings
    judge: Callable[[str], str | None]
    price: Price
    outset: Outset = field(default_factory=Outset)  # of everything that this process asks the teacher
    mended: set[str] = field(default_factory=set, init=False)  # keys of damaged rows that were bought again
    _silent: int = field(default=0, init=False)  # asks in a row without a reply
    _reserved: int = field(default=0, init=False)  # calls of this process that hold a reservation
    _admission: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _settled: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def ask(self, asks: Sequence[Ask], *, progress: Progress) -> tuple[list[Answer], Usage]:
        """Ask everything; answers come in the order asked. Equal asks are sent once.

        `progress(done, total, usage)` is called after each question. A question without a usable reply is an Answer like any other.
        Raises TeacherRefused, TeacherUnavailable or BudgetReached when going on is pointless: calls on the wire are then still awaited and
        recorded, because they are paid.
        """
        firsts, keys = self.requests(asks)
        shares = Counter(keys)
        tally = Tally(replies=self.ledger.find_many(shares), usage=Usage(cached=len(asks) - len(shares)))
        tally.usage += Usage(cached=len(tally.replies))
        self.outset.answered |= bool(tally.replies)
        answers: dict[str, Answer] = {}
        done = 0

        def finish(key: str, answer: Answer) -> None:
            nonlocal done
            answers[key] = answer
            done += shares[key]
            progress(done, len(asks), tally.usage)

        async def buy(key: str, step: Wanted) -> None:
            try:
                answer = await self._buy_on(step, tally)
            except Exception:
                self.limiter.close()  # before anything else runs, so that not one more call starts
                raise
            finish(key, answer)

        missing: dict[str, Wanted] = {}
        for key, request in firsts.items():
            step = self.advance(request, key, tally)
            if isinstance(step, Answer):
                finish(key, step)
            else:
                missing[key] = step
        self._refuse_batched(step.key for step in missing.values())
        await _finish([asyncio.create_task(buy(key, step)) for key, step in missing.items()], self.limiter)
        self.outset.refuse_alike(enough=len(missing))
        return in_order(answers, keys, asks), tally.usage

    def requests(self, asks: Sequence[Ask]) -> tuple[dict[str, Request], list[str]]:
        """The first request of every different ask by its key, and the key of each ask."""
        requests = [first_request(ask, self.settings) for ask in asks]
        keys = [request.key(self.teacher.source(request.ask)) for request in requests]
        firsts: dict[str, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            firsts.setdefault(key, request)
        return firsts, keys

    def advance(self, request: Request, key: str, tally: Tally) -> Answer | Wanted:
        """The end of a question (whose first request has `key`) by what is known, or the reply that must be bought next."""
        step: Answer | Wanted = Wanted(request=request, key=key, so_far=None)
        while isinstance(step, Wanted) and (reply := self._known(step.key, tally)) is not None:
            step = self._after(step, reply)
        return step

    def _after(self, step: Wanted, reply: Reply) -> Answer | Wanted:
        """What a reply leads to: the end, or a re-ask that says what was wrong."""
        request, ask = step.request, step.request.ask
        outcome, note = self._outcome(reply)
        answer = Answer(
            ask=ask, outcome=outcome, text=reply.text, model=reply.model, attempts=request.reask + 1, note=note,
            status=reply.status, request_id=reply.request_id,
        )  # fmt: skip
        self.outset.heard(step.key, note)
        if outcome is Outcome.OK or answer.attempts >= self.settings.attempts:
            return answer
        again = replace(request, reask=request.reask + 1, messages=repaired(ask, request.reask + 1, reply=reply, problem=note))
        return Wanted(request=again, key=again.key(self.teacher.source(ask)), so_far=answer)

    def _refuse_batched(self, keys: Iterable[str]) -> None:
        """What a batch is about to answer must not be bought a second time."""
        held = BatchStore(self.ledger).held(keys)
        if held:
            raise TeacherRefused(
                f"{len(held)} of the questions are in a batch that the provider still works on: run with execution.teacher.mode=batch to collect it, "
                "or give its replies up with `socratune ledger forget-batches`"
            )

    def ended(self, step: Wanted, error: NoReply, tally: Tally) -> Answer:
        """The answer of a question whose next reply could not be had: what it has so far, or a failure."""
        final = isinstance(error, (NotRecorded, Rejected))
        if step.so_far is not None:
            return replace(step.so_far, final=final)
        outcome = Outcome(error.outcome) if isinstance(error, Rejected) else Outcome.FAILED
        tally.usage += Usage(failed=int(outcome is Outcome.FAILED))
        ask = step.request.ask
        return Answer(ask=ask, outcome=outcome, text="", model="", attempts=1, note=str(error), status=error.status, final=final)

    def worst_usd(self, request: Request) -> float:
        """The most that a request can cost, as far as calls so far have shown."""
        return self.outset.worst_usd(request, self.price)

    def _known(self, key: str, tally: Tally) -> Reply | None:
        if key not in tally.replies:
            reply = self.ledger.find(key)
            if reply is None:
                return None
            tally.replies[key] = reply
            tally.usage += Usage(cached=1)
        return told(tally.replies[key])

    def _outcome(self, reply: Reply) -> tuple[Outcome, str]:
        end = end_of(reply.finish_reason)
        if end == "length":
            return Outcome.CUT, f"it was cut off after {reply.tokens_out} tokens (recipe.teacher.max_tokens); be brief"
        if end == "content_filter":
            return Outcome.REFUSED, "a content filter answered"
        if end != "stop":  # only a known good end is one
            return (
                Outcome.CUT,
                f"it may be cut off: how it ended is unknown (finish_reason {end[:40]!r})" if end else "it may be cut off: no finish_reason is given",
            )
        if not reply.text:
            return Outcome.UNPARSED, "`content` was empty" + (" but for thoughts" if reply.thought else "")
        problem = self.judge(reply.text)
        return (Outcome.OK, "") if problem is None else (Outcome.UNPARSED, problem)

    async def _buy_on(self, step: Wanted, tally: Tally) -> Answer:
        """Buy replies until one is usable or the attempts are used up. A re-ask may be known from an earlier run."""
        while True:
            try:
                reply = self._known(step.key, tally) or await self._buy(step, tally)
            except NoReply as error:
                self._count_silence(error, tally)
                return self.ended(step, error, tally)
            after = self._after(step, reply)
            if isinstance(after, Answer):
                return after
            step = after

    async def _buy(self, step: Wanted, tally: Tally) -> Reply:
        def charge(billed: Billed) -> None:
            usd = self.price.usd(**vars(billed))
            self.ledger.charge(billed, usd)
            tally.usage += Usage(tokens_in=billed.tokens_in, tokens_out=billed.tokens_out, usd=usd)

        async with self.outset.place(capped=self.ledger.budget_usd is not None), self._reservation(step.request) as reservation:
            self.outset.refuse_vain()
            reply = told(await self.teacher.reply(step.request, limiter=self.limiter, charge=charge))
            self.outset.learn_cost(step.request, reply)
            usd = self.price.usd(tokens_in=reply.tokens_in, tokens_out=reply.tokens_out, tokens_cached=reply.tokens_cached)
            self.mended |= self.ledger.damaged & {step.key}
            if not self.ledger.record(step.key, reply, source=self.teacher.source(step.request.ask), usd=usd, reservation=reservation):
                reply = self.ledger.find(step.key) or reply  # another process was faster; its reply is the one that counts
        self._silent = 0
        tally.usage += Usage(
            calls=1, retries=reply.tries - 1, reasks=min(step.request.reask, 1), tokens_in=reply.tokens_in, tokens_out=reply.tokens_out, usd=usd
        )
        return reply

    def _count_silence(self, error: NoReply, tally: Tally) -> None:
        tally.usage += Usage(retries=error.tries - 1)
        if isinstance(error, NotRecorded):
            return
        self.outset.refused(error)
        self.outset.refuse_alike()
        if isinstance(error, Rejected):
            self._silent = 0  # it answers, only not this
            return
        self._silent += 1
        if self._silent >= GIVE_UP_AFTER:
            raise TeacherUnavailable(f"{self._silent} questions in a row got no reply; the last said: {error}. What was answered is kept; run again later")

    @asynccontextmanager
    async def _reservation(self, request: Request) -> AsyncIterator[int]:
        """Hold the worst price of one call. Waits while calls of this process may still give back what they did not need."""
        if self.ledger.budget_usd is None:
            yield 0
            return
        usd = self.worst_usd(request)
        async with self._admission:
            while (reservation := self.ledger.reserve(usd)) is None:
                if not self._reserved:
                    raise budget_reached(self.ledger, usd)
                self._settled.clear()
                await self._settled.wait()
            self._reserved += 1
        recorded = False
        try:
            yield reservation
            recorded = True
        finally:
            self._reserved -= 1
            if not recorded:
                self.ledger.release(reservation)
            self._settled.set()


def in_order(answers: Mapping[str, Answer], keys: Sequence[str], asks: Sequence[Ask]) -> list[Answer]:
    """The answers in the order asked; equal asks share one."""
    ordered = (answers[key] for key in keys)
    return [answer if answer.ask is ask else replace(answer, ask=ask) for answer, ask in zip(ordered, asks, strict=True)]


def price_of(teacher: Teacher, *, model: str, given: Price | None) -> Price:
    """The price to hold the budget by: the profile's, else the teacher's. Raises TeacherRefused where neither is known."""
    price = given or teacher.price(model)
    if price is None:
        raise TeacherRefused(
            f"no price is known for the model {model!r}: set execution.teacher.price to {{input: .., cached_input: .., output: ..}} in dollars per million "
            "tokens (all 0 for a model of your own), or name a model with a published price"
        )
    return price


def budget_reached(ledger: Ledger, usd: float) -> BudgetReached:
    """Why no call may start, and how to go on."""
    return BudgetReached(
        f"the next call may cost ${usd:.4f}, which would pass execution.teacher.budget_usd = {ledger.budget_usd:g} "
        f"(${ledger.spent():.4f} spent). Every reply so far is kept in the ledger; raise the cap and run again to go on"
    )


async def _finish(tasks: Iterable[asyncio.Task[None]], limiter: Limiter) -> None:
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
    if any(task.cancelled() for task in everything):
        raise Stopped
