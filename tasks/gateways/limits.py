"""Pace: calls per minute, tokens per minute, calls on the wire. Each is strict over any 60 seconds, from the first one on.

aiolimiter's leaky buckets do the pacing. Ours is what lies around them: tokens are set aside by estimate and settled on what was used; limits that
the endpoint reports are obeyed where they are stricter; a process shares a limit with others; trouble shrinks the number of calls on the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiolimiter import AsyncLimiter

_WINDOW = 61.0  # a bucket of limit/61 that refills every second lets 1 + 60 such shares through in 60 s: the limit, burst included
_SHRINK = 0.7  # of the calls on the wire, after trouble, at most once a second and once a round trip
_GROW = 0.5  # calls on the wire, after each good reply: holds its level while up to three in ten calls fail for reasons of their own
_IN_A_ROW = 3  # 429s without a good reply between them mean everybody, whatever the headers say


def _bucket(per_minute: float) -> AsyncLimiter:
    """A leaky bucket that holds one second's share, and never less than one unit."""
    share = per_minute / _WINDOW
    return AsyncLimiter(share, 1.0) if share >= 1.0 else AsyncLimiter(1.0, 1.0 / share)


@dataclass
class Slot:
    """Permission to make one call, for which `tokens` were set aside. `trouble`: the endpoint was overloaded, slow or down."""

    tokens: int
    used: int
    started: float
    answered: bool = False
    trouble: bool = False

    def settle(self, tokens: int) -> None:
        """Tell the real usage of an answered call; what was set aside too much or too little is made up for by the next calls."""
        self.used = tokens
        self.answered = True


class Limiter:
    """One limiter serves one event loop. `sleep` is how waits are waited; tests give one that returns at once."""

    def __init__(
        self, *, requests_per_minute: int, tokens_per_minute: int, max_in_flight: int, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._configured = (float(requests_per_minute), float(tokens_per_minute))
        self._reported = (float("inf"), float("inf"))
        self._share = 1.0
        self._requests, self._tokens = (_bucket(limit) for limit in self._configured)
        self._most = max_in_flight
        self._allowed = float(max_in_flight)
        self._shrunk_at = float("-inf")
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()  # first come, first served: aiolimiter would let small asks pass large ones for ever
        self._sleep = sleep
        self._pause_until = 0.0
        self._rejections = 0
        self._owed = 0.0  # tokens used beyond what was set aside (negative: set aside and not used)
        self.closed = asyncio.Event()  # no call starts any more
        self.on_wire: set[asyncio.Task[object]] = set()  # tasks whose call has been sent: cancelling them would lose a paid reply

    @property
    def pace(self) -> tuple[float, float]:
        """Requests and tokens per minute that this process may use now."""
        requests, tokens = (min(pair) * self._share for pair in zip(self._configured, self._reported, strict=True))
        return requests, tokens

    @property
    def in_flight(self) -> int:
        """How many calls may be on the wire now."""
        return max(1, int(self._allowed))

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[Slot]:
        """Wait for permission to make one call of about `tokens`; the call is on the wire until the block ends."""
        async with self._turn:
            self._end_if_closed()
            while len(self.on_wire) >= self.in_flight:
                self._room.clear()
                await self._room.wait()
                self._end_if_closed()
            await self._sit_out_the_pause()
            await self._requests.acquire()
            await self._set_aside(tokens)
            self._end_if_closed()
            task = asyncio.current_task()
            assert task is not None
            self.on_wire.add(task)
        slot = Slot(tokens=tokens, used=tokens, started=asyncio.get_running_loop().time())
        try:
            yield slot
        finally:
            self.on_wire.discard(task)
            self._owed += slot.used - slot.tokens
            self._adapt(slot)
            self._room.set()

    async def _set_aside(self, tokens: int) -> None:
        due: float = tokens + self._owed
        self._owed = min(due, 0.0)
        while due > 0:  # in pieces, because a bucket cannot give more than it holds
            self._end_if_closed()
            piece = min(due, self._tokens.max_rate)
            await self._tokens.acquire(piece)
            due -= piece

    def _adapt(self, slot: Slot) -> None:
        """Additive increase, multiplicative decrease of the calls on the wire."""
        if slot.answered:
            self._rejections = 0
            self._allowed = min(self._allowed + _GROW, float(self._most))
        elif slot.trouble:
            now = asyncio.get_running_loop().time()
            if slot.started > self._shrunk_at and now >= self._shrunk_at + 1.0:
                self._allowed = max(self._allowed * _SHRINK, 1.0)
                self._shrunk_at = now

    def rejected(self, seconds: float, *, everyone: bool) -> None:
        """A 429 that asks to wait. Everybody pauses when the account is out of calls or tokens, or when nothing but 429s comes back."""
        self._rejections += 1
        if everyone or self._rejections >= _IN_A_ROW:
            self._pause_until = max(self._pause_until, asyncio.get_running_loop().time() + seconds)

    async def _sit_out_the_pause(self) -> None:
        while self._pause_until > (now := asyncio.get_running_loop().time()):
            until = self._pause_until
            await self._wait(until - now)
            if self._pause_until == until:
                self._pause_until = 0.0

    def learn(self, *, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        """Limits as the endpoint reports them; the strictest that was seen wins.

        A limit that rises again is used by the next run only: each change begins a bucket anew, and endpoints behind a balancer report many.
        """
        requests, tokens = self._reported
        reported = (min(requests_per_minute or requests, requests), min(tokens_per_minute or tokens, tokens))
        if reported != self._reported:
            self._change(reported=reported, share=self._share)

    def take_share(self, share: float) -> None:
        """Use only this part of the limits; other processes use the rest."""
        if share != self._share:
            self._change(reported=self._reported, share=share)

    def _change(self, *, reported: tuple[float, float], share: float) -> None:
        before = self.pace
        self._reported, self._share = reported, share
        if self.pace != before:
            self._requests, self._tokens = (_bucket(limit) for limit in self.pace)

    async def back_off(self, seconds: float) -> None:
        """Wait before another try. Called outside a slot, so that others may use it meanwhile."""
        await self._wait(seconds)

    async def _wait(self, seconds: float) -> None:
        """Sleep, but no longer than until the limiter is closed."""
        self._end_if_closed()
        waits = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self.closed.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        self._end_if_closed()

    def close(self) -> None:
        """Let no further call start: whoever comes for a slot, waits for one or backs off is cancelled."""
        self.closed.set()
        self._room.set()

    def _end_if_closed(self) -> None:
        if self.closed.is_set():
            raise asyncio.CancelledError
