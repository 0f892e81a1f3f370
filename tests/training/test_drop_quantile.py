"""Which pairs are left out."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tasks.training.drop_quantile import kept_pairs, suspicion

TABLE = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["yes wrong", "no wrong", "yes right"])), min_size=1, max_size=60)


@given(TABLE, st.floats(0, 1))
def test_the_share_is_exact_overall_and_within_one_in_every_stratum(table, quantile):
    scores, strata = zip(*table, strict=True)
    mask = kept_pairs(scores, strata, quantile=quantile)
    assert mask.count(False) == round(quantile * len(table))
    dropped, sizes = Counter(s for s, kept in zip(strata, mask, strict=True) if not kept), Counter(strata)
    assert all(abs(dropped[stratum] - quantile * size) <= 1 for stratum, size in sizes.items())


@given(TABLE, st.floats(0, 1))
def test_nothing_kept_is_more_suspicious_than_something_dropped_of_its_stratum(table, quantile):
    scores, strata = zip(*table, strict=True)
    mask = kept_pairs(scores, strata, quantile=quantile)
    for stratum in set(strata):
        own = [(score, kept) for score, name, kept in zip(scores, strata, mask, strict=True) if name == stratum]
        assert max((score for score, kept in own if kept), default=0) <= min((score for score, kept in own if not kept), default=1)


def test_flipped_pairs_are_found_by_doubt_and_low_margins():
    # 15 % of 400 pairs flipped, both signals noisy: the chance that a flipped pair ranks above an honest one (AUROC) must reach .75.
    rng = random.Random(7)
    flipped = [index < 60 for index in range(400)]
    doubt = [rng.gauss(0.6 if bad else 0.4, 0.2) for bad in flipped]
    margin = [rng.gauss(-0.1 if bad else 0.1, 0.2) for bad in flipped]
    scores = suspicion(doubt, margin)
    bad, good = [s for s, f in zip(scores, flipped, strict=True) if f], [s for s, f in zip(scores, flipped, strict=True) if not f]
    assert sum(b > g for b in bad for g in good) / (len(bad) * len(good)) > 0.75


def test_a_lower_margin_is_more_suspicious_where_doubt_is_equal():
    scores = suspicion([0.5, 0.5, 0.5], [0.3, -0.2, 0.1])
    assert sorted(range(3), key=lambda index: -scores[index]) == [1, 2, 0]


def test_before_the_first_epoch_doubt_alone_decides():
    assert suspicion([0.1, 0.9], None) == [0.5, 1.0]
