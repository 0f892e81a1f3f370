"""How long the client waits, and when it will not wait."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import TeacherUnavailable
from tasks.contracts.rows import Outcome
from tasks.gateways.openai_teacher import requested_wait
from tasks.gateways.simulated_teacher import Fault
from tests.gateways.bench import asks

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=40), usegmt=True)}, 40.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=40), usegmt=True)}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "inf"}, 0.0),
        ({"retry-after": "tomorrow"}, 0.0),
        ({}, 0.0),
    ],
)
def test_every_form_of_retry_after(headers, seconds):
    assert requested_wait(headers, now=NOW) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text()))
def test_no_header_makes_it_raise_or_go_backwards(headers):
    assert requested_wait(headers, now=NOW) >= 0.0


@pytest.mark.parametrize("headers", [{"retry-after": "90"}, {"retry-after-ms": "90000"}])
async def test_a_wait_is_never_shorter_than_the_server_asked_for(bench, serve, headers):
    serve({1: Fault(status=429, headers=headers), 2: Fault(status=503)})
    (answer,), usage = await bench.ask(asks(1))
    assert (answer.outcome, usage.retries) == (Outcome.OK, 2)
    first, second = bench.waits
    assert first >= 90.0
    assert second < 90.0


async def test_a_long_wait_ends_the_run_and_says_when_to_come_back(bench, serve):
    server = serve({3: Fault(status=429, headers={"retry-after": "3600"})})
    bench.in_flight = 1
    with pytest.raises(TeacherUnavailable, match=r"wait 3600 s .* run again after \d{4}-\d\d-\d\d \d\d:\d\d UTC"):
        await bench.ask(asks(10))
    assert (server.calls, bench.kept()) == (3, 2)
