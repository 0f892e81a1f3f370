"""The noise that samples come from: its distribution, and that no two rows or steps share it."""

from __future__ import annotations

import math

import pytest
import torch

from tasks.training import sampling
from tasks.training.sampling import perturb, perturb_in_parts


def test_noise_draws_from_the_softmax():
    # Chi-square over 40 classes and 60,000 seeds: mean 39, standard deviation 8.8; 4 of them above the mean is 75.
    scores = torch.randn(40, generator=torch.Generator().manual_seed(1))
    count, temperature = 60_000, 0.7
    want = (scores / temperature).softmax(dim=0) * count
    seeds = torch.arange(count) * 0x9E3779B97F4A7C15 % (1 << 62)
    for which, step in ((seeds, torch.tensor([0])), (torch.arange(count), torch.tensor([5])), (seeds[:1].expand(count), torch.arange(count))):
        drawn = perturb(scores.expand(count, -1), seeds=which, step=step, temperature=temperature).argmax(dim=1).bincount(minlength=40)
        assert ((drawn - want).square() / want).sum() < 75


def test_noise_of_rows_steps_and_neighbours_is_unrelated():
    rows = perturb(torch.zeros(64, 4096), seeds=torch.arange(64), step=torch.tensor([3]), temperature=1.0)
    later = perturb(torch.zeros(64, 4096), seeds=torch.arange(64), step=torch.tensor([4]), temperature=1.0)
    assert rows.isfinite().all()
    assert abs(float(rows.mean()) - 0.5772) < 4 * 1.2825 / 512  # Gumbel: mean Euler's constant, standard deviation pi / sqrt 6; 512^2 draws
    assert float(rows.std()) == pytest.approx(math.pi / math.sqrt(6), abs=0.02)
    both = torch.cat([rows, later])
    related = torch.corrcoef(both) - torch.eye(128)
    assert float(related.abs().max()) < 6 / math.sqrt(4096)
    assert abs(float(torch.corrcoef(torch.stack([rows[:, 1:].flatten(), rows[:, :-1].flatten()]))[0, 1])) < 4 / 512


def test_no_row_has_the_noise_of_another_in_another_order():
    # Were a row's key xor-ed to the index and no more, 2,000 rows of 2^14 entries would have 8 such pairs: keys that agree in their upper 18 bits.
    rows = torch.zeros(200, 1 << 14)
    drawn = [perturb(rows, seeds=torch.arange(start, start + 200), step=torch.tensor([0]), temperature=1.0) for start in range(0, 2000, 200)]
    assert len({tuple(largest) for part in drawn for largest in part.topk(3).values.tolist()}) == 2000


@pytest.mark.parametrize("part", [1, 100, 256, 10**6])
def test_noise_in_parts_is_the_same_noise(monkeypatch, part):
    monkeypatch.setattr(sampling, "_PART", part)
    how = {"seeds": torch.arange(10), "step": torch.tensor([2]), "temperature": 0.7}
    scores = torch.randn(10, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(perturb_in_parts(scores, **how), perturb(scores, **how))
