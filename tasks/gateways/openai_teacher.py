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
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self

import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from tasks.contracts.asks import Ask
from tasks.contracts.failures import NoReply, TeacherRefused, TeacherUnavailable
from tasks.gateways import prices
from tasks.gateways.limits import Limiter
from tasks.gateways.teacher import Reply, Settings, estimated_tokens

TRIES = 8  # HTTP calls per ask; with the back-off below about two minutes before a question is given up
LONGEST_WAIT = 120.0  # seconds; a server that asks for more ends the run, which says when to come back
_BACK_OFF = wait_random_exponential(multiplier=0.5, max=30.0)
_RETRIED = frozenset({408, 409, 429})  # and every 5xx
_REASK_SEED = 1_000_003  # far from any sample index, so that a re-ask never repeats another sample's seed
_ADVICE = {
    400: "check recipe.teacher (model, temperature, max_tokens)",
    401: "set OPENAI_API_KEY to a valid key",
    403: "use a key that may call this model, set in OPENAI_API_KEY",
    404: "check recipe.teacher.model and OPENAI_BASE_URL",
}


class _Transient(Exception):
    """One HTTP call that is worth repeating; `wait`: seconds the server asked for."""

    def __init__(self, message: str, *, wait: float = 0.0) -> None:
        self.wait = wait
        super().__init__(message)


class OpenAITeacher:
    """Asks `OPENAI_BASE_URL` (OpenAI's own where unset) with `OPENAI_API_KEY`."""

    can_take_hints = True

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._client: openai.AsyncOpenAI | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def source(self, ask: Ask) -> str:
        """The endpoint's path: the same question to a proxy of the same model is the same request."""
        return "/v1/chat/completions"

    def price(self, *, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """Dollars by OpenAI's price list, None for other models."""
        return prices.usd(model=model, tokens_in=tokens_in, tokens_out=tokens_out)

    def _connect(self) -> openai.AsyncOpenAI:
        """The client; made at the first call, so that a run whose replies are all in the ledger needs no key."""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key:
            raise TeacherRefused(
                "no API key: set OPENAI_API_KEY (and OPENAI_BASE_URL for another endpoint), or use recipe.teacher.kind=simulated / recorded, which need none"
            )
        return openai.AsyncOpenAI(api_key=key, base_url=os.environ.get("OPENAI_BASE_URL") or None, max_retries=0, timeout=self._timeout)

    async def reply(self, ask: Ask, *, settings: Settings, reask: int, limiter: Limiter) -> Reply:
        """One reply after up to TRIES calls. Raises NoReply when all failed, TeacherRefused or TeacherUnavailable at once."""
        if self._client is None:
            self._client = self._connect()
        estimate = estimated_tokens(ask.messages) + settings.max_tokens
        tries = 0

        async def call() -> Reply:
            nonlocal tries
            tries += 1
            async with limiter.slot(estimate) as slot:
                reply = await self._send(ask, settings=settings, seed=ask.sample + reask * _REASK_SEED, tries=tries)
                slot.settle(reply.tokens_in + reply.tokens_out)
                return reply

        retrying = AsyncRetrying(stop=stop_after_attempt(TRIES), wait=_wait, retry=retry_if_exception_type(_Transient), sleep=limiter.back_off, reraise=True)
        try:
            return await retrying(call)
        except _Transient as error:
            raise NoReply(f"no reply after {tries} calls; the last said: {error}", tries=tries) from None

    async def _send(self, ask: Ask, *, settings: Settings, seed: int, tries: int) -> Reply:
        assert self._client is not None
        started = time.monotonic()
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=settings.model,
                messages=[dict(message) for message in ask.messages],  # type: ignore[misc]  # the SDK wants one TypedDict per role
                temperature=settings.temperature,
                max_tokens=settings.max_tokens,
                seed=seed,
            )
        except openai.APIStatusError as error:
            fault = self._translate(error)
        except openai.APIConnectionError as error:
            fault = _Transient(type(error).__name__)
        else:
            return _read(response.text, request_id=response.request_id or "", tries=tries, seconds=time.monotonic() - started, ask=ask)
        raise fault  # outside the handler: the SDK's exception carries the request and must not travel as context

    def _translate(self, error: openai.APIStatusError) -> Exception:
        """Our error for an HTTP status: worth a retry, or final with what to do."""
        assert self._client is not None
        said = f"HTTP {error.status_code}: {error.message}".replace(self._client.api_key, "[key]")
        if error.code == "insufficient_quota":
            return TeacherRefused(f"the account has no quota left ({said}); add credit with the provider and run again: replies so far are in the ledger")
        if error.status_code in _RETRIED or error.status_code >= 500:
            wait = requested_wait(dict(error.response.headers), now=datetime.now(UTC))
            if wait > LONGEST_WAIT:
                until = datetime.now(UTC) + timedelta(seconds=min(wait, 1e9))
                return TeacherUnavailable(
                    f"the endpoint asks to wait {wait:.0f} s ({said}); run again after {until:%Y-%m-%d %H:%M} UTC: replies so far are in the ledger"
                )
            return _Transient(said, wait=wait)
        return TeacherRefused(f"the endpoint refused the request ({said}); {_ADVICE.get(error.status_code, 'check recipe.teacher and OPENAI_BASE_URL')}")


def _wait(state: RetryCallState) -> float:
    """Seconds before the next try: never less than the server asked for."""
    fault = state.outcome.exception() if state.outcome else None
    return max(fault.wait if isinstance(fault, _Transient) else 0.0, _BACK_OFF(state))


def requested_wait(headers: dict[str, str], *, now: datetime) -> float:
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


def _read(text: str, *, request_id: str, tries: int, seconds: float, ask: Ask) -> Reply:
    """The reply in a response body. A body that is not a completion is worth a retry; odd or missing usage never loses a paid reply."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        message = choice["message"]
        content = message.get("content") or ""
        filtered = bool(message.get("refusal"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _Transient("the body is not a chat completion") from None
    content = str(content).encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no place in a file
    usage = body.get("usage")
    return Reply(
        text=content,
        finish_reason="content_filter" if filtered else str(choice.get("finish_reason") or ""),
        model=str(body.get("model") or ""),
        tokens_in=_count(usage, "prompt_tokens", otherwise=estimated_tokens(ask.messages)),
        tokens_out=_count(usage, "completion_tokens", otherwise=len(content.encode()) // 4 + 1),
        request_id=request_id,
        tries=tries,
        seconds=seconds,
    )


def _count(usage: Any, name: str, *, otherwise: int) -> int:
    """A token count as reported, or the estimate where the report is missing or no count."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise
