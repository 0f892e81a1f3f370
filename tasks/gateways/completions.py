"""Reading the body of a chat completion as endpoints really write it: content of any shape, ends of other spellings, bills that need adding up.

Thoughts are left out here, before anything is kept: neither the ledger nor a row ever holds one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tasks.gateways.teacher import Billed, Reply, Request
from tasks.gateways.tokens import estimated_tokens
from tasks.logic.texts import clean
from tasks.logic.thoughts import without_thoughts

MOST_TOKENS = 10**7  # more than any model reads or writes
_ENDS = {  # by our word for it, how endpoints spell it
    "stop": ("stop", "end_turn", "eos", "eos_token", "stop_sequence", "stop_token", "complete", "completed", "end", "finished", "done"),
    "length": ("length", "max_tokens", "max_output_tokens", "max_length", "model_length", "max_completion_tokens", "token_limit", "incomplete",
               "model_context_window_exceeded", "context_length_exceeded"),
    "content_filter": ("content_filter", "content_filtered", "safety", "refusal", "recitation", "blocklist", "prohibited_content", "spii", "sensitive",
                       "guardrail_intervened", "error_toxic", "moderation", "language", "image_safety"),
    "error": ("error", "network_error", "insufficient_system_resource", "abort", "aborted", "cancelled", "canceled", "timeout", "failed", "internal_error",
              "unexpected_error", "server_error", "load", "error_limit"),
}  # fmt: skip
_END_OF = {spelling: end for end, spellings in _ENDS.items() for spelling in spellings}
_THOUGHT_PARTS = re.compile(r"think|thought|reason|analysis|tool|function|image|audio|file", re.IGNORECASE)  # what is no text that was said


class NoCompletion(ValueError):
    """A body that holds no reply. `billed`: what the endpoint says that it costs all the same. `page`: a web page answered. `error`: the endpoint's own."""

    def __init__(self, message: str, *, billed: Billed | None = None, page: bool = False, error: Mapping[str, Any] | None = None) -> None:
        self.billed = billed
        self.page = page
        self.error = error
        super().__init__(message)


def decoded(text: str) -> Any:
    """The body of a response. Raises NoCompletion where it is no JSON."""
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        page = text.lstrip("\ufeff \r\n\t").startswith("<")
        raise NoCompletion("a web page answered" if page else "the body is not a chat completion", page=page) from None


def reply_from(body: Any, *, request_id: str, tries: int, seconds: float, request: Request | None) -> Reply:
    """The reply in a decoded body. Odd, missing or impossible usage never loses a paid reply.

    `request` None (a line of a batch that this run did not ask for) leaves a missing count at what the text suggests. Raises NoCompletion when the body
    holds no reply, or the report of an outage in place of one.
    """
    usage = body.get("usage") if isinstance(body, dict) else None
    counts = _counts(usage)
    billed = None if counts is None else Billed(tokens_in=counts[0] or 0, tokens_out=counts[1] or 0, tokens_cached=_cached(usage, most=counts[0] or 0))
    message, finish_reason = _choice(body, billed)
    said, refused = _said(message.get("content"))
    text = without_thoughts(clean(said))
    tokens_in, tokens_out = counts or (None, None)
    known_in = tokens_in is not None
    if tokens_in is None:
        tokens_in = estimated_tokens(request.messages, model=request.settings.model) if request else 0
    return Reply(
        text=text,
        finish_reason="content_filter" if refused or message.get("refusal") else clean(finish_reason),
        model=clean(str(body.get("model") or "")),
        tokens_in=tokens_in,
        tokens_out=len(said.encode("utf-8", "replace")) // 4 + 1 if tokens_out is None else tokens_out,
        tokens_cached=_cached(usage, most=tokens_in),
        request_id=clean(request_id),
        tries=tries,
        seconds=seconds,
        estimated=not known_in or tokens_out is None,
        thought=max(len(said) - len(text), 0),
    )


def end_of(finish_reason: str) -> str:
    """How a reply ended, in our four words (stop, length, content_filter, error); another spelling that nobody knows stays as it is."""
    bare = finish_reason.strip().casefold().removeprefix("finish_reason_").replace("-", "_").replace(" ", "_")
    return _END_OF.get(bare, finish_reason)


def told(reply: Reply) -> Reply:
    """A reply without thoughts, whoever recorded it."""
    text = without_thoughts(reply.text)
    return reply if text == reply.text else replace(reply, text=text, thought=reply.thought + len(reply.text) - len(text))


def _choice(body: Any, billed: Billed | None) -> tuple[Mapping[str, Any], str]:
    """(message, end) of the first choice."""
    error = body.get("error") if isinstance(body, dict) else None
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    end = end_of(str(choice.get("finish_reason") or ""))
    error = error or choice.get("error")
    if error or end == "error":
        said = error.get("message") if isinstance(error, dict) else error
        raise NoCompletion(f"an outage in place of a reply ({clean(str(said or end))[:200]})", billed=billed, error=error if isinstance(error, dict) else None)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise NoCompletion("the body is not a chat completion", billed=billed)
    return message, end


def _said(content: Any) -> tuple[str, bool]:
    """(text, whether it is a refusal) of a content: a text, its parts, or an object that was decoded already."""
    if isinstance(content, str):
        return content, False
    if isinstance(content, list):
        parts = [_said(part) for part in content]
        return "".join(text for text, _ in parts), any(refused for _, refused in parts)
    if not isinstance(content, dict):
        return "", False
    kind = content.get("type")
    if content.get("refusal"):
        return "", True
    if content.get("thought") is True or (isinstance(kind, str) and "text" not in kind and _THOUGHT_PARTS.search(kind)):
        return "", False
    if "text" in content:
        text = content["text"]
        return _said(text.get("value") if isinstance(text, dict) and "value" in text else text)
    if isinstance(kind, str) and (inner := content.get("json", content.get("content"))) is not None:
        return _said(inner)
    return ("", False) if set(content) <= {"type", "thinking", "reasoning"} else (json.dumps(content, ensure_ascii=False), False)


def _counts(usage: Any) -> tuple[int | None, int | None] | None:
    """(prompt, completion) tokens as reported, the larger where the parts and the total differ; None where nothing is reported that can be."""
    prompt, written, total = (_count(usage, *names) for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"), ("total_tokens",)))
    if prompt is None and total is not None and written is not None and total >= written:
        prompt = total - written
    if prompt is not None and total is not None and total >= prompt:
        written = max(written or 0, total - prompt)
    return None if prompt is None and written is None else (prompt, written)


def _cached(usage: Any, *, most: int) -> int:
    """The part of the prompt that was in the endpoint's cache."""
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") if isinstance(usage, dict) else None
    found = _count(details, "cached_tokens")
    found = _count(usage, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens") if found is None else found
    return min(found or 0, most)


def _count(usage: Any, *names: str) -> int | None:
    """The first token count among `names` that can be one: a whole number, also as a text or with a point; None where there is none."""
    for name in names:
        value = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS:
            return value
    return None
