"""The teacher's nouns: what is sent, what comes back, and the key under which the ledger keeps it.

A `Teacher` turns one `Request` into one `Reply`. Asking a whole batch through the ledger is `tasks.gateways.caller`'s work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from tasks.contracts.asks import Ask

if TYPE_CHECKING:
    from tasks.gateways.limits import Limiter
    from tasks.gateways.prices import Price

# They refuse temperature and max_tokens (OpenAI, "Reasoning models"): what is tried first, so that a batch needs no second round.
_REASONING_MODELS = ("o1", "o3", "o4", "gpt-5")
_REASK_SEED = 1_000_003  # far from any sample index, so that a re-ask never repeats another sample's seed


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the endpoint answered. `tries` HTTP calls were needed; `seconds` is the latency of the last one."""

    text: str
    finish_reason: str
    model: str  # as the endpoint reported it
    tokens_in: int
    tokens_out: int
    request_id: str
    tokens_cached: int = 0  # part of tokens_in that the endpoint had in its prompt cache
    status: int = 200
    tries: int = 1
    seconds: float = 0.0
    estimated: bool = False  # whether a token count is ours, because the endpoint reported none
    thought: int = 0  # characters of thoughts that were left out


@dataclass(frozen=True, kw_only=True)
class Billed:
    """What an endpoint bills for a call that brought no reply."""

    tokens_in: int
    tokens_out: int
    tokens_cached: int = 0


Charge = Callable[[Billed], None]


def uncharged(billed: Billed) -> None:
    """For who does not count."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How every ask of a batch is sampled. `attempts`: asks per question before a cut or faulted reply is kept as such."""

    model: str
    temperature: float
    max_tokens: int
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to send: an ask, or the `reask`-th repair of it, whose messages then hold what was wrong."""

    ask: Ask
    reask: int
    messages: tuple[dict[str, str], ...]
    settings: Settings

    def body(self, refused: Set[str] = frozenset()) -> dict[str, Any]:
        """The chat-completions body, the same online and in a batch, without the parameters that the endpoint has `refused` by name."""
        settings = self.settings
        thinks = settings.model.startswith(_REASONING_MODELS)
        body: dict[str, Any] = {"model": settings.model, "messages": list(self.messages), "seed": self.ask.sample + self.reask * _REASK_SEED}
        if not thinks:
            body["temperature"] = settings.temperature
        renamed = "max_tokens" in refused or (thinks and "max_completion_tokens" not in refused)
        body["max_completion_tokens" if renamed else "max_tokens"] = settings.max_tokens
        if self.ask.schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "teaching", "strict": True, "schema": self.ask.schema}}
        return {name: value for name, value in body.items() if name not in refused}

    def key(self, source: str) -> str:
        """Ledger key: SHA-256 of everything that decides a reply and of nothing else (qid, attempts, mode, code and speed are not in it)."""
        request: dict[str, object] = {
            "source": source,
            "messages": self.messages,
            "model": self.settings.model,
            "sampling": {"temperature": float(self.settings.temperature), "max_tokens": self.settings.max_tokens},
            "response_schema": self.ask.schema,
            "sample": self.ask.sample,
        }
        if self.reask:
            request["reask"] = self.reask
        # every part is plain JSON, so the general fingerprint's walk over types is saved: this runs for each of a million rows
        text = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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

    def price(self, model: str) -> Price | None:
        """What a model's tokens cost; None where no price is known."""
        ...

    async def reply(self, request: Request, *, limiter: Limiter, charge: Charge = uncharged) -> Reply:
        """One reply, at the limiter's pace. Raises NoReply for this ask alone; TeacherRefused or TeacherUnavailable end the run.

        `charge` is told of every call on the way that brought no reply and is billed all the same.
        """
        ...


def repaired(ask: Ask, reask: int, *, reply: Reply, problem: str) -> tuple[dict[str, str], ...]:
    """The messages of a re-ask: what the teacher said and why it cannot be used. A refusal is asked again as it was."""
    if reply.finish_reason == "content_filter":
        return ask.messages
    said = ({"role": "assistant", "content": reply.text},) if reply.text and reply.finish_reason != "length" else ()
    form = "as the JSON object that was asked for" if ask.schema is not None else "in exactly the form that was asked for"
    return (*ask.messages, *said, {"role": "user", "content": f"Your reply could not be used: {problem}. Answer the question again, {form}."})


def first_request(ask: Ask, settings: Settings) -> Request:
    """The ask as it is."""
    return Request(ask=ask, reask=0, messages=ask.messages, settings=settings)
