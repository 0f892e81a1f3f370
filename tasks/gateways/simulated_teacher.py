"""A teacher for runs without a key: a loopback server that speaks chat completions and knows the pocketqa facts.

Used through the real client, so the protocol, the retries and the ledger are those of a paid run. It errs and fails on request.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import openai
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tasks.contracts.asks import Ask
from tasks.contracts.rows import Question
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.logic.benchmarks import pocketqa

VERSION = 1  # raise it when the wording of replies changes: it is part of the ledger key
_QUESTION = re.compile(r"^Question: *(.+?) *$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one call: an error status with a code and headers, or a 200 of odd shape."""

    status: int = 200
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    shape: Literal["whole", "dropped", "held", "broken_json", "cut", "filtered", "null", "no_verdict", "odd_usage", "surrogate"] = "whole"


@dataclass
class SimulatedServer:
    """State of one server. `faults` by number of the call (from 1, in order of arrival); `hold` keeps every "held" reply back until set."""

    error_rate: float
    no_bias: float
    seed: int = 0
    faults: Mapping[int, Fault] = field(default_factory=dict)
    hold: threading.Event = field(default_factory=threading.Event)
    calls: int = 0
    seen: Counter[str] = field(default_factory=Counter)  # bodies of calls that got a whole reply

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/stats", self._stats),
        ]
        return Starlette(routes=routes)

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "simulated-teacher", "object": "model", "created": 0, "owned_by": "socratune"}]})

    async def _stats(self, request: Request) -> Response:
        """`calls` that arrived, `replied` with a usable completion, `duplicates` among those."""
        replied = sum(self.seen.values())
        return JSONResponse({"calls": self.calls, "replied": replied, "duplicates": replied - len(self.seen)})

    async def _complete(self, request: Request) -> Response:
        self.calls += 1
        request_id = f"sim-{self.calls}"
        fault = self.faults.get(self.calls, Fault())
        content = await request.body()
        body = json.loads(content)
        if fault.status != 200:
            return _error(fault.status, fault.code, f"simulated fault {fault.status}", headers=fault.headers)
        if fault.shape == "held":
            await asyncio.to_thread(self.hold.wait)
        if fault.shape == "dropped":
            return StreamingResponse(_half_a_body(), headers={"content-length": "1000"})
        text = self._text(body)
        if text is None:
            return _error(400, "unknown_question", "the simulated teacher knows pocketqa questions only; use recipe.teacher.kind=openai or recorded")
        if fault.shape in ("whole", "held", "odd_usage", "surrogate"):
            self.seen[hashlib.sha256(content).hexdigest()] += 1
        return _completion(body, text, fault.shape, request_id)

    def _text(self, body: dict[str, Any]) -> str | None:
        """The reply, or None for a question that pocketqa does not hold."""
        prompt = "\n".join(message["content"] for message in body["messages"] if message["role"] == "user")
        found = _QUESTION.search(prompt)
        question = pocketqa.lookup(found.group(1)) if found else None
        if question is None:
            return None
        hinted = all(fact in prompt for fact in question.facts)
        return _teach(question, self.verdict(question, sample_seed=int(body.get("seed") or 0), hinted=hinted))

    def verdict(self, question: Question, *, sample_seed: int, hinted: bool) -> str:
        """What this teacher says: gold, or an error.

        A share `error_rate` of (question, seed) pairs, drawn by hash, is in error. Of these a share `no_bias` says "no" whatever the
        truth (so it is wrong on yes questions only), the others say the opposite of gold. P(wrong | yes) = error_rate,
        P(wrong | no) = error_rate (1 - no_bias). A hinted request is answered right.
        """
        digest = hashlib.sha256(f"{self.seed}|{sample_seed}|{question.question}".encode()).digest()
        errs = int.from_bytes(digest[:8]) / 2**64 < self.error_rate
        biased = int.from_bytes(digest[8:16]) / 2**64 < self.no_bias
        if hinted or not errs:
            return question.answer
        return "no" if biased or question.answer == "yes" else "yes"


def _teach(question: Question, verdict: str) -> str:
    """A reply in the teacher's format. A wrong one has the right facts and the wrong conclusion, as a careless teacher would."""
    rationale = pocketqa.rationale(question)
    reasoning = rationale.reasoning if verdict == question.answer else "Putting these facts side by side, the comparison comes out the other way round."
    lines = [line for asked, answered in zip(rationale.asked, rationale.answered, strict=True) for line in (f"Q: {asked}", f"A: {answered}")]
    return "\n".join(["## Teaching Analysis", *lines, "", "## Step-by-Step Reasoning", reasoning, "", "## Final Assessment", f"**[{verdict.upper()}]**"])


async def _half_a_body() -> AsyncIterator[bytes]:
    yield b'{"id": '


def _error(status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "type": code or "server_error", "code": code or None, "param": None}}, status, dict(headers or {}))


def _completion(body: dict[str, Any], text: str, shape: str, request_id: str) -> Response:
    """A chat completion of the given shape; tokens are counted as words."""
    finish = {"cut": "length", "filtered": "content_filter"}.get(shape, "stop")
    content: str | None = text
    if shape == "cut":
        content = text[: text.index("## Final Assessment")]
    elif shape in ("filtered", "null"):
        content = None
    elif shape == "no_verdict":
        content = "This is hard to say."
    elif shape == "surrogate":
        content = text.replace("\n", "\ud800\n", 1)
    words = sum(len(message["content"].split()) for message in body["messages"])
    usage: object = {"prompt_tokens": words, "completion_tokens": len(text.split()), "total_tokens": words + len(text.split())}
    reply = {
        "id": request_id,
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}],
        "usage": "many" if shape == "odd_usage" else usage,
    }
    encoded = json.dumps(reply)  # ASCII, so that a lone surrogate travels as its escape
    return Response(encoded[:-40] if shape == "broken_json" else encoded, media_type="application/json", headers={"x-request-id": request_id})


@contextmanager
def serve_simulated(server: SimulatedServer) -> Iterator[str]:
    """Serve on a free loopback port, in a thread; yields the base URL (it ends in /v1)."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        config = uvicorn.Config(server.app(), log_level="critical", access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        runner = uvicorn.Server(config)
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]}, name="simulated-teacher", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.hold.set()
            runner.should_exit = True
            thread.join()


class SimulatedTeacher(OpenAITeacher):
    """The OpenAI teacher against a simulated server of its own; free, and needs no key."""

    def __init__(self, *, error_rate: float, no_bias: float, timeout_seconds: float, seed: int) -> None:
        super().__init__(timeout_seconds=timeout_seconds)
        self._server = SimulatedServer(error_rate=error_rate, no_bias=no_bias, seed=seed)
        self._base_url = ""
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        self._base_url = self._stack.enter_context(serve_simulated(self._server))
        return self

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        self._stack.close()

    def source(self, ask: Ask) -> str:
        """What decides its errors: a simulated reply never passes for a paid one, nor for that of other error rates."""
        return f"simulated-{VERSION}:{self._server.error_rate!r}:{self._server.no_bias!r}:{self._server.seed}"

    def price(self, *, model: str, tokens_in: int, tokens_out: int) -> float | None:
        """Nothing."""
        return 0.0

    def _connect(self) -> openai.AsyncOpenAI:
        transport = openai.DefaultAsyncHttpxClient(trust_env=False)  # a proxy of the environment cannot reach this machine's loopback
        return openai.AsyncOpenAI(api_key="simulated", base_url=self._base_url, max_retries=0, timeout=self._timeout, http_client=transport)
