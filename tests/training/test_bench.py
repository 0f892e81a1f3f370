"""The engine bench runs: our side of each kind of reading on its tiny shapes. Its figures need a GPU and are nobody's business here."""

from __future__ import annotations

import pytest

from tests.bench.engine.readings import READINGS, job_of, take


@pytest.mark.parametrize("name", ["sft_direct", "dpo", "generate", "sample"])
def test_our_side_of_the_bench_runs_on_tiny_shapes(name):
    row = take(job_of(name, model="llama7b", cpu=True, quick=True), "ours", plan="")
    assert "error" not in row
    assert row["rate"] > 0
    assert READINGS[name].bars
