"""The simulated endpoint's rate limits: what is let in, what is turned away, and what the headers say."""

import pytest

from tasks.gateways.simulated_limits import Window, duration
from tests.gateways.test_simulated_server import body_for, client_of, create, make, status_error


async def test_over_the_limit_is_a_429_that_says_when_and_does_not_count():
    server = make(requests_per_minute=3, tokens_per_minute=1000, echo=True)
    async with client_of(server) as client:
        for left in (2, 1, 0):
            good = await client.chat.completions.with_raw_response.create(**body_for())
            assert (good.headers["x-ratelimit-limit-requests"], good.headers["x-ratelimit-remaining-requests"]) == ("3", str(left))
            assert good.headers["x-ratelimit-limit-tokens"] == "1000"
            assert good.headers["x-ratelimit-reset-requests"]
        errors = [await status_error(client) for _ in range(5)]
    assert {(error.status_code, error.code) for error in errors} == {(429, "rate_limit_exceeded")}
    headers = errors[0].response.headers
    assert 50_000 < int(headers["retry-after-ms"]) <= 60_000
    assert 50 < int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-remaining-requests"] == "0"
    stats = server.stats()
    assert (stats["calls"], stats["rejected"], stats["admitted"]["requests"], stats["window_max"]["requests"]) == (8, 5, 3, 3)


async def test_tokens_are_limited_by_use_or_by_the_largest_reply_that_was_asked_for():
    body = body_for(max_tokens=900)
    for counts_largest, admitted in ((False, 10), (True, 1)):
        server = make(tokens_per_minute=1000, count_max_tokens=counts_largest, echo=True)
        async with client_of(server) as client:
            for number in range(10):
                await (create(client, body) if number < admitted else status_error(client, body))
        assert server.stats()["admitted"]["requests"] == admitted


def test_the_window_slides():
    window = Window(requests_per_minute=2, tokens_per_minute=100)
    assert window.admit(40, now=0.0) == window.admit(40, now=10.0) == 0.0
    assert window.admit(1, now=20.0) == 40.0  # the first leaves at 60
    assert window.admit(90, now=60.0) == 10.0  # both must leave
    assert window.admit(60, now=60.0) == 0.0
    assert window.admit(500, now=300.0) == pytest.approx(0.001)  # it never fits
    assert (window.most_requests, window.most_tokens, window.total_requests) == (2, 100, 3)
    assert window.per_second[0] == [1, 40]
    assert sum(calls for calls, _ in window.per_second) == 3
    assert [duration(seconds) for seconds in (0.12, 8.64, 60.0, 0.0)] == ["120ms", "8.64s", "1m0s", "0ms"]
