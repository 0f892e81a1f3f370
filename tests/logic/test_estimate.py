"""What asking would cost, by the arithmetic in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.asks import Estimate
from tasks.contracts.execution import TeacherExecution
from tasks.logic.estimate import CHECK_LENGTH, Known, estimate

PACE = TeacherExecution(
    mode="online", requests_per_minute=60, tokens_per_minute=10**9, max_in_flight=100, timeout_seconds=1.0, tries=8, budget_usd=None, price=None,
    max_failed_share=0.0, shard=500, poll_seconds=1.0,
)  # fmt: skip


def forecast(**changes: Any) -> Estimate:
    return estimate(
        **{
            "owned": 0, "plain": [100] * 10, "again": [], "maybe": [], "checks": [], "check_frame": None, "attempts": 1, "max_tokens": 400,
            "known": Known(tokens_out=50, seconds=1.0),
            "usd": lambda tokens_in, tokens_out: (tokens_in + 2 * tokens_out) / 1000, "pace": PACE, "notes": (), **changes,
        }
    )  # fmt: skip


def test_ten_questions_are_ten_calls_of_the_usual_length() -> None:
    made = forecast()
    assert (made.expected.calls, made.expected.tokens_in, made.expected.tokens_out) == (10, 1000, 500)
    assert made.expected.usd == pytest.approx(2.0)
    assert made.expected.minutes == pytest.approx(10 / 60)
    assert (made.low.tokens_out, made.high.tokens_out) == (250, 4000)


def test_what_is_owned_costs_nothing_and_brings_no_hints() -> None:
    made = forecast(owned=1999, plain=[100], again=[], maybe=[150])
    assert (made.asks, made.low.calls, made.expected.calls, made.high.calls) == (2000, 1, 1, 2)


def test_hints_that_are_sure_are_counted_and_those_that_may_follow_in_part() -> None:
    made = forecast(plain=[], again=[200] * 5, maybe=[200] * 10)
    assert (made.low.calls, made.expected.calls, made.high.calls) == (5, 7, 15)


def test_attempts_carry_the_reply_before() -> None:
    made = forecast(plain=[100], attempts=3)
    assert made.high.calls == 3
    assert made.high.tokens_in == 300 + 2 * (400 + 60)


def test_two_checks_follow_each_reply_that_agrees() -> None:
    made = forecast(check_frame=30)
    assert (made.low.calls, made.expected.calls, made.high.calls) == (10, 26, 30)  # none of ten right, eight, all
    assert made.expected.tokens_in == 1000 + 16 * (30 + 50)
    assert made.expected.tokens_out == 500 + 16 * CHECK_LENGTH
    assert made.high.tokens_in == 1000 + 20 * (30 + 400)


def test_checks_of_replies_in_the_ledger_are_sure() -> None:
    made = forecast(owned=3, plain=[], checks=[200] * 4, check_frame=30)
    assert (made.asks, made.low.calls, made.expected.calls, made.high.calls) == (7, 4, 4, 4)
    assert made.expected.tokens_out == 4 * CHECK_LENGTH


def test_the_slowest_limit_sets_the_time() -> None:
    assert forecast(pace=PACE.model_copy(update={"tokens_per_minute": 150})).expected.minutes == pytest.approx(10.0)
    assert forecast(pace=PACE.model_copy(update={"max_in_flight": 1}), known=Known(tokens_out=50, seconds=30.0)).expected.minutes == pytest.approx(5.0)


PROMPTS = st.lists(st.integers(1, 500), max_size=5)


@given(PROMPTS, PROMPTS, PROMPTS, PROMPTS, st.none() | st.integers(1, 200), st.integers(1, 4), st.floats(1, 400))
def test_low_is_never_above_expected_nor_expected_above_high(
    plain: list[int], again: list[int], maybe: list[int], checks: list[int], check_frame: int | None, attempts: int, usual: float
) -> None:
    made = forecast(
        plain=plain, again=again, maybe=maybe, checks=checks, check_frame=check_frame, attempts=attempts, known=Known(tokens_out=usual, seconds=1.0)
    )
    assert made.low.usd <= made.expected.usd <= made.high.usd
    assert made.low.calls <= made.expected.calls <= made.high.calls
