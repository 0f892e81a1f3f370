"""Pacing, on a clock that jumps to the next timer instead of waiting for it."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable

import pytest

from tasks.gateways.limits import Limiter


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that takes no time: what it was to wait is added to the clock."""

    now = 0.0

    def select(self, timeout=None):
        self.now += max(timeout or 0.0, 1e-6)
        return super().select(0)


def _run(main: Callable[[], Awaitable[None]]) -> None:
    selector = _JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def _limiter(**changes) -> Limiter:
    return Limiter(**{"requests_per_minute": 10**6, "tokens_per_minute": 10**9, "max_in_flight": 500, **changes})


def _worst_window(events: list[tuple[float, int]]) -> int:
    """The most that fell into any 60 seconds."""
    return max(sum(amount for other, amount in events if start <= other < start + 60.0) for start, _ in events)


@pytest.mark.parametrize("limit", [30, 600, 6000])
def test_requests_fill_the_limit_and_never_pass_it(limit):
    events: list[tuple[float, int]] = []

    async def main():
        limiter = _limiter(requests_per_minute=limit)

        async def call():
            async with limiter.slot(1):
                events.append((asyncio.get_running_loop().time(), 1))

        await asyncio.gather(*(call() for _ in range(limit * 2)))

    _run(main)
    assert _worst_window(events[:: max(1, limit // 600)]) <= min(limit, 600)
    assert limit * 2 / (events[-1][0] - events[0][0]) * 60 >= 0.97 * limit


def test_tokens_are_paced_by_what_was_really_used():
    events: list[tuple[float, int]] = []

    async def main():
        limiter = _limiter(tokens_per_minute=60_000)

        async def call(estimate, used):
            async with limiter.slot(estimate) as slot:
                events.append((asyncio.get_running_loop().time(), used))
                slot.settle(used)

        await asyncio.gather(*(call(1200, 600 if number % 2 else 1600) for number in range(120)))

    _run(main)
    minutes = (events[-1][0] - events[0][0]) / 60
    rate = sum(used for _, used in events) / minutes
    assert 0.95 * 60_000 <= rate <= 1.05 * 60_000


def test_a_large_ask_is_not_passed_by_small_ones_for_ever():
    order: list[int] = []

    async def main():
        limiter = _limiter(tokens_per_minute=6_000)

        async def call(tokens):
            async with limiter.slot(tokens):
                order.append(tokens)

        await asyncio.gather(*(call(tokens) for tokens in [50, 5_000, *[50] * 20]))

    _run(main)
    assert order.index(5_000) == 1


async def test_a_place_in_flight_is_free_while_its_owner_backs_off():
    gate = asyncio.Event()

    async def wait_at_the_gate(seconds):
        await gate.wait()

    limiter = _limiter(max_in_flight=1, sleep=wait_at_the_gate)

    async def retrying():
        async with limiter.slot(1):
            pass
        await limiter.back_off(60.0)

    first = asyncio.create_task(retrying())
    await asyncio.sleep(0.01)
    async with limiter.slot(1):
        assert not first.done()
    gate.set()
    await first


async def test_a_closed_limiter_starts_nothing():
    limiter = _limiter()
    limiter.close()
    with pytest.raises(asyncio.CancelledError):
        async with limiter.slot(1):
            pytest.fail("a call started")
    with pytest.raises(asyncio.CancelledError):
        await limiter.back_off(0.0)
