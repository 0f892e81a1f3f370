"""Rate headers and the time that they are for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.gateways.rates import duration, reported_limits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m30s", 90.0), ("20ms", 0.02), ("6m0s", 360.0), ("0.2s", 0.2), ("1h2m3.5s", 3723.5), ("1d", 86_400.0), ("7", 7.0), ("0.5", 0.5), (" 12MS ", 0.012),
     ("", None), (None, None), ("soon", None), ("-3", None), ("nan", None), ("inf", None), ("1m30", None), ("2026-01-02T03:04:05Z", None), ("s", None)],
)  # fmt: skip
def test_every_form_of_a_reset(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "per_minute"),
    [
        ("5", None, "0.2s", 300.0),  # five a second
        ("5", "4", "0.2s", 300.0),
        ("5", "4", "200ms", 300.0),
        ("5", "0", "1s", 300.0),
        ("10", "3", "0.9", 600.0),
        ("5000", "4999", "12ms", 5000.0),  # a bucket of a minute that refills all the time
        ("30000", "29999", "2ms", 30_000.0),
        ("30000", "29999", "1ms", 30_000.0),  # rounded
        ("150000", "149984", "6ms", 150_000.0),
        ("60", "59", "1s", 60.0),
        ("300", "280", "4s", 300.0),
        ("100", "99", "59s", 100.0),
        ("100", "40", "1m0s", 100.0),
        ("7200", "7000", "6m0s", 120.0),  # an hour's
        ("14400", "10", "23h50m", 10.0),  # a day's
        ("100", None, None, 100.0),
        ("100", "99", "tomorrow", 100.0),
        ("100", "99", "1767323045", 100.0),  # a date in seconds
        ("100", "100", "0s", 100.0),
        ("100", "what", "10s", 100.0),
        ("100", "900", "10s", 100.0),  # more than the limit
        ("0", "0", "1s", None),
        ("-5", "0", "1s", None),
        ("many", "0", "1s", None),
        ("inf", "0", "1s", None),
        (None, "0", "1s", None),
    ],
)
@pytest.mark.parametrize("name", ["requests", "tokens"])
def test_a_limit_is_for_the_time_that_the_reset_says(name, limit, remaining, reset, per_minute):
    said = {f"x-ratelimit-{what}-{name}": text for what, text in (("limit", limit), ("remaining", remaining), ("reset", reset)) if text is not None}
    limits = reported_limits(said)
    assert limits.pop(f"{name}_per_minute") == per_minute
    assert set(limits.values()) == {None}


@given(
    st.dictionaries(st.sampled_from([f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset")]), st.text() | st.from_regex(r"\d+(ms|s|m)"))
)
def test_no_headers_make_it_raise_or_allow_nothing(headers):
    allowed = reported_limits(headers)["requests_per_minute"]
    assert allowed is None or allowed > 0
