"""Pace: calls per minute, tokens per minute, calls in flight. Each is strict over any 60 seconds, from the first one on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiolimiter import AsyncLimiter

_WINDOW = 61.0  # a bucket of limit/61 that refills every second lets 1 + 60 such shares through in 60 s: the limit, burst included


def _bucket(per_minute: float) -> AsyncLimiter:
    """A leaky bucket that holds one second's share, and never less than one unit."""
    share = per_minute / _WINDOW
    return AsyncLimiter(share, 1.0) if share >= 1.0 else AsyncLimiter(1.0, 1.0 / share)


@dataclass
class Slot:
    """Permission to make one call, for which `tokens` were set aside."""

    tokens: int
    used: int

    def settle(self, tokens: int) -> None:
        """Tell the real usage; what was set aside too much or too little is made up for by the next calls."""
        self.used = tokens


class Limiter:
    """One limiter serves one event loop. `sleep` is how back-off waits; tests give one that returns at once."""

    def __init__(
        self, *, requests_per_minute: int, tokens_per_minute: int, max_in_flight: int, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._requests = _bucket(requests_per_minute)
        self._tokens = _bucket(tokens_per_minute)
        self._in_flight = asyncio.Semaphore(max_in_flight)
        self._turn = asyncio.Lock()  # first come, first served: aiolimiter would let small asks pass large ones for ever
        self._sleep = sleep
        self._owed = 0.0  # tokens used beyond what was set aside (negative: set aside and not used)
        self._closed = False
        self.on_wire: set[asyncio.Task[object]] = set()  # tasks whose call has been sent: cancelling them would lose a paid reply

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[Slot]:
        """Wait for permission to make one call of about `tokens`; the call is in flight until the block ends."""
        async with self._in_flight:
            async with self._turn:
                await self._requests.acquire()
                await self._set_aside(tokens)
            self._end_if_closed()
            task = asyncio.current_task()
            assert task is not None
            slot = Slot(tokens=tokens, used=tokens)
            self.on_wire.add(task)
            try:
                yield slot
            finally:
                self.on_wire.discard(task)
                self._owed += slot.used - slot.tokens

    async def _set_aside(self, tokens: int) -> None:
        due: float = tokens + self._owed
        self._owed = min(due, 0.0)
        while due > 0:  # in pieces, because a bucket cannot give more than it holds
            piece = min(due, self._tokens.max_rate)
            await self._tokens.acquire(piece)
            due -= piece

    async def back_off(self, seconds: float) -> None:
        """Wait before another try. Called outside a slot, so that others may use it meanwhile."""
        self._end_if_closed()
        await self._sleep(seconds)

    def close(self) -> None:
        """Let no further call start: whoever comes for a slot or backs off from now on is cancelled."""
        self._closed = True

    def _end_if_closed(self) -> None:
        if self._closed:
            raise asyncio.CancelledError
