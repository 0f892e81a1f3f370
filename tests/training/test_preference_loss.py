"""The losses, with the arithmetic in words and a numpy oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tasks.training.preference_loss import dr_weights, preference_loss

NATS = st.floats(-30, 30, allow_nan=False, width=32)
PAIRS = st.lists(st.tuples(NATS, NATS, NATS, NATS), min_size=1, max_size=8)


def columns(*rows: tuple[float, float, float, float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))  # type: ignore[return-value]


def gaps(*d: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs whose log-gap is d, all of it gained by the chosen completion."""
    return columns(*((each, 0.0, 0.0, 0.0) for each in d))


def test_where_policy_and_reference_agree_the_loss_is_the_log_of_two():
    assert preference_loss(*columns((-3, -5, -3, -5), (-9, -1, -9, -1)), beta=0.1).loss.item() == pytest.approx(math.log(2))


def test_a_gap_of_ten_nats_at_beta_a_tenth_costs_log_of_one_plus_one_over_e():
    assert preference_loss(*gaps(10.0), beta=0.1).loss.item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_the_authors_calibration_has_no_beta_in_the_sigmoid_and_aims_at_five_nats_at_beta_a_tenth():
    # a = 1, b = -2, so d = 3; chosen is 4 short of +5, rejected 3 short of -5: 0.5 * (16 + 9) = 12.5
    loss = preference_loss(*columns((-1, -7, -2, -5)), beta=0.1, cal="paper", cal_weight=0.5)
    assert loss.loss.item() == pytest.approx(math.log(1 + math.exp(-3)) + 12.5)


def test_paper_beta_calibrates_rewards_to_plus_and_minus_a_half():
    # beta a = 0.1 is 0.4 short, beta b = -0.2 is 0.3 short: 0.5 * (0.16 + 0.09) = 0.125
    loss = preference_loss(*columns((-1, -7, -2, -5)), beta=0.1, cal="paper_beta", cal_weight=0.5)
    assert loss.loss.item() == pytest.approx(math.log(1 + math.exp(-0.3)) + 0.125)


def test_batch_mean_costs_what_dpo_costs_at_a_gap_smaller_by_the_mean():
    centred = preference_loss(*gaps(7.0, -2.0), beta=0.1, cal="batch_mean", mean_gap=4.0)
    assert torch.allclose(centred.per_pair, preference_loss(*gaps(3.0, -6.0), beta=0.1).per_pair)


def test_the_mean_gap_is_ignored_where_nothing_is_centred():
    assert preference_loss(*gaps(7.0), beta=0.1, mean_gap=4.0).loss == preference_loss(*gaps(7.0), beta=0.1).loss


def test_the_gradient_of_a_pair_is_minus_beta_times_the_chance_of_being_wrong():
    chosen, *rest = gaps(3.0, -1.0)
    chosen.requires_grad_()
    preference_loss(chosen, *rest, beta=0.1, cal="batch_mean", mean_gap=2.0).per_pair.sum().backward()
    wrong = torch.sigmoid(-0.1 * torch.tensor([1.0, -3.0], dtype=torch.float64))
    assert torch.allclose(chosen.grad, -0.1 * wrong)


def test_a_mean_with_gradient_would_make_the_gradients_cancel():
    # Why mean_gap is a number: with the batch's own mean attached, the pairs' gradients sum to zero and no common margin is ever learned.
    d = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    (-torch.nn.functional.logsigmoid(0.1 * (d - d.mean()))).mean().backward()
    assert d.grad.sum().item() == pytest.approx(0.0, abs=1e-12)


def test_dr_dpo_weighs_pairs_by_the_softmax_of_their_negative_losses():
    losses = torch.tensor([0.2, 0.5, 0.69, 1.0, 3.0], dtype=torch.float64)
    d = (-torch.log(torch.expm1(losses)) / 0.1).requires_grad_()  # the gap at which beta 0.1 gives that loss
    zero = torch.zeros_like(losses)
    result = preference_loss(d, zero, zero, zero, beta=0.1, dr="paper", dr_beta=1.0)
    (per_pair,) = torch.autograd.grad(result.per_pair.sum(), d, retain_graph=True)
    (whole,) = torch.autograd.grad(result.loss, d)
    assert (whole / per_pair).tolist() == pytest.approx([0.35, 0.26, 0.21, 0.16, 0.02], abs=0.005)


