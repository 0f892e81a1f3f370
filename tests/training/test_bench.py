"""The engine bench runs: our side of each kind of reading on its tiny shapes. Its figures need a GPU and are nobody's business here."""

from __future__ import annotations

import pytest

from tests.bench.engine import measure
from tests.bench.engine.readings import COUNT, READINGS, job_of, take


@pytest.mark.parametrize("name", ["sft_direct", "dpo", "generate", "sample", "fit_again_plain_8gb"])
def test_our_side_of_the_bench_runs_on_tiny_shapes(name):
    row = take(job_of(name, model="llama7b", cpu=True, quick=True), "ours", plan="")
    assert "error" not in row
    assert row["rate"] > 0
    assert READINGS[name].bars


def test_a_count_is_held_against_the_peak_that_was_measured(monkeypatch):
    monkeypatch.setattr(measure, "peaks", lambda: {"peak_gib": 10.0, "reserved_gib": 11.0})
    rows = [measure.guarded(lambda counted=counted: {"counted_gib": counted}, capped=False) for counted in (9.6, 10.4, 9.4, 10.6)]
    assert [COUNT.reached(row) for row in rows] == [True, True, False, False]
    assert COUNT.reached(measure.guarded(dict, capped=False)) is None
