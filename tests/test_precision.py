"""`dtype: auto`: what a run computes in is what this machine multiplies faster, timed once and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.plan import open_plan
from tasks import precision as room
from tasks.contracts.failures import StudentError
from tasks.precision import Precision, precision
from tasks.training.rates import rates


@pytest.fixture
def kept_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that rates are kept in, of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    room._rates.cache_clear()
    yield tmp_path / "socratune"
    room._rates.cache_clear()


def test_auto_is_the_format_that_a_real_product_found_faster_and_it_is_timed_once(kept_rates: Path) -> None:
    found = precision("auto", device="cpu")
    assert found.dtype == max(("float32", found.float32), ("bfloat16", found.bfloat16), key=lambda each: each[1] or 0)[0]
    (kept,) = kept_rates.iterdir()
    kept.write_text(json.dumps({"float32": 2.0, "bfloat16": 30.0}))
    room._rates.cache_clear()
    assert precision("auto", device="cpu") == Precision("bfloat16", bfloat16=30.0, float32=2.0)
    kept.write_text("damaged")
    room._rates.cache_clear()
    assert (precision("auto", device="cpu").float32 or 0) > 0
    assert json.loads(kept.read_text())["float32"] > 0


def test_a_format_that_was_asked_for_is_kept_and_warned_of_where_it_is_ten_times_slower(kept_rates: Path) -> None:
    asked = precision("float32", device="cpu")
    assert asked.dtype == "float32"
    assert not kept_rates.exists()  # so nothing was timed
    assert "as the profile asks" in str(asked)
    slow = Precision("bfloat16", bfloat16=6.5, float32=91.0)
    assert "14 times slower" in str(slow)
    assert "recipe.student.dtype" in str(slow)
    assert "slower" not in str(Precision("bfloat16", bfloat16=700.0, float32=180.0))
    assert "slower" not in str(Precision("float32", bfloat16=6.5, float32=91.0))


@pytest.mark.skipif(bool(list(Path("/dev").glob("nvidia*"))), reason="asks for a GPU that is not there")
def test_where_nothing_can_be_timed_only_auto_is_refused(kept_rates: Path) -> None:
    with pytest.raises(StudentError, match=r"set recipe\.student\.dtype to"):
        precision("auto", device="cuda")
    assert precision("bfloat16", device="cuda") == Precision("bfloat16", bfloat16=None, float32=None)


def test_every_format_has_a_rate_on_a_cpu() -> None:
    assert all(rate > 0 for rate in rates("cpu").values())


def test_an_opened_profile_holds_the_format_itself_so_that_addresses_name_it(kept_rates: Path) -> None:
    plan = open_plan("demo")
    assert plan.recipe.student.dtype == plan.precision.dtype
    assert plan.student_weights(plan.recipe.student.model)["dtype"] in ("float32", "bfloat16")
    assert open_plan("demo", {"recipe.student.dtype": "float32"}).recipe.student.dtype == "float32"
