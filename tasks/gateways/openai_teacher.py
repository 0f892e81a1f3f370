"""A teacher behind any endpoint that speaks OpenAI's chat completions.

The SDK's own retries are off; tenacity is the one retry owner. It waits max(what the server asked for, jittered back-off) and
gives its place in flight to others meanwhile. The key is read from the environment when it is first needed and appears in no
message, repr or log of ours.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Self

import httpx2
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from tasks.contracts.asks import Ask
from tasks.contracts.failures import NoReply, TeacherRefused, TeacherUnavailable
from tasks.gateways.limits import Limiter, Slot
from tasks.gateways.prices import Price, published_price
from tasks.gateways.teacher import Reply, Request, parts_of
from tasks.gateways.tokens import estimated_tokens, most_tokens

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
TRIES = 8  # HTTP calls per ask, where a profile does not say
LONGEST_WAIT = 120.0  # seconds; a server that asks for more ends the run, which says when to come back
BACK_OFF = wait_random_exponential(multiplier=0.5, max=30.0)
RETRIED = frozenset({408, 409, 429})  # and every 5xx
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_ANY = 10**7  # tokens: more than any model reads or writes
_ADVICE = {
    400: "check recipe.teacher (model, temperature, max_tokens)",
    401: "set OPENAI_API_KEY to a valid key",
    403: "use a key that may call this model, set in OPENAI_API_KEY",
    404: "check recipe.teacher.model and OPENAI_BASE_URL",
}


class _Transient(Exception):
    """One HTTP call that is worth repeating; `wait`: seconds the server asked for."""

    def __init__(self, message: str, *, wait: float = 0.0, status: int = 0) -> None:
        self.wait = wait
        self.status = status
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
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key:
            raise TeacherRefused(
                "no API key: set OPENAI_API_KEY (and OPENAI_BASE_URL for another endpoint), or use recipe.teacher.kind=simulated / recorded, which need none"
            )
        return openai.AsyncOpenAI(api_key=key, base_url=os.environ.get("OPENAI_BASE_URL") or None, max_retries=0, timeout=self._timeout)

    async def reply(self, request: Request, *, limiter: Limiter) -> Reply:
        """One reply after up to `tries` calls. Raises NoReply when all failed, TeacherRefused or TeacherUnavailable at once."""
        self.client()
        settings = request.settings
        estimate = estimated_tokens(request.messages, model=settings.model) + settings.max_tokens
        tries = 0

        async def call() -> Reply:
            nonlocal tries
            tries += 1
            async with limiter.slot(estimate) as slot:
                return await self._send(request, limiter=limiter, slot=slot, tries=tries)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._tries), wait=_wait, retry=retry_if_exception_type(_Transient), sleep=limiter.back_off, reraise=True
        )
        try:
            return await retrying(call)
        except _Transient as error:
            raise NoReply(f"no reply after {tries} calls; the last said: {error}", tries=tries, status=error.status) from None

    async def _send(self, request: Request, *, limiter: Limiter, slot: Slot, tries: int) -> Reply:
        started = time.monotonic()
        fault: Exception
        try:
            response = await self.client().post("/chat/completions", body=request.body(), cast_to=httpx2.Response)  # half the SDK's work a call
        except openai.APIStatusError as error:
            fault = self._translate(error, limiter=limiter, slot=slot)
        except openai.APIConnectionError as error:
            slot.trouble = True
            fault = _Transient(type(error).__name__)
        else:
            limiter.learn(**_reported_limits(response.headers))
            seconds = time.monotonic() - started
            reply = _read(response.text, request_id=response.headers.get("x-request-id", ""), tries=tries, seconds=seconds, request=request)
            slot.settle(reply.tokens_in + reply.tokens_out)
            return reply
        if isinstance(fault, _Filtered):
            slot.settle(0)
            return replace(filtered(request.settings.model), tries=tries)
        raise fault  # outside the handler: the SDK's exception carries the request and must not travel as context

    def _translate(self, error: openai.APIStatusError, *, limiter: Limiter, slot: Slot) -> Exception:
        """Our error for an HTTP status: worth a retry, or final with what to do."""
        status, headers = error.status_code, error.response.headers
        said = self.tell(error)
        if error.code == "insufficient_quota":
            return TeacherRefused(f"the account has no quota left ({said}); add credit with the provider and run again: replies so far are in the ledger")
        if error.code == "content_filter":
            return _Filtered(said)
        if status not in RETRIED and status < 500:
            return TeacherRefused(f"the endpoint refused the request ({said}); {_ADVICE.get(status, 'check recipe.teacher and OPENAI_BASE_URL')}")
        slot.trouble = True
        limiter.learn(**_reported_limits(headers))
        wait = requested_wait(headers, now=datetime.now(UTC))
        if wait > LONGEST_WAIT:
            until = datetime.now(UTC) + timedelta(seconds=min(wait, 1e9))
            return TeacherUnavailable(
                f"the endpoint asks to wait {wait:.0f} s ({said}); run again after {until:%Y-%m-%d %H:%M} UTC: replies so far are in the ledger"
            )
        if status == 429:
            limiter.rejected(wait, everyone="0" in (headers.get("x-ratelimit-remaining-requests"), headers.get("x-ratelimit-remaining-tokens")))
        return _Transient(said, wait=wait, status=status)

    def tell(self, error: openai.APIStatusError) -> str:
        """What an endpoint's error says, without the key."""
        return clean(f"HTTP {error.status_code}: {error.message}").replace(self.client().api_key, "[key]")


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


