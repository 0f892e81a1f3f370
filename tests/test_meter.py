"""What a person reads while the teacher is asked."""

from __future__ import annotations

from tasks.contracts.asks import Usage
from tasks.desk import Meter


def test_progress_shows_what_was_spent_and_what_the_rest_may_cost_at_that_price() -> None:
    meter = Meter(total=1000)
    meter.read(0, 400, Usage(cached=400), "ask")  # owned replies come first and say nothing of the price
    done, total, note = meter.read(500, 100, Usage(calls=100, usd=2.0), "ask")
    assert (done, total) == (500, 1000)
    assert note == "ask: 100 bought, $2.00 so far, about $12.00 in all"
    assert meter.read(500, 200, Usage(calls=200, usd=4.0), "ask")[2] == "ask: 200 bought, $4.00 so far, about $12.00 in all"


def test_a_teacher_that_costs_nothing_shows_no_dollars() -> None:
    assert Meter(total=10).read(0, 5, Usage(calls=5), "ask") == (5, 10, "ask: 5 bought")
