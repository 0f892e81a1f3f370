"""The simulated endpoint's connections: uvicorn, with the means to hang up on a caller in the three ways that callers meet."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import ClassVar

import uvicorn
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HANG_UPS = frozenset({"reset", "closed", "dropped"})


class _Line(H11Protocol):
    """Uvicorn's protocol, which also lets a handler find its own connection, to hang up without a word."""

    open: ClassVar[dict[tuple[object, object], _Line]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # a socket made by socket.create_server names no protocol, so asyncio leaves Nagle's algorithm on: 40 ms a reply of two writes
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open[self.client, self.server] = self

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.pop((self.client, self.server), None)
        super().connection_lost(exc)


async def hang_up(request: Request, shape: str) -> Response:
    """End the connection: "reset" or "closed" before a byte of reply, or "dropped" in the midst of one."""
    if shape == "dropped":
        return StreamingResponse(_half_a_body(), headers={"content-length": "1000"})
    line = _Line.open.get((tuple(request.scope["client"]), tuple(request.scope["server"])))
    if line is not None:  # None: the caller has hung up first
        if shape == "reset":
            line.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.transport.abort()
    await asyncio.sleep(0)  # after which uvicorn knows, and writes nothing
    return Response()


async def _half_a_body() -> AsyncIterator[bytes]:
    yield b'{"id": '


def runner(app: ASGIApp) -> uvicorn.Server:
    """Uvicorn for an application; to be run with a listening socket."""
    config = uvicorn.Config(
        app,
        http=_Line,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,  # longer than any client keeps a connection that it does not use, so that none is closed under a request
    )
    return uvicorn.Server(config)
