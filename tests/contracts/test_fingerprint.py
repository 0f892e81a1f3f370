from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import NotFingerprintable
from tasks.contracts.fingerprint import fingerprint

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(plain)
def test_equal_values_have_equal_fingerprints_whatever_the_order_of_keys(value: object) -> None:
    turned = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert fingerprint(value) == fingerprint(turned)


@given(plain, plain)
def test_different_values_differ(one: object, other: object) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (repr(_sorted(one)) == repr(_sorted(other)))


@pytest.mark.parametrize("value", [Path("a"), {1}, object(), float("nan"), {1: "a"}, b"bytes"])
def test_values_without_a_stable_form_are_refused(value: object) -> None:
    with pytest.raises(NotFingerprintable, match="stable form"):
        fingerprint(value)


def test_a_known_value_keeps_its_fingerprint() -> None:
    assert fingerprint({"stage": "sample", "n": 3, "lr": 0.001})[:16] == "aa735a08dc4f1270"


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
