"""A loopback server that speaks OpenAI's chat completions, files and batches, with the faults and limits asked for.

    python -m tasks.gateways.simulated_server --port 0 --requests-per-minute 6000 --latency 0.1 --faulty-share 0.3

prints its base URL as its first line and serves until it is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tasks.contracts.rows import Question
from tasks.gateways.simulated_batches import Batches
from tasks.gateways.simulated_faults import NO_CREDIT, UNUSABLE, USABLE, Fault, Mix, Shape, completion, encoded, error_body, small_hash, tokens_of
from tasks.gateways.simulated_judge import POSITION_BIAS, ruling
from tasks.gateways.simulated_knowledge import ECHO, UNKNOWN, Knowledge, Said
from tasks.gateways.simulated_limits import Window, retry_headers
from tasks.gateways.simulated_wire import HANG_UPS, hang_up, runner

_SLICE = 0.02  # seconds between looks at whether a wait is over


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt at a request: its body, its conversation (the messages up to the first of the user) and the fault that was drawn for it."""

    body_key: int
    talk_key: int
    fault: Fault


@dataclass
class SimulatedServer:
    """One server: what it is asked to do to its callers, and what it saw of them.

    What it says follows from the seed and the request; what goes wrong, from the seed and the request too (`faulty_share`), or from the number of
    the call in order of arrival (`faults`, from 1). Limits count what was admitted within any 60 seconds, tokens as the usage reports them,
    or prompt + max_tokens with `count_max_tokens`. `credit`: calls until every further one is refused for `insufficient_quota`.
    """

    error_rate: float
    no_bias: float
    seed: int = 0
    faults: Mapping[int, Fault] = field(default_factory=dict)
    hold: threading.Event = field(default_factory=threading.Event)  # keeps every "held" reply back until set
    faulty_share: float = 0.0  # of first attempts that get one of the faults a caller can recover from
    hang_seconds: float = 2.0  # how long such a fault hangs before the connection closes
    latency: float = 0.0  # seconds before each reply
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    count_max_tokens: bool = False
    credit: int | None = None
    position_bias: float = POSITION_BIAS  # of a judge: share of comparisons that the order alone decides
    echo: bool = False  # the same fixed reply to whatever is asked
    batch_polls: int = 1  # retrievals that find a batch in progress
    batch_expires_after: float | None = None  # share of a batch's lines answered when it expires
    batch_fails: float = 0.0  # share of a batch's lines that fail when first sent
    batch_rejected: str = ""  # code of the error with which validation rejects every batch
    batch_faults: Mapping[int, Fault] = field(default_factory=dict)  # by number of the request to files and batches
    calls: int = 0
    batch_calls: int = 0
    rejected: int = 0
    reasks: int = 0
    seen: Counter[int] = field(default_factory=Counter)  # usable replies by body
    by_status: Counter[str] = field(default_factory=Counter)
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.knowledge = Knowledge(error_rate=self.error_rate, no_bias=self.no_bias, seed=self.seed)
        self.window = Window(requests_per_minute=self.requests_per_minute, tokens_per_minute=self.tokens_per_minute)
        self.mix = Mix(share=self.faulty_share, seed=self.seed, hang_seconds=self.hang_seconds)
        self._wanting: set[int] = set()  # conversations whose replies so far could not be used

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/stats", self._stats),
            *Batches(self).routes(),
        ]
        return Starlette(routes=routes)

    def verdict(self, question: Question, *, sample_seed: int, hinted: bool) -> str:
        """The verdict on a question: gold, or an error at the rate asked for."""
        return self.knowledge.verdict(question, sample_seed=sample_seed, hinted=hinted)

    def says(self, body: dict[str, Any]) -> Said | None:
        """The reply to a request body, None where it has none."""
        return ECHO if self.echo else ruling(body, seed=self.seed, position_bias=self.position_bias) or self.knowledge.says(body)

    def instead(self, body: dict[str, Any]) -> tuple[int, Any] | None:
        """(status, body) in place of a reply to a request body, online or in a batch; a text goes out as it is. For servers that are odder than this one."""
        return None

    def attempt(self, body: dict[str, Any]) -> Attempt:
        """Count an attempt at a body and draw its fault."""
        body_key, talk_key = small_hash(json.dumps(body, sort_keys=True)), small_hash(json.dumps(opening(body), sort_keys=True))
        self.reasks += talk_key in self._wanting
        return Attempt(body_key=body_key, talk_key=talk_key, fault=self.mix.draw(body_key=body_key, talk_key=talk_key))

    def account(self, attempt: Attempt, shape: Shape) -> None:
        """Count a reply that was paid for."""
        if shape in USABLE:
            self.seen[attempt.body_key] += 1
            self._wanting.discard(attempt.talk_key)
        elif shape in UNUSABLE:
            self._wanting.add(attempt.talk_key)

    def stats(self) -> dict[str, Any]:
        """What the server saw; `calls` arrived, `replied` of them with a usable completion, `duplicates` of those for a body that had one already."""
        replied = sum(self.seen.values())
        window = self.window
        return {
            "calls": self.calls,
            "batch_calls": self.batch_calls,
            "replied": replied,
            "duplicates": replied - len(self.seen),
            "reasks": self.reasks,
            "rejected": self.rejected,
            "by_status": dict(self.by_status),
            "admitted": {"requests": window.total_requests, "tokens": window.total_tokens, "seconds": window.last - (window.first or 0.0)},
            "window_max": {"requests": window.most_requests, "tokens": window.most_tokens},
            "per_second": window.per_second,
        }

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "simulated-teacher", "object": "model", "created": 0, "owned_by": "socratune"}]})

    async def _stats(self, request: Request) -> Response:
        return JSONResponse(self.stats())

    async def _complete(self, request: Request) -> Response:
        self.calls += 1
        request_id = f"sim-{self.calls}"
        fault = self.faults.get(self.calls)
        body = as_request(await request.body())
        if body is None:
            return self._error(400, "invalid_request_error", "the body is no chat-completion request")
        if fault is None and (odd := self.instead(body)) is not None:
            status, content = odd
            return Response(content if isinstance(content, str) else json.dumps(content), status, {"x-request-id": request_id})
        said = self.says(body)
        wait = self.window.admit(self._tokens(body, said), now=time.monotonic())
        if wait:
            self.rejected += 1
            message = f"Rate limit reached. Please try again in {wait:.3f}s."
            return self._error(429, "rate_limit_exceeded", message, headers=retry_headers(wait))
        attempt = self.attempt(body)
        if self.credit is not None and self.window.total_requests > self.credit:
            fault = NO_CREDIT
        fault = fault or attempt.fault
        await self.pause(self.latency + fault.seconds)
        if fault.shape == "held":
            await self._held()
        if fault.status != 200:
            return self._error(fault.status, fault.code, f"simulated fault {fault.status}", headers=fault.headers)
        if fault.shape in HANG_UPS:
            self.by_status[fault.shape] += 1
            return await hang_up(request, fault.shape)
        if said is None:
            return self._error(400, "unknown_question", UNKNOWN)
        self.account(attempt, fault.shape)
        self.by_status["200"] += 1
        headers = {"x-request-id": request_id, **self.window.headers(now=time.monotonic())}
        return Response(encoded(completion(body, said, fault.shape, request_id), fault.shape), media_type="application/json", headers=headers)

    def _tokens(self, body: dict[str, Any], said: Said | None) -> int:
        prompt, written = tokens_of(body, said)
        return prompt + (int(body.get("max_completion_tokens") or body.get("max_tokens") or written) if self.count_max_tokens else written)

    def _error(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> Response:
        self.by_status[str(status)] += 1
        limits = self.window.headers(now=time.monotonic())
        return JSONResponse(error_body(status, code, message), status, {"x-request-id": f"sim-{self.calls}", **limits, **(headers or {})})

    async def pause(self, seconds: float) -> None:
        """Wait, unless the server closes."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.closing.is_set():
            await asyncio.sleep(min(left, 0.1))

    async def _held(self) -> None:
        while not self.hold.is_set() and not self.closing.is_set():
            await asyncio.sleep(_SLICE)


def as_request(content: bytes) -> dict[str, Any] | None:
    """A chat-completion request, or None."""
    try:
        body = json.loads(content)
    except ValueError:
        return None
    messages = body.get("messages") if isinstance(body, dict) else None
    return body if isinstance(messages, list) and messages and all(isinstance(each, dict) for each in messages) else None


def opening(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages that a re-ask shares with the first ask, whatever parameters it changes or messages it adds."""
    messages: list[dict[str, Any]] = body["messages"]
    return messages[: next((place + 1 for place, message in enumerate(messages) if message.get("role") == "user"), len(messages))]


@contextmanager
def serve_simulated(server: SimulatedServer) -> Iterator[str]:
    """Serve on a free loopback port, in a thread; yields the base URL (it ends in /v1)."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        uvicorn_server = runner(server.app())
        thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]}, name="simulated-teacher", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.hold.set()
            server.closing.set()
            uvicorn_server.should_exit = True
            thread.join()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve from the command line. Every plain setting of SimulatedServer is an option of that name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    kinds: dict[str, type] = {"float": float, "float | None": float, "int": int, "int | None": int, "str": str}
    counted = {"calls", "batch_calls", "rejected", "reasks"}
    short = {"requests_per_minute": ["--rpm"], "tokens_per_minute": ["--tpm"]}
    for each in fields(SimulatedServer):
        names = [f"--{each.name.replace('_', '-')}", *short.get(each.name, [])]
        if each.type == "bool":
            parser.add_argument(*names, action="store_true")
        elif str(each.type) in kinds and each.name not in counted:
            parser.add_argument(*names, type=kinds[str(each.type)], default=0.0 if each.name in ("error_rate", "no_bias") else each.default)
    options = vars(parser.parse_args(arguments))
    with socket.create_server(("127.0.0.1", options.pop("port")), backlog=2048) as listener:
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}/v1\n")
        sys.stdout.flush()
        runner(SimulatedServer(**options).app()).run(sockets=[listener])


if __name__ == "__main__":
    main()
