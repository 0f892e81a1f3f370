"""Adapted layers against peft's own, and dropout that is drawn from where a token belongs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest

from tasks.contracts.recipes import Lora
from tasks.training.adapted import column_keys, drop, expand_once, mix
from tasks.training.completions import packed_log_probs, per_completion
from tasks.training.packing import Bundle, pack
from tasks.training.student import add_new_adapter, load_student
from tests.training.jobs import stock, weights

CPU = torch.device("cpu")
BUNDLES = [Bundle(prompt=tuple(range(5, 15 + index)), completions=((40, 41, 42, 43), (50 + index, 51))[: 1 + index % 2], key=index) for index in range(4)]


def adapted(tiny: Path, *, dropout: float, quantization: str = "none", dtype: str = "float32"):
    """A student whose adapter does something."""
    torch.manual_seed(0)
    student = load_student(weights(tiny, quantization=quantization, dtype=dtype), folder=tiny, device="cpu", trainable=True)
    model = add_new_adapter(student.model, Lora(rank=4, alpha=8, dropout=dropout, targets="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.train()


def gradients(model, bundles) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    found = [packed_log_probs(model, pack(group)) for group in bundles]
    torch.cat(found).sum().backward()
    return torch.cat(found).detach(), {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize(("quantization", "dtype", "tolerance"), [("none", "float32", 1e-5), ("nf4", "bfloat16", 0.02)])
def test_without_dropout_values_and_gradients_are_those_of_peft(tiny, quantization, dtype, tolerance):
    model = adapted(tiny, dropout=0.0, quantization=quantization, dtype=dtype)
    ours, our_gradients = gradients(model, [BUNDLES])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        theirs, their_gradients = gradients(stock(model), [BUNDLES])
    assert torch.allclose(ours, theirs, atol=10 * tolerance)
    assert len(our_gradients) == 4 * 7 * 2
    for name, gradient in our_gradients.items():
        assert (gradient - their_gradients[name]).norm() <= 2 * tolerance * their_gradients[name].norm() + 1e-6, name


@pytest.mark.parametrize("kept", [False, True])
def test_dropout_is_the_same_however_rows_are_batched_and_new_in_every_step(tiny, kept):
    model = adapted(tiny, dropout=0.3)
    model.noise.kept = kept
    model.noise.shake(seed=1, step=7, device=CPU)
    together, whole = gradients(model, [BUNDLES])
    apart, parts = gradients(model, [[bundle] for bundle in BUNDLES])
    assert torch.allclose(together, apart, atol=1e-4)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-3) for name in whole)
    model.noise.shake(seed=1, step=8, device=CPU)
    assert not torch.allclose(gradients(model, [BUNDLES])[0], together, atol=1e-2)


def test_with_dropout_gradients_are_those_of_the_same_mask_by_plain_autograd(tiny):
    model = adapted(tiny, dropout=0.3)
    model.noise.shake(seed=1, step=7, device=CPU)
    _, ours = gradients(model, [BUNDLES])
    for module in stock(model).modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = Mask(model.noise, module.columns)
    _, theirs = gradients(model, [BUNDLES])
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in ours)


class Mask(torch.nn.Module):
    """The hashed mask as an ordinary module."""

    def __init__(self, noise, columns):
        super().__init__()
        self.noise, self.columns = noise, columns

    def forward(self, x):
        kept = drop(torch.ones_like(x[0]), self.noise.keys, self.columns, 0.3)
        return x * kept


def test_hashed_dropout_looks_like_independent_coins():
    rows, features, share = 2000, 256, 0.1
    keys = mix(mix(torch.arange(rows, dtype=torch.int32) // 50) ^ (torch.arange(rows, dtype=torch.int32) % 50))
    zeros = torch.stack([drop(torch.ones(rows, features), keys, column_keys(features, layer=layer, device=CPU), share) == 0 for layer in (0, 1)])
    assert binomtest(int(zeros.sum()), zeros.numel(), share).pvalue > 1e-4
    for dim, count in ((0, rows), (1, features)):  # no row and no feature is special
        spread = zeros[0].float().mean(dim=dim).std().item() / (share * (1 - share) / count) ** 0.5
        assert 0.8 < spread < 1.2
    centred = zeros.float() - share
    noise = share * (1 - share) / (rows * features) ** 0.5
    shifted = [(centred[0], centred[1]), (centred[0, 1:], centred[0, :-1]), (centred[0, :, 1:], centred[0, :, :-1]), (centred[0, 50:], centred[0, :-50])]
    for one, other in shifted:  # layers, neighbouring tokens, neighbouring features, neighbouring rows
        assert abs((one * other).mean().item()) < 5 * noise
    square = centred[0, 1:, 1:] * centred[0, :-1, 1:] * centred[0, 1:, :-1] * centred[0, :-1, :-1]  # what an exclusive or of two keys would give away
    assert abs(square.mean().item()) < 5 * (share * (1 - share)) ** 2 / (rows * features) ** 0.5


def test_expanded_weights_are_the_same_numbers(tiny):
    model = adapted(tiny, dropout=0.0, quantization="nf4", dtype="bfloat16")
    packed = pack(BUNDLES)
    before = packed_log_probs(model, packed)
    expand_once(model)
    assert torch.equal(packed_log_probs(model, packed), before)


def test_scoring_without_gradients_gives_what_training_computes(tiny):
    model = adapted(tiny, dropout=0.0)
    packed = pack(BUNDLES)
    trained = per_completion(packed_log_probs(model, packed), packed)
    with torch.no_grad():
        assert torch.allclose(per_completion(packed_log_probs(model, packed), packed), trained, atol=1e-4)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_the_operator_keeps_the_contract_by_which_compilers_handle_it(kept, narrow):
    torch.manual_seed(0)
    x, a, b = (torch.randn(shape, requires_grad=True) for shape in ((6, 8), (2, 8), (5, 2)))
    keys = mix(torch.arange(6, dtype=torch.int32))
    copies = [a.detach().clone(), b.detach().clone()] if narrow else []
    arguments = (x, a, b, copies, None, keys, column_keys(8, layer=0, device=CPU), [torch.randn(5, 8)], [5, 8], 2.0, 0.25, kept)
    assert set(torch.library.opcheck(torch.ops.socratune.adapted.default, arguments).values()) == {"SUCCESS"}


def test_repeated_keys_keep_it_too():
    packed = pack(BUNDLES)
    states = torch.randn(len(packed.ids), 2, 4, requires_grad=True)
    assert set(torch.library.opcheck(torch.ops.socratune.repeat_keys.default, (states, packed.keys, packed.places)).values()) == {"SUCCESS"}
