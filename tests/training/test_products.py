"""Float32 products stay float32 whichever library makes them, and torch's setting is put back."""

from __future__ import annotations

import pytest
import torch

from tasks.training import products
from tasks.training.products import fast_products


def miss(*, size: int) -> float:
    left, right = torch.randn(2, size, size, generator=torch.Generator().manual_seed(1))
    return float((left @ right - left.double() @ right.double()).abs().max())


@pytest.mark.parametrize("size", [8, 300])
def test_products_stay_exact(size: int) -> None:
    with fast_products():
        assert miss(size=size) < 1e-4


def test_the_setting_is_put_back_also_after_a_failure() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(KeyError), fast_products():
        raise KeyError
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_where_leave_to_round_is_made_use_of_it_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    monkeypatch.setattr(products, "_miss", lambda: 2e-3)  # what a processor with matrix units for bfloat16 shows
    with fast_products() as fast:
        assert not fast
        assert torch.backends.mkldnn.matmul.fp32_precision == before
