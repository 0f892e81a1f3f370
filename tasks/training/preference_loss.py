"""Preference losses as pure tensor arithmetic: DPO with the Cal-DPO and Dr. DPO variants.

Notation (all in nats, summed over completion tokens): a and b are the log-ratios policy / reference of the chosen and the rejected
completion, d = a - b. Sources: DPO arXiv 2305.18290; Cal-DPO 2412.14516 and its code; Dr. DPO 2407.07880; robust DPO 2403.00409.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Cal = Literal["none", "batch_mean", "paper", "paper_beta"]
Dr = Literal["none", "paper"]


class PreferenceLoss(NamedTuple):
    """`per_pair` [batch] and the scalar `loss` that reduces it."""

    per_pair: Tensor
    loss: Tensor


def preference_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    cal: Cal = "none",
    cal_weight: float = 0.5,
    mean_gap: float = 0.0,
    dr: Dr = "none",
    dr_beta: float = 1.0,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    robust: float = 0.0,
) -> PreferenceLoss:
    """Loss of a batch of pairs from summed log-probabilities [batch] in nats.

    cal: "none" is DPO, -log sigmoid(beta d). "batch_mean" subtracts `mean_gap` (a number, so no gradient flows through it) from d.
    "paper" is the authors' code: -log sigmoid(d) without beta, plus cal_weight * ((a - 1/(2 beta))^2 + (b + 1/(2 beta))^2) per pair.
    "paper_beta" has the same optimum in reward units: -log sigmoid(beta d) + cal_weight * ((beta a - 1/2)^2 + (beta b + 1/2)^2).
    dr: "none" is the mean weighted by `weights`; "paper" is -dr_beta * log(weighted mean of exp(-per_pair / dr_beta)).
    label_smoothing e mixes in the flipped pair, (1-e) l(d) + e l(-d); robust e debiases it, ((1-e) l(d) - e l(-d)) / (1-2e), e < 1/2.
    """
    if label_smoothing and robust:
        raise ValueError("label_smoothing and robust are two answers to the same noise; set one of them to 0")
    if not (0.0 <= label_smoothing < 0.5 and 0.0 <= robust < 0.5):
        raise ValueError("label_smoothing and robust are shares of flipped pairs and must lie in [0, 0.5)")
    a, b = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    gap = a - b - mean_gap if cal == "batch_mean" else a - b
    scaled = gap if cal == "paper" else beta * gap
    per_pair = _noise_aware(scaled, label_smoothing=label_smoothing, robust=robust)
    if cal == "paper":
        target = 1.0 / (2.0 * beta)
        per_pair = per_pair + cal_weight * ((a - target) ** 2 + (b + target) ** 2)
    elif cal == "paper_beta":
        per_pair = per_pair + cal_weight * ((beta * a - 0.5) ** 2 + (beta * b + 0.5) ** 2)
    shares = torch.ones_like(per_pair) if weights is None else weights
    shares = shares / shares.sum()
    if dr == "paper":
        return PreferenceLoss(per_pair, -dr_beta * torch.logsumexp(shares.log() - per_pair / dr_beta, dim=0))
    return PreferenceLoss(per_pair, (shares * per_pair).sum())


def dr_weights(plain: Tensor, *, dr_beta: float, log_mean: float) -> Tensor:
    """Dr. DPO's weight of each pair [batch] in a form that survives gradient accumulation: min(exp(-l / dr_beta - log_mean), 5), no gradient.

    `plain` are uncentred DPO losses and `log_mean` the log of the mean of exp(-l / dr_beta) over the whole optimiser step. With the exact
    mean, the gradient of mean(weight * l) is that of the paper's loss; 5 keeps one easy pair from carrying a step.
    """
    return torch.exp(-plain.detach() / dr_beta - log_mean).clamp(max=5.0)


def _noise_aware(scaled: Tensor, *, label_smoothing: float, robust: float) -> Tensor:
    if label_smoothing:
        return -(1 - label_smoothing) * logsigmoid(scaled) - label_smoothing * logsigmoid(-scaled)
    if robust:
        return (-(1 - robust) * logsigmoid(scaled) + robust * logsigmoid(-scaled)) / (1 - 2 * robust)
    return -logsigmoid(scaled)
