"""4-bit weights expanded by our kernel against bitsandbytes."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(4096, 4096), (11008, 4096), (96, 1088)])
def test_expanded_weights_are_those_of_bitsandbytes(shape):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    from tasks.training.unpack import unpack

    packed, state = quantize_4bit(torch.randn(shape, device="cuda", dtype=torch.bfloat16) * 0.02, blocksize=64, compress_statistics=True, quant_type="nf4")
    made = unpack(packed, state.absmax, state.state2.code, state.state2.absmax, state.offset, state.code, shape=list(shape), dtype=torch.bfloat16)
    wanted = dequantize_4bit(packed, state)
    assert (made != wanted).float().mean() < 1e-4  # a scale may differ in its last bit, and then a rounding
    assert torch.allclose(made, wanted, rtol=0.01, atol=0.0)