def _reported_limits(headers: Mapping[str, str]) -> dict[str, float | None]:
    """Limits per minute in `x-ratelimit-limit-*`; None where a header is missing or is no positive number."""
    return {f"{name}_per_minute": _positive(headers.get(f"x-ratelimit-limit-{name}")) for name in ("requests", "tokens")}


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _read(text: str, *, request_id: str, tries: int, seconds: float, request: Request) -> Reply:
    """The reply in a response body. A body that is not a completion is worth a retry."""
    try:
        body = json.loads(text)
        return reply_from(body, request_id=request_id, tries=tries, seconds=seconds, request=request)
    except (ValueError, RecursionError):
        raise _Transient("the body is not a chat completion", status=200) from None


def reply_from(body: Any, *, request_id: str, tries: int, seconds: float, request: Request | None) -> Reply:
    """The reply in a decoded body; raises ValueError when it holds none. Odd, missing or impossible usage never loses a paid reply.

    `request` None (a line of a batch that this run did not ask for) leaves a missing count at what the text suggests.
    """
    said, finish_reason = parts_of(body)
    text = clean(said)
    usage = body.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    most_in, most_out = (most_tokens(request.messages), 2 * request.settings.max_tokens) if request else (_ANY, _ANY)
    tokens_in, tokens_out = _count(usage, "prompt_tokens", most=most_in), _count(usage, "completion_tokens", most=most_out)
    if tokens_in is None:
        tokens_in = estimated_tokens(request.messages, model=request.settings.model) if request else 0
    return Reply(
        text=text,
        finish_reason=clean(finish_reason),
        model=clean(str(body.get("model") or "")),
        tokens_in=tokens_in,
        tokens_out=len(text.encode()) // 4 + 1 if tokens_out is None else tokens_out,
        tokens_cached=_count(details, "cached_tokens", most=tokens_in) or 0,
        request_id=clean(request_id),
        tries=tries,
        seconds=seconds,
    )


def clean(text: str) -> str:
    """Teacher text as data: lone surrogates replaced, control characters but tab and newline removed."""
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return whole.translate(_CONTROLS)


def _count(usage: Any, name: str, *, most: int) -> int | None:
    """A token count as reported; None where the report is missing, is no count, or is more than there can be."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None
