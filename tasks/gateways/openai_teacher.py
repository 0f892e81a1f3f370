"""A teacher behind any endpoint that speaks OpenAI's chat completions.

The SDK's own retries are off; tenacity is the one retry owner. It waits max(what the server asked for, jittered back-off) and
gives its place in flight to others meanwhile. The key is read from the environment when it is first needed and appears in no
message, repr or log of ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal, Self

import httpx2
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from tasks.contracts.asks import Ask
from tasks.contracts.failures import NoReply, Rejected, TeacherRefused, TeacherUnavailable
from tasks.gateways.completions import NoCompletion, decoded, reply_from
from tasks.gateways.connections import cause_of
from tasks.gateways.credentials import api_key, base_url, hider
from tasks.gateways.limits import Limiter, Slot
from tasks.gateways.prices import Price, published_price
from tasks.gateways.rates import reported_limits
from tasks.gateways.refusals import Dialect, Refusal, refusal_of
from tasks.gateways.teacher import Charge, Reply, Request, uncharged
from tasks.gateways.tokens import estimated_tokens
from tasks.logic.texts import clean

if TYPE_CHECKING:  # most of a second to import, for runs that call nobody too
    import openai

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
TRIES = 8  # HTTP calls per ask, where a profile does not say
LONGEST_WAIT = 120.0  # seconds; a server that asks for more ends the run, which says when to come back
BACK_OFF = wait_random_exponential(multiplier=0.5, max=30.0)
PAGE_TRIES = 2  # of a call that a web page answers
_LONGEST_REASON = 400  # characters of an endpoint's error that are told


class _Transient(Exception):
    """One HTTP call that is worth repeating; `wait`: seconds the server asked for."""

    def __init__(self, message: str, *, wait: float = 0.0, status: int = 0, page: bool = False) -> None:
        self.wait = wait
        self.status = status
        self.page = page
        super().__init__(message)


class _Filtered(Exception):
    """The endpoint's content filter stopped the prompt; to be kept as a reply, because asking at once again is pointless."""


