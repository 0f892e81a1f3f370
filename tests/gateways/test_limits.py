"""Pacing, on a clock that jumps to the next timer instead of waiting for it."""

import asyncio
import random
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


def test_reported_limits_are_obeyed_where_they_are_stricter():
    limiter = _limiter(requests_per_minute=600, tokens_per_minute=60_000)
    limiter.learn(requests_per_minute=6000, tokens_per_minute=30_000)
    assert limiter.pace == (600, 30_000)
    limiter.learn(requests_per_minute=None, tokens_per_minute=None)  # a reply without the headers changes nothing
    assert limiter.pace == (600, 30_000)
    limiter.take_share(0.5)
    assert limiter.pace == (300, 15_000)
    limiter.learn(requests_per_minute=100, tokens_per_minute=90_000)
    assert limiter.pace == (50, 15_000)


def test_limits_that_change_with_every_reply_are_no_way_around_the_pace():
    events: list[tuple[float, int]] = []

    async def main():
        limiter = _limiter(requests_per_minute=600)

        async def call(number):
            async with limiter.slot(1):
                events.append((asyncio.get_running_loop().time(), 1))
            limiter.learn(requests_per_minute=590 + number % 2, tokens_per_minute=None)

        await asyncio.gather(*(call(number) for number in range(900)))

    _run(main)
    assert _worst_window(events) <= 600 + 20


def test_a_change_of_pace_takes_effect_and_shares_add_up():
    events: list[tuple[float, int]] = []

    async def main():
        limiters = [_limiter(requests_per_minute=600) for _ in range(3)]
        for limiter in limiters:
            limiter.take_share(1 / 3)

        async def call(limiter):
            async with limiter.slot(1):
                events.append((asyncio.get_running_loop().time(), 1))

        await asyncio.gather(*(call(limiter) for limiter in limiters for _ in range(400)))

    _run(main)
    assert 0.97 * 600 <= _worst_window(events) <= 600


def test_everybody_pauses_when_the_account_is_out_of_calls():
    starts: list[float] = []

    async def main():
        limiter = _limiter()
        async with limiter.slot(1):
            limiter.rejected(30.0, everyone=True)

        async def call():
            async with limiter.slot(1):
                starts.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(call() for _ in range(5)))

    _run(main)
    assert min(starts) >= 30.0
    assert max(starts) <= 31.0


def test_one_429_holds_up_nobody_else_but_three_in_a_row_do():
    starts: list[float] = []

    async def main():
        limiter = _limiter()

        async def call():
            async with limiter.slot(1) as slot:
                starts.append(asyncio.get_running_loop().time())
                slot.settle(1)

        limiter.rejected(30.0, everyone=False)
        await call()
        for _ in range(3):
            limiter.rejected(30.0, everyone=False)
        await call()

    _run(main)
    assert starts[0] < 1.0
    assert starts[1] >= 30.0


def test_trouble_shrinks_the_calls_on_the_wire_once_a_second_and_good_replies_grow_them_again():
    seen: list[int] = []

    async def main():
        limiter = _limiter(max_in_flight=100)

        async def call(seconds, *, trouble):
            async with limiter.slot(1) as slot:
                await asyncio.sleep(seconds)
                slot.trouble = trouble
                if not trouble:
                    slot.settle(1)

        await asyncio.gather(*(call(0.1, trouble=True) for _ in range(50)))
        seen.append(limiter.in_flight)
        for _ in range(20):
            await call(2.0, trouble=True)
        seen.append(limiter.in_flight)
        for _ in range(300):
            await call(0.1, trouble=False)
        seen.append(limiter.in_flight)

    _run(main)
    assert seen == [70, 1, 100]


def test_a_third_of_odd_failures_does_not_starve_the_pace():
    """2,000 calls of 0.1 s at 6,000 a minute, three in ten failing at once: the level of calls on the wire stays above the ten that the pace needs."""
    lowest: list[int] = []

    async def main():
        limiter = _limiter(requests_per_minute=6000, max_in_flight=32)
        chance = random.Random(0)

        async def call():
            async with limiter.slot(1) as slot:
                if chance.random() < 0.3:
                    slot.trouble = True
                    return
                await asyncio.sleep(0.1)
                slot.settle(1)
            lowest.append(limiter.in_flight)

        await asyncio.gather(*(call() for _ in range(2000)))

    _run(main)
    assert min(lowest) > 10