def test_the_accumulating_form_of_dr_dpo_has_the_same_gradient_when_its_mean_is_exact():
    plain = torch.tensor([0.2, 0.9, 2.5], dtype=torch.float64, requires_grad=True)
    exact = -1.5 * (torch.logsumexp(-plain / 1.5, 0) - math.log(3))
    log_mean = float(torch.logsumexp(-plain.detach() / 1.5, 0)) - math.log(3)
    ours = (dr_weights(plain, dr_beta=1.5, log_mean=log_mean) * plain).mean()
    (want,), (got,) = torch.autograd.grad(exact, plain), torch.autograd.grad(ours, plain)
    assert torch.allclose(want, got)


def test_dr_dpo_with_a_huge_temperature_is_the_mean():
    result = preference_loss(*gaps(3.0, -4.0, 0.0), beta=0.1, dr="paper", dr_beta=1e6)
    assert result.loss.item() == pytest.approx(result.per_pair.mean().item(), rel=1e-5)


def test_one_trusted_pair_cannot_carry_a_step():
    assert dr_weights(torch.tensor([0.0]), dr_beta=0.1, log_mean=-30.0).item() == 5.0


@pytest.mark.parametrize("dr", ["none", "paper"])
def test_a_pair_of_weight_zero_is_as_good_as_absent(dr):
    weighed = preference_loss(*gaps(3.0, -40.0, 1.0), beta=0.1, dr=dr, weights=torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    assert weighed.loss.item() == pytest.approx(preference_loss(*gaps(3.0, 1.0), beta=0.1, dr=dr).loss.item())


def test_label_smoothing_is_best_served_by_a_bounded_gap():
    # cDPO with 15 % flips is least at d = (1 / beta) ln(.85 / .15) = 17.3 nats
    best = math.log(0.85 / 0.15) / 0.1
    at, below, above = preference_loss(*gaps(best, best - 1, best + 1), beta=0.1, label_smoothing=0.15).per_pair.tolist()
    assert at < below
    assert at < above


def test_robust_undoes_flips_on_average():
    # 15 % of pairs flipped: .85 times the loss of d plus .15 times that of -d is the loss of clean labels.
    right, flipped = preference_loss(*gaps(6.0, -6.0), beta=0.1, robust=0.15).per_pair.tolist()
    assert 0.85 * right + 0.15 * flipped == pytest.approx(preference_loss(*gaps(6.0), beta=0.1).loss.item())


def test_two_answers_to_the_same_noise_are_refused():
    with pytest.raises(ValueError, match="set one of them to 0"):
        preference_loss(*gaps(1.0), beta=0.1, label_smoothing=0.1, robust=0.1)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.sampled_from(["none", "batch_mean", "paper", "paper_beta"]), st.sampled_from(["none", "paper"]), st.floats(0.01, 1.0), st.floats(-5, 5))
def test_torch_agrees_with_numpy(rows, cal, dr, beta, mean_gap):
    pc, pr, rc, rr = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    a, b = pc - rc, pr - rr
    inside = (a - b) if cal == "paper" else beta * (a - b - (mean_gap if cal == "batch_mean" else 0.0))
    per_pair = np.logaddexp(0.0, -inside)
    if cal == "paper":
        per_pair = per_pair + 0.5 * ((a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2)
    if cal == "paper_beta":
        per_pair = per_pair + 0.5 * ((beta * a - 0.5) ** 2 + (beta * b + 0.5) ** 2)
    lowest = per_pair.min()
    want = per_pair.mean() if dr == "none" else lowest - np.log(np.exp(-(per_pair - lowest)).mean())
    got = preference_loss(*columns(*rows), beta=beta, cal=cal, mean_gap=mean_gap, dr=dr)
    assert np.allclose(got.per_pair.numpy(), per_pair)
    assert got.loss.item() == pytest.approx(float(want), rel=1e-6, abs=1e-9)