class OpenAITeacher:
    """Asks `OPENAI_BASE_URL` (OpenAI's own where unset) with `OPENAI_API_KEY`."""

    can_take_hints = True

    def __init__(self, *, timeout_seconds: float, tries: int = TRIES) -> None:

        self._timeout = timeout_seconds
        self._tries = tries
        self._client: openai.AsyncOpenAI | None = None
        self.dialect = Dialect()
        self._hide: Callable[[str], str] = str  # in what a teacher says; a placeholder for a key may be a word of it
        self._hide_all: Callable[[str], str] = str  # in what an endpoint complains of

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def source(self, ask: Ask) -> str:
        """The endpoint's path: the same question to a proxy of the same model is the same request."""
        return ENDPOINT

    def price(self, model: str) -> Price | None:
        """OpenAI's list price, None for other models."""
        return published_price(model)

    def client(self) -> openai.AsyncOpenAI:
        """The client; made at the first call, so that a run whose replies are all in the ledger needs no key. Raises TeacherRefused without a key."""
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> openai.AsyncOpenAI:
        import openai

        key, url = api_key(), base_url()
        self._hide, self._hide_all = hider(key), hider(key, shortest=1)
        return openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=0, timeout=self._timeout)

    async def reply(self, request: Request, *, limiter: Limiter, charge: Charge = uncharged) -> Reply:
        """One reply after up to `tries` calls. Raises NoReply when all failed, TeacherRefused or TeacherUnavailable at once."""
        self.client()
        settings = request.settings
        estimate = estimated_tokens(request.messages, model=settings.model) + settings.max_tokens
        tries = 0

        async def call() -> Reply:
            nonlocal tries
            tries += 1
            async with limiter.slot(estimate) as slot:
                return await self._send(request, limiter=limiter, slot=slot, tries=tries, charge=charge)

        def over(state: RetryCallState) -> bool:
            fault = state.outcome.exception() if state.outcome else None
            return state.attempt_number >= (min(PAGE_TRIES, self._tries) if isinstance(fault, _Transient) and fault.page else self._tries)

        retrying = AsyncRetrying(stop=over, wait=_wait, retry=retry_if_exception_type(_Transient), sleep=limiter.back_off, reraise=True)
        try:
            return await retrying(call)
        except _Transient as error:
            page = {"alike": "web page", "advice": "check OPENAI_BASE_URL and whether a proxy asks for a login"} if error.page else {}
            raise NoReply(f"no reply after {tries} calls; the last said: {error}", tries=tries, status=error.status, **page) from None

    async def _send(self, request: Request, *, limiter: Limiter, slot: Slot, tries: int, charge: Charge) -> Reply:
        import openai

        started = time.monotonic()
        fault: Exception | None
        spoken = self.dialect.refused
        try:
            response = await self.client().post("/chat/completions", body=request.body(spoken), cast_to=httpx2.Response)  # half the SDK's work a call
        except openai.APIStatusError as error:
            refusal = refusal_of(error.status_code, error.body)
            fault = self._translate(refusal, self.tell(error), error.response.headers, limiter=limiter, slot=slot, tries=tries, spoken=spoken)
        except openai.APIConnectionError as error:
            slot.trouble = True
            fault = _Transient(self.unreached(error))
        else:
            limiter.learn(**reported_limits(response.headers))
            seconds = time.monotonic() - started
            try:
                body = decoded(self.unkeyed(response.text))
                reply = reply_from(body, request_id=self.unkeyed(response.headers.get("x-request-id", "")), tries=tries, seconds=seconds, request=request)
            except NoCompletion as error:
                if error.billed is not None:
                    slot.settle(error.billed.tokens_in + error.billed.tokens_out)
                    charge(error.billed)
                fault = self._instead(error, limiter=limiter, slot=slot, tries=tries, spoken=spoken)
            else:
                slot.settle(reply.tokens_in + reply.tokens_out)
                return reply
        if fault is None:  # the endpoint takes another parameter; asked again at once, in the same slot
            return await self._send(request, limiter=limiter, slot=slot, tries=tries, charge=charge)
        if isinstance(fault, _Filtered):
            slot.settle(0)
            return replace(filtered(request.settings.model), tries=tries)
        raise fault  # outside the handler: the SDK's exception carries the request and must not travel as context

    def _instead(self, found: NoCompletion, *, limiter: Limiter, slot: Slot, tries: int, spoken: frozenset[str]) -> Exception | None:
        """Our error for a 200 that holds no reply: mostly an outage, but a router may pass on another endpoint's refusal in one."""
        error = found.error or {}
        code = error.get("code")
        status = int(code) if isinstance(code, (int, str)) and str(code).isdigit() and len(str(code)) == 3 else 200
        if 400 <= status < 500:
            said = self.redacted(f"HTTP 200 with error {status}: {error.get('message')}")
            return self._translate(refusal_of(status, error), said, {}, limiter=limiter, slot=slot, tries=tries, spoken=spoken)
        said = f"{found} from {self.client().base_url}" if found.page else str(found)
        return _Transient(self.redacted(said), status=200, page=found.page)

    def _translate(
        self, refusal: Refusal, said: str, headers: Mapping[str, str], *, limiter: Limiter, slot: Slot, tries: int, spoken: frozenset[str]
    ) -> Exception | None:
        """Our error for what an endpoint refuses: worth a retry, or final with what to do; None where the same goes in other words."""
        if refusal.subject == "quota":
            return TeacherRefused(f"the account has no quota left ({said}); add credit with the provider and run again: replies so far are in the ledger")
        if refusal.code == "content_filter":
            return _Filtered(said)
        if refusal.subject == "account":
            return TeacherRefused(f"the endpoint refused the request ({said}); {refusal.advice}")
        if refusal.subject == "parameter" and (self.dialect.learn(refusal.parameter) or spoken != self.dialect.refused):
            return None
        if refusal.subject != "passing":
            return rejected(refusal, said, tries=tries)
        slot.trouble = True
        limiter.learn(**reported_limits(headers))
        wait = requested_wait(headers, now=datetime.now(UTC))
        if wait > LONGEST_WAIT:
            until = datetime.now(UTC) + timedelta(seconds=min(wait, 1e9))
            return TeacherUnavailable(
                f"the endpoint asks to wait {wait:.0f} s ({said}); run again after {until:%Y-%m-%d %H:%M} UTC: replies so far are in the ledger"
            )
        if refusal.status == 429:
            limiter.rejected(wait, everyone="0" in (headers.get("x-ratelimit-remaining-requests"), headers.get("x-ratelimit-remaining-tokens")))
        return _Transient(said, wait=wait, status=refusal.status)

    def tell(self, error: openai.APIStatusError) -> str:
        """What an endpoint's error says, without the key."""
        return self.redacted(f"HTTP {error.status_code}: {error.message}")

    def unreached(self, error: openai.APIConnectionError) -> str:
        """Why a call got no answer."""
        return self.redacted(cause_of(error, seconds=self._timeout))

    def unkeyed(self, body: str) -> str:
        """What an endpoint sent, without the key, should it repeat it."""
        return self._hide(body)

    def redacted(self, said: str) -> str:
        """What an endpoint said, short and without the key."""
        told = self._hide_all(clean(said))
        return told if len(told) <= _LONGEST_REASON else f"{told[:_LONGEST_REASON]}..."


def rejected(refusal: Refusal, said: str, *, tries: int) -> Rejected:
    """The end of the one question that an endpoint refuses."""
    return Rejected(
        f"the endpoint refused this question ({said})", outcome=refusal.outcome, tries=tries, status=refusal.status, alike=refusal.alike, advice=refusal.advice
    )


def _wait(state: RetryCallState) -> float:
    """Seconds before the next try: never less than the server asked for."""
    fault = state.outcome.exception() if state.outcome else None
    return max(fault.wait if isinstance(fault, _Transient) else 0.0, BACK_OFF(state))


def requested_wait(headers: Mapping[str, str], *, now: datetime) -> float:
    """Seconds that `retry-after-ms` or `Retry-After` (seconds, or an HTTP date) asks for; 0 where there is none or it makes no sense."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / divisor
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    try:
        moment = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return 0.0
    return max((moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds(), 0.0)


def filtered(model: str) -> Reply:
    """What is kept of a prompt that the endpoint's content filter stopped (HTTP 400)."""
    return Reply(text="", finish_reason="content_filter", model=model, tokens_in=0, tokens_out=0, request_id="", status=400)
