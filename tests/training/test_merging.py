"""Weights spelled out for decoding say what the adapted ones do, and leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.contracts.recipes import Lora
from tasks.training.decoding import decode
from tasks.training.merging import Joined, Part, decoding_weights
from tasks.training.student import add_new_adapter
from tests.training.test_decoding import NEW, one_by_one, prompts


@pytest.fixture
def model(tiny: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()


def adapted(model: Any) -> Any:
    """With an adapter that changes every layer."""
    tuned = add_new_adapter(model, Lora(rank=4, alpha=8, dropout=0.1, targets="all-linear")).eval()
    torch.manual_seed(3)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.2)
    return tuned


@pytest.mark.parametrize("merged", [False, True])
def test_an_adapter_speaks_merged_or_not(model, merged):
    plain = one_by_one(model, prompts(), [])
    tuned = adapted(model)
    want = one_by_one(tuned, prompts(), [])
    assert want != plain
    if not merged:
        assert decode(tuned, prompts(), max_new_tokens=NEW, stops=[], pad=0, batch_size=4) == want
        return
    with decoding_weights(tuned, beside=0) as spelled_out:
        assert not any(hasattr(module, "lora_A") for module in spelled_out.modules())
        assert decode(spelled_out, prompts(), max_new_tokens=NEW, stops=[], pad=0, batch_size=4) == want


def test_merging_leaves_weights_adapters_and_gradients_as_they_were(model):
    tuned = adapted(model)
    tuned(input_ids=torch.tensor([prompts()[1]])).logits.square().mean().backward()
    modules = dict(tuned.named_modules())
    state = {name: (weight, weight.detach().clone(), None if weight.grad is None else weight.grad.clone()) for name, weight in tuned.named_parameters()}
    assert sum(grad is not None for _, _, grad in state.values()) > 0

    def fail() -> None:
        with decoding_weights(tuned, beside=0) as spelled_out:
            decode(spelled_out, prompts(), max_new_tokens=2, stops=[], pad=0, batch_size=4)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert dict(tuned.named_modules()) == modules
    after = dict(tuned.named_parameters())
    assert after.keys() == state.keys()
    for name, (weight, value, grad) in state.items():
        assert after[name] is weight
        assert torch.equal(weight, value)
        assert (weight.grad is None) if grad is None else torch.equal(weight.grad, grad)


def test_without_memory_for_a_copy_the_model_is_decoded_as_it_is(model, caplog):
    tuned = adapted(model)
    with decoding_weights(tuned, beside=10**18) as same:
        assert any(hasattr(module, "lora_A") for module in same.modules())
    assert "adapters apart" in caplog.text


def test_four_bit_layers_are_spelled_out_with_their_adapter_in_float32(model):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    tuned = adapted(model)
    name, layer = next((name, module) for name, module in tuned.named_modules() if hasattr(module, "lora_A"))
    base = layer.get_base_layer()
    packed = bitsandbytes.nn.Linear4bit(base.in_features, base.out_features, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    packed.weight = bitsandbytes.nn.Params4bit(base.weight.data.clone(), requires_grad=False, quant_type="nf4").to("cpu")
    packed.support_avx512bf16_for_cpu = False
    layer.base_layer = packed
    want = bitsandbytes.functional.dequantize_4bit(packed.weight.data, packed.weight.quant_state).float()
    want = want + 2.0 * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight)  # alpha / rank
    before = packed.weight.data.clone()
    with decoding_weights(tuned, beside=0):
        assert torch.allclose(tuned.get_submodule(name).weight, want, atol=1e-6)
    assert torch.equal(packed.weight.data, before)
    assert tuned.get_submodule(name).get_base_layer() is packed


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_joined_layers_give_what_each_gives_in_any_order_and_hold_nothing(biased, compiled):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, width, bias=biased and width != 4) for width in (6, 4, 2)]
    joined = Joined(layers)
    parts = [Part(joined, number) for number in range(3)]

    def asked(x, order):
        return [parts[number](x) for number in order]

    run = torch.compile(asked, backend="eager", fullgraph=True) if compiled else asked
    for order in ((0, 1, 2), (2, 0, 1), (0, 1, 2, 1, 0, 2)):
        x = torch.randn(3, 8)
        for number, made in zip(order, run(x, order), strict=True):
            assert torch.allclose(made, layers[number](x), atol=1e-6)
        assert joined.seen is None
        assert joined.made == []
