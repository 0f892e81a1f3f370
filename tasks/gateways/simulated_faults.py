"""What can go wrong with one simulated call, on request or drawn for a share of the calls; and the bodies of replies and errors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from typing import Any, Literal

from tasks.gateways.simulated_knowledge import Said

Shape = Literal[
    "whole",
    "held",  # no reply until the server's `hold` is set
    "reset",  # the connection is reset before a byte of reply
    "closed",  # the connection is closed before a byte of reply
    "dropped",  # the connection is closed in mid-reply
    "broken_json",
    "cut",  # finish_reason length, no verdict yet
    "filtered",  # finish_reason content_filter, null content
    "refused",  # null content and a refusal
    "null",  # finish_reason stop, null content
    "no_verdict",
    "odd_usage",  # usage is a word
    "negative_usage",
    "text_usage",  # counts are strings
    "no_usage",
    "surrogate",  # half a character in the content
]
USABLE = frozenset({"whole", "held", "odd_usage", "negative_usage", "text_usage", "no_usage", "surrogate"})
UNUSABLE = frozenset({"cut", "filtered", "refused", "null", "no_verdict"})  # paid for all the same
_TOKEN = re.compile(r"\w+|[^\w\s]")
_FINISH = {"cut": "length", "filtered": "content_filter"}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one call: an error status with a code and headers, or a 200 of odd shape. `seconds` pass before the first byte."""

    status: int = 200
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    shape: Shape = "whole"
    seconds: float = 0.0


WHOLE = Fault()
NO_CREDIT = Fault(status=429, code="insufficient_quota")
RECOVERABLE = (
    Fault(status=429, code="rate_limit_exceeded", headers={"retry-after": "1"}),
    Fault(status=429, code="rate_limit_exceeded", headers={"retry-after": "(date)"}),  # replaced by an HTTP date one second ahead
    Fault(status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "250"}),
    Fault(status=500),
    Fault(status=503),
    Fault(shape="reset"),
    Fault(shape="closed", seconds=1.0),  # the hang; replaced by one of the server's `hang_seconds`
    Fault(shape="broken_json"),
    Fault(shape="cut"),
    Fault(shape="null"),
)


@dataclass
class Mix:
    """Gives a share of the conversations one fault, at the first attempt; every later attempt is whole, a re-ask with other parameters too."""

    share: float
    seed: int
    hang_seconds: float
    faulted: set[int] = field(default_factory=set)  # conversations that had theirs

    def draw(self, *, body_key: int, talk_key: int) -> Fault:
        """The fault of this attempt. Which requests get which fault depends on the seed and the request alone."""
        if not self.share or talk_key in self.faulted:
            return WHOLE
        luck = small_hash(f"{self.seed}|{body_key}")
        if luck / 2**64 >= self.share:
            return WHOLE
        self.faulted.add(talk_key)
        fault = RECOVERABLE[luck % len(RECOVERABLE)]
        if fault.shape == "closed":
            return replace(fault, seconds=self.hang_seconds)
        if fault.headers.get("retry-after") == "(date)":
            return replace(fault, headers={"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)})
        return fault


def small_hash(text: str) -> int:
    """A stable number of 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


@lru_cache(maxsize=1024)
def _tokens(text: str) -> int:
    """Words and marks: for English within a few percent of what OpenAI's tokenizers count."""
    return len(_TOKEN.findall(text))


def tokens_of(body: dict[str, Any], said: Said | None) -> tuple[int, int]:
    """(prompt, completion) tokens."""
    prompt = sum(_tokens(str(message.get("content"))) for message in body["messages"])
    return prompt, _tokens(said.content(body)) if said else 0


def completion(body: dict[str, Any], said: Said, shape: Shape, request_id: str) -> dict[str, Any]:
    """A chat completion of the given shape."""
    content: str | None = said.content(body)
    if shape == "cut":
        content = said.beginning(body)
    elif shape in ("filtered", "refused", "null"):
        content = None
    elif shape == "no_verdict":
        content = "This is hard to say."
    elif shape == "surrogate":
        content = said.with_surrogate().content(body)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": "I cannot help with that." if shape == "refused" else None}
    reply = {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH.get(shape, "stop")}],
        "usage": _usage(body, said, shape),
    }
    if shape == "no_usage":
        del reply["usage"]
    return reply


def _usage(body: dict[str, Any], said: Said, shape: Shape) -> object:
    prompt, written = tokens_of(body, said)
    if shape == "odd_usage":
        return "many"
    if shape == "negative_usage":
        prompt, written = -prompt, -written
    counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}
    if shape == "text_usage":
        return {name: str(count) for name, count in counts.items()}
    return {**counts, "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}


def encoded(reply: dict[str, Any], shape: Shape) -> str:
    """The body as it travels: ASCII, so that half a character travels as its escape."""
    text = json.dumps(reply)
    return text[:-40] if shape == "broken_json" else text


def error_body(status: int, code: str, message: str) -> dict[str, Any]:
    """An error as OpenAI writes it, or as Azure does for a filtered prompt."""
    error: dict[str, Any] = {"message": message, "type": code or "server_error", "code": code or None, "param": None}
    if code == "content_filter":
        verdict = {name: {"filtered": name == "violence", "severity": "medium" if name == "violence" else "safe"} for name in ("hate", "violence")}
        error |= {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            "type": None,
            "param": "prompt",
            "status": status,
            "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": verdict},
        }
    elif code == "insufficient_quota":
        error["message"] = "You exceeded your current quota, please check your plan and billing details."
    return {"error": error}
