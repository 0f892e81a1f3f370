"""What a round keeps of hard questions, long and unlikely texts and different words."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.contracts.rounds import Attempt, Gauged, Tails
from tasks.contracts.rows import Pair
from tasks.logic.tails import difficulty_bins, distinct_2, divergence, gini, no_tails, tails

RIGHTS = st.lists(st.integers(0, 8), min_size=1, max_size=25)
COUNTS = st.lists(st.integers(0, 500), min_size=5, max_size=5)


def tries(qid: str, right: int, *, of: int = 8, valid: bool = True) -> list[Attempt]:
    """Samples of a question of which the first `right` are right."""
    return [
        Attempt(
            qid=qid, split="train", sample=number, text="", tokens=1, cut=False, answer="yes", verdict="yes" if number < right else "no", after=1.0,
            elsewhere=0.0, valid=valid,
        )
        for number in range(of)
    ]  # fmt: skip


def asked(rights: list[int]) -> list[Attempt]:
    return [attempt for number, right in enumerate(rights) for attempt in tries(f"q{number}", right)]


def pair(qid: str, chosen: str = "one two three") -> Pair:
    return Pair(
        qid=qid, arm="reasoning", prompt="?", chosen=chosen, rejected="no", answer="yes", chosen_source="own", rejected_source="own", kind="draft_wrong",
        disagreement=0.0, reference_chosen=0.0, reference_rejected=0.0, reference="",
    )  # fmt: skip


def gauged(role: str, tokens: int, perplexity: float) -> Gauged:
    return Gauged(qid="q0", role=role, text="t", tokens=tokens, candidate=math.nan, accepted=math.nan, track_b=-tokens * math.log(perplexity))


@given(RIGHTS, st.integers(1, 3))
def test_as_many_chosen_texts_of_every_question_lose_nothing(rights: list[int], times: int) -> None:
    attempts = asked(rights)
    found = tails([pair(f"q{number}") for number in range(len(rights))] * times, attempts=attempts, source=attempts, gauged=[])
    assert found.divergence == 0.0
    assert found.hard_retention == 1.0


@given(RIGHTS.filter(lambda rights: min(rights) < 2 < 6 < max(rights)))
def test_a_round_without_hard_questions_keeps_none_of_them(rights: list[int]) -> None:
    attempts = asked(rights)
    found = tails([pair(f"q{number}") for number, right in enumerate(rights) if right > 1], attempts=attempts, source=attempts, gauged=[])
    assert found.hard_retention == 0.0
    assert 0.0 < found.divergence < 1.0


def test_half_the_share_of_hard_questions_is_half_retained() -> None:
    attempts = asked([0, 0, 8, 8])
    chosen = [pair("q0"), pair("q2"), pair("q3"), pair("q3")]
    assert tails(chosen, attempts=attempts, source=attempts, gauged=[]).hard_retention == 0.5


def test_how_hard_a_question_is_stays_what_it_was_for_the_start() -> None:
    """The student now gets the hard one right each time; it still counts as hard."""
    source, attempts = asked([0, 8]), asked([8, 8])
    assert tails([pair("q0"), pair("q1")], attempts=attempts, source=source, gauged=[]).hard_retention == 1.0
    assert tails([pair("q1"), pair("q1")], attempts=attempts, source=source, gauged=[]).hard_retention == 0.0


@given(COUNTS.filter(any), COUNTS.filter(any))
def test_divergence_is_a_symmetric_distance_in_bits(one: list[int], other: list[int]) -> None:
    found = divergence(one, other)
    assert found == pytest.approx(divergence(other, one), abs=1e-12)
    assert 0.0 <= found <= 1.0 + 1e-12
    assert (found == 0.0) == all(a * sum(other) == b * sum(one) for a, b in zip(one, other, strict=True))


def test_divergence_of_nothing_in_common_is_one_bit() -> None:
    assert divergence([3, 0, 0, 0, 0], [0, 0, 0, 0, 7]) == pytest.approx(1.0)
    assert divergence([1, 0, 0, 0, 0], [1, 0, 0, 0, 1]) == pytest.approx(0.3112781, abs=1e-6)


@pytest.mark.parametrize(
    ("of", "bins"),
    [(4, [0, 1, 2, 3, 4]), (5, [0, 1, 2, 3, 4, 4]), (8, [0, 0, 1, 1, 2, 3, 3, 4, 4]), (16, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4])],
)
def test_bins_by_the_number_of_samples_that_are_right(of: int, bins: list[int]) -> None:
    found = [difficulty_bins(tries("q", right, of=of))["q"] for right in range(of + 1)]
    assert found == bins
    assert all(later >= sooner for sooner, later in pairwise(found))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any), st.integers(2, 5))
def test_gini_is_a_share_that_knows_neither_order_nor_unit(counts: list[int], times: int) -> None:
    found = gini(counts)
    assert -1e-12 <= found <= (len(counts) - 1) / len(counts) + 1e-12
    assert gini([times * count for count in counts[::-1]]) == pytest.approx(found)


def test_gini_of_known_cases() -> None:
    assert gini([4, 4, 4]) == 0.0
    assert gini([0, 0, 0, 9]) == pytest.approx(0.75)
    assert gini([1, 3]) == pytest.approx(0.25)


def test_coverage_and_inequality_count_right_and_valid_samples() -> None:
    attempts = [*tries("q0", 4), *tries("q1", 8, valid=False), *tries("q2", 0), *tries("q3", 4)]
    found = tails([], attempts=attempts, source=attempts, gauged=[])
    assert found.coverage == 0.5
    assert found.inequality == pytest.approx(gini([4, 0, 0, 4])) == pytest.approx(0.5)


def test_lengths_and_perplexities_are_of_the_chosen_texts() -> None:
    chosen = [gauged("chosen", tokens, perplexity) for tokens, perplexity in zip(range(10, 21), [1.5] * 8 + [3.0] * 3, strict=True)]
    others = [gauged("source", 99, 1 + number / 10) for number in range(11)]
    attempts = asked([8])
    found = tails([pair("q0")], attempts=attempts, source=attempts, gauged=[*chosen, *others, gauged("own", 500, 50.0)])
    assert (found.length_p10, found.length_p50, found.length_p90) == pytest.approx((11, 15, 19))
    assert (found.perplexity_p50, found.perplexity_p95) == pytest.approx((1.5, 3.0))
    assert found.unlikely == pytest.approx(3 / 11)


def test_of_the_first_alignments_own_texts_a_tenth_are_unlikely() -> None:
    values = [1 + number / 100 for number in range(100)]
    texts = [gauged(role, 20, value) for role in ("chosen", "source") for value in values]
    attempts = asked([8])
    assert tails([pair("q0")], attempts=attempts, source=attempts, gauged=texts).unlikely == pytest.approx(0.1)


def test_a_text_that_track_b_did_not_read_makes_no_figure() -> None:
    unread = Gauged(qid="q0", role="chosen", text="t", tokens=5, candidate=-1.0, accepted=-1.0, track_b=math.nan)
    attempts = asked([8])
    found = tails([pair("q0")], attempts=attempts, source=attempts, gauged=[unread, gauged("source", 5, 1.5)])
    assert math.isnan(found.perplexity_p50)
    assert math.isnan(found.unlikely)
    assert found.length_p50 == 5


@given(st.lists(st.text("ab ", max_size=12), max_size=6))
def test_distinct_2_is_a_share_and_repeating_halves_it(texts: list[str]) -> None:
    found = distinct_2(texts)
    if math.isnan(found):
        assert not any(len(text.split()) > 1 for text in texts)
    else:
        assert 0 < found <= 1
        assert distinct_2([*texts, *texts]) == pytest.approx(found / 2)


def test_distinct_2_never_joins_two_texts() -> None:
    assert distinct_2(["Is it", "it is"]) == 1.0
    assert distinct_2(["is it is it"]) == pytest.approx(2 / 3)


def test_a_round_without_pairs_has_only_what_its_samples_say() -> None:
    attempts = asked([8, 4])
    found = tails([], attempts=attempts, source=attempts, gauged=[])
    known = {field.name for field in fields(Tails) if not math.isnan(getattr(found, field.name))}
    assert known == {"coverage", "inequality"}


def test_the_start_has_no_tails() -> None:
    assert all(math.isnan(getattr(no_tails(), field.name)) for field in fields(Tails))


def test_a_question_that_the_start_was_not_asked_is_refused() -> None:
    with pytest.raises(DataError, match="each round must ask the same questions"):
        tails([], attempts=asked([8, 8]), source=asked([8]), gauged=[])
    with pytest.raises(DataError, match="q7"):
        tails([pair("q7")], attempts=asked([8]), source=asked([8]), gauged=[])
