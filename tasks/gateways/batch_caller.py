"""Ask through OpenAI's Batch API: half the price, an answer within a day, the same ledger keys as online.

Every step is noted in the ledger before the next one begins, so a run that is killed takes up its batches where they are: a batch that was sent
is found again by its mark, one that was not is drawn anew. Batches that expire or fail in part keep every reply that was paid; the rest is sent again.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from tasks.contracts.asks import Answer, Ask, Usage
from tasks.contracts.failures import NoReply, Rejected, TeacherRefused, TeacherUnavailable
from tasks.gateways.batch_store import BatchStore, Drawn
from tasks.gateways.caller import Caller, Progress, Tally, Wanted, budget_reached, in_order
from tasks.gateways.completions import NoCompletion, reply_from, told
from tasks.gateways.openai_teacher import BACK_OFF, ENDPOINT, LONGEST_WAIT, TRIES, OpenAITeacher, filtered, rejected, requested_wait
from tasks.gateways.refusals import PASSING, refusal_of
from tasks.gateways.teacher import Billed, Reply
from tasks.logic.texts import clean

if TYPE_CHECKING:  # most of a second to import, for runs that call nobody too
    from openai.types import Batch

T = TypeVar("T")
LINES = 5_000  # requests a batch; the API takes 50,000, but small ones start sooner and lose less when one expires
PAGES = 10  # of a hundred batches that are looked through for ours; newest come first
FIRST_LINES = 40  # of the first one, which shows what replies cost and whether they can be used
ROUNDS = 4  # times that a question is sent before it counts as failed
MARK = "socratune"  # metadata key that names our batch
_OVER = frozenset({"completed", "expired", "cancelled", "failed"})


@dataclass(kw_only=True)
class BatchCaller:
    """Asks like `Caller`, whose ledger, chain of re-asks and outcomes it uses. `sleep` waits between two looks at a batch."""

    caller: Caller
    teacher: OpenAITeacher
    poll_seconds: float
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _errors: dict[str, NoReply] = field(default_factory=dict, init=False)
    _rounds: Counter[str] = field(default_factory=Counter, init=False)
    _spoken: dict[str, frozenset[str]] = field(default_factory=dict, init=False)  # parameters that a question was sent without

    def __post_init__(self) -> None:
        self._store = BatchStore(self.caller.ledger)

    @property
    def mended(self) -> set[str]:
        """Keys of damaged rows that were bought again."""
        return self.caller.mended

    async def ask(self, asks: Sequence[Ask], *, progress: Progress) -> tuple[list[Answer], Usage]:
        """As `Caller.ask`. `progress` moves with the request counts that the API reports."""
        caller = self.caller
        self._store.close_collected()
        firsts, keys = caller.requests(asks)
        tally = Tally(replies=caller.ledger.find_many(firsts))
        tally.usage += Usage(cached=len(tally.replies) + len(asks) - len(firsts))
        caller.outset.answered |= bool(tally.replies)
        while True:
            steps = {key: caller.advance(request, key, tally) for key, request in firsts.items()}
            wanted = {step.key: step for step in steps.values() if isinstance(step, Wanted) and self._open_to(step.key)}
            progress(len(asks) - len(wanted), len(asks), tally.usage)
            if not wanted:
                break
            caller.outset.refuse_vain()
            batches = await self._open(wanted)
            if not batches:
                raise budget_reached(caller.ledger, caller.worst_usd(next(iter(wanted.values())).request))
            settled = len(asks) - len(wanted)

            def tell(done: int, settled: int = settled) -> None:
                progress(settled + done, len(asks), tally.usage)

            await self._wait_for(batches, wanted, tally, tell)
        caller.outset.refuse_alike(enough=len(firsts))
        answers = {key: step if isinstance(step, Answer) else self._given_up(step, tally) for key, step in steps.items()}
        return in_order(answers, keys, asks), tally.usage

    def _open_to(self, key: str) -> bool:
        """Whether sending a question once more may bring a reply."""
        return self._rounds[key] < ROUNDS and not isinstance(self._errors.get(key), Rejected)

    def _given_up(self, step: Wanted, tally: Tally) -> Answer:
        return self.caller.ended(step, self._errors.get(step.key) or NoReply(f"expired in {ROUNDS} batches", tries=ROUNDS), tally)

    async def _open(self, wanted: Mapping[str, Wanted]) -> dict[str, str]:
        """Our batches by remote id: those that hold wanted questions already, and new ones for the rest as far as the budget goes."""
        endpoint = str(self.teacher.client().base_url)
        remote: dict[str, str] = {}
        for drawn in self._store.open_batches(endpoint, keys=wanted):
            if drawn.busy:
                raise TeacherUnavailable("another process is just sending these questions in a batch; run again when it has")
            found = drawn.remote_id or (await self._find_remote(drawn) if drawn.file_id else None)
            if found is None:
                self._store.close(drawn.id)  # never sent: drawn anew below
            else:
                self._store.sent(drawn.id, found)
                remote[found] = drawn.id
        held = self._store.lines_of(remote.values())
        rest = [step for key, step in wanted.items() if key not in held]
        costs = [(step.key, self.caller.worst_usd(step.request)) for step in rest]
        first = not self.caller.outset.useful
        while not (first and remote) and (drawn_keys := self._store.draw(endpoint, costs[: FIRST_LINES if first else LINES])):
            batch, keys = drawn_keys
            remote[await self._send(batch, [wanted[key] for key in keys])] = batch
            costs = costs[len(keys) :]
        return remote

    async def _send(self, batch: str, steps: Sequence[Wanted]) -> str:
        """Upload and start one batch; returns its remote id."""
        client = self.teacher.client()
        self._spoken |= dict.fromkeys((step.key for step in steps), self.teacher.dialect.refused)
        lines = [{"custom_id": step.key, "method": "POST", "url": ENDPOINT, "body": step.request.body(self.teacher.dialect.refused)} for step in steps]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        file = await self._insist(lambda: client.files.create(file=(f"{MARK}-{batch}.jsonl", content), purpose="batch"))
        drawn = self._store.uploaded(batch, file.id)
        tried = False

        async def create() -> str:
            nonlocal tried
            found = await self._find_remote(drawn) if tried else None  # a reply that was lost on the way must not start a second batch
            tried = True
            if found is None:
                made = await client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", metadata={MARK: batch})
                found = made.id
            return found

        remote = await self._insist(create)
        self._store.sent(batch, remote)
        return remote

    async def _find_remote(self, drawn: Drawn) -> str | None:
        """The id of the batch that was made from our file, if the API knows one."""
        page = await self._insist(partial(self.teacher.client().batches.list, limit=100))
        for _ in range(PAGES):
            for each in page.data:
                if (each.metadata or {}).get(MARK) == drawn.id:
                    return str(each.id)
            if not page.has_next_page():
                break
            page = await self._insist(page.get_next_page)
        return None

    async def _wait_for(self, batches: dict[str, str], wanted: Mapping[str, Wanted], tally: Tally, told: Callable[[int], None]) -> None:
        """Look at every batch until all are over; collect each as soon as it is."""
        counts = dict.fromkeys(batches, 0)
        left = dict(batches)
        while left:
            for remote in list(left):
                state = await self._insist(partial(self.teacher.client().batches.retrieve, remote))
                counts[remote] = state.request_counts.completed if state.request_counts else 0
                if state.status == "failed":
                    self._refused(left.pop(remote), state, others=bool(left))
                elif state.status in _OVER:
                    await self._collect(left.pop(remote), state, wanted, tally)
            told(sum(counts.values()))
            if left:
                await self.sleep(self.poll_seconds)

    async def _collect(self, batch: str, state: Batch, wanted: Mapping[str, Wanted], tally: Tally) -> None:
        """Keep every reply of a batch that is over, then close it. Lines without one are wanted still."""
        replies: dict[str, tuple[Reply, float | None]] = {}
        lost: list[tuple[Billed, float]] = []
        refusal: TeacherRefused | None = None
        ours = self._store.lines_of([batch])  # all of them are paid, whether this run wants them or not
        for file_id in (state.output_file_id, state.error_file_id):
            if not file_id:
                continue
            content = await self._insist(partial(self.teacher.client().files.content, file_id))
            for line in self.teacher.unkeyed(content.text).split("\n"):
                refusal = self._read(line, ours, wanted, replies, lost) or refusal
        self._rounds.update(ours)
        self.caller.mended |= self.caller.ledger.damaged & replies.keys()
        self.caller.ledger.record_batch(batch, replies, source=self.teacher.source(next(iter(wanted.values())).request.ask), lost=lost)
        self._store.close(batch)
        tally.usage += Usage(usd=sum(usd for _, usd in lost))
        for key, (reply, usd) in replies.items():
            tally.replies[key] = self.caller.ledger.find(key) or reply
            if key in wanted:
                self.caller.outset.learn_cost(wanted[key].request, reply)
            reask = key in wanted and wanted[key].request.reask > 0
            tally.usage += Usage(calls=1, reasks=int(reask), tokens_in=reply.tokens_in, tokens_out=reply.tokens_out, usd=usd or 0.0)
        self.caller.outset.answered |= bool(replies)
        for key in ours & self._errors.keys() - replies.keys():
            if self._errors[key].alike:
                self.caller.outset.refused(self._errors[key])
        if refusal is not None:
            raise refusal
        self.caller.outset.refuse_alike()
        if state.status == "cancelled":
            raise TeacherUnavailable(f"the batch {state.id} was cancelled at the provider; its replies so far are in the ledger, run again to send the rest")

    def _refused(self, batch: str, state: Batch, *, others: bool) -> None:
        """Validation rejected a whole batch. Too many tokens at once is no end while others run: its questions are sent again after them."""
        self._store.close(batch)
        errors = state.errors.data if state.errors and state.errors.data else []
        if others and any(error.code == "token_limit_exceeded" for error in errors):
            return
        said = "; ".join(str(error.message) for error in errors) or "no reason given"
        raise TeacherRefused(f"the provider refused the batch {state.id} ({said}); check recipe.teacher and the account's batch limits")

    def _read(
        self, line: str, ours: Set[str], wanted: Mapping[str, Wanted], replies: dict[str, tuple[Reply, float | None]], lost: list[tuple[Billed, float]]
    ) -> TeacherRefused | None:
        """One line of an output or error file: a reply to keep, an error to remember, or a refusal that ends the run. What is billed without a reply is
        added to `lost`."""
        try:
            row: Any = json.loads(line)
            key, response = str(row["custom_id"]), row.get("response") or {}
            body, status = response.get("body") or {}, int(response.get("status_code") or 0)
            error = row.get("error") or (body.get("error") if isinstance(body, dict) and status != 200 else None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # no line of ours; what it was to answer stays wanted
        if key not in ours:
            return None
        request = wanted[key].request if key in wanted else None
        if status == 200 and not error:
            try:
                reply = told(reply_from(body, request_id=str(response.get("request_id") or row.get("id") or ""), tries=1, seconds=0.0, request=request))
            except NoCompletion as found:
                if found.billed is not None:
                    lost.append((found.billed, self.caller.price.usd(**vars(found.billed))))
                self._errors[key] = NoReply(str(found), tries=self._rounds[key] + 1, status=status)
                return None
            replies[key] = (reply, self.caller.price.usd(tokens_in=reply.tokens_in, tokens_out=reply.tokens_out, tokens_cached=reply.tokens_cached))
            return None
        return self._refused_line(key, status, error if error else body, replies)

    def _refused_line(self, key: str, status: int, error: Any, replies: dict[str, tuple[Reply, float | None]]) -> TeacherRefused | None:
        """A line without a reply: the question's own end, one to be sent again, or a refusal that ends the run."""
        refusal = refusal_of(status, error)
        said = self.teacher.redacted(f"HTTP {status}: {clean(refusal.message or refusal.code)}")
        if refusal.code == "content_filter":
            replies[key] = (filtered(self.caller.settings.model), 0.0)
        elif 400 <= status < 500 and refusal.subject in ("quota", "account"):
            return TeacherRefused(f"the endpoint refused a request of the batch ({said}); {refusal.advice}: replies so far are in the ledger")
        elif refusal.code == "insufficient_quota":
            return TeacherRefused(f"the account has no quota left ({said}); add credit with the provider and run again: replies so far are in the ledger")
        elif refusal.subject == "parameter" and refusal.parameter not in self._spoken.get(key, frozenset()) and self._learned(refusal.parameter):
            self._errors[key] = NoReply(said, tries=self._rounds[key] + 1, status=status)  # sent again without it
        elif 400 <= status < 500 and refusal.subject in ("request", "parameter"):
            self._errors[key] = rejected(refusal, said, tries=self._rounds[key] + 1)
        else:
            self._errors[key] = NoReply(said, tries=self._rounds[key] + 1, status=status)
        return None

    def _learned(self, parameter: str) -> bool:
        """Whether the same can be said without a parameter."""
        return parameter in self.teacher.dialect.refused or self.teacher.dialect.learn(parameter)

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call to the batch endpoints, again after passing trouble. Raises TeacherRefused or TeacherUnavailable otherwise."""
        import openai

        retrying = AsyncRetrying(stop=stop_after_attempt(TRIES), wait=_wait, retry=retry_if_exception(_passes), sleep=self.sleep, reraise=True)

        async def once() -> T:
            return await call()

        fault: Exception
        try:
            return await retrying(once)
        except openai.APIStatusError as error:
            said = f"the batch endpoint says {self.teacher.tell(error)}"
            if error.status_code == 404:
                fault = TeacherRefused(
                    f"{said}; where the batch is gone or belongs to another account, `socratune ledger forget-batches` gives it up; "
                    "an endpoint without batches needs execution.teacher.mode=online"
                )
            else:
                fault = (TeacherUnavailable if _passes(error) else TeacherRefused)(f"{said}; what it has done so far is kept, run again")
        except openai.APIConnectionError as error:
            fault = TeacherUnavailable(f"the batch endpoint cannot be reached ({self.teacher.unreached(error)}); run again later: batches that were sent go on")
        raise fault  # outside the handler: the SDK's exception carries the request and must not travel as context


def _passes(error: BaseException) -> bool:
    """Whether trouble with the batch endpoints is worth another try."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.code != "insufficient_quota" and (error.status_code >= 500 or error.status_code in PASSING)
    return isinstance(error, openai.APIConnectionError)


def _wait(state: RetryCallState) -> float:
    """Seconds before the next try: never less than the server asked for, within reason."""
    import openai

    error = state.outcome.exception() if state.outcome else None
    asked = requested_wait(error.response.headers, now=datetime.now(UTC)) if isinstance(error, openai.APIStatusError) else 0.0
    return max(min(asked, LONGEST_WAIT), BACK_OFF(state))
