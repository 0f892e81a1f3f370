"""Sieves for reasonings: what is taken out of them, which are turned away, and which count as one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.logic.rationales import distinct, pasted, similarity, sound, validated, without_leak, word_triples
from tests.logic.rows_of import questions, taught

WORDS = st.lists(st.sampled_from(["heron", "ox", "cart", "weighs", "nests", "more", "than", "about", "trees", "lakes"]), min_size=1, max_size=30).map(" ".join)


def said(reasoning: str, *, question: int = 0, **changes: Any):
    return taught(questions(4)[question], reasoning=reasoning, answered=("An ox weighs 800 kg.",), **changes)


@pytest.mark.parametrize(
    ("reasoning", "left"),
    [
        ("An ox is heavy. So the answer is yes. A cart is light.", "An ox is heavy. A cart is light."),
        ("An ox is heavy, thus yes. A cart is light.", "An ox is heavy. A cart is light."),
        ("An ox is heavy. Yes. A cart is light.", "An ox is heavy. A cart is light."),
        ("An ox is heavy. So the answer is probably no. A cart is light.", "An ox is heavy. A cart is light."),
        ("An ox is heavy. The correct answer would most likely be **no**. A cart is light.", "An ox is heavy. A cart is light."),
        ("An ox is heavy. My verdict is yes. A cart is light.", "An ox is heavy. A cart is light."),
        ("An ox is heavy. So, hypothetically, yes, it breaks the cart.", "An ox is heavy. It breaks the cart."),
        ("Generally, yes. An ox is heavy.", "An ox is heavy."),
        ("There is no ox here, and the answer is hard to find.", "There is no ox here, and the answer is hard to find."),
        ("Yesterday the ox said no word.", "Yesterday the ox said no word."),
    ],
)
def test_a_verdict_before_the_end_is_taken_out(reasoning: str, left: str) -> None:
    assert without_leak(reasoning) == left
    assert without_leak(left) == left
    (row,), counts = sound([said(reasoning)], min_words=1, max_words=99)
    assert (row.reasoning, counts["verdict taken out of the reasoning"]) == (left, int(left != reasoning))


def test_reasoning_that_is_only_a_verdict_falls_back_to_the_answers() -> None:
    (row,), _ = sound([said("So the answer is probably yes.")], min_words=1, max_words=99)
    assert row.reasoning == "An ox weighs 800 kg."
    assert sound([taught(questions(1)[0], reasoning="Yes.", answered=())], min_words=0, max_words=99).counts["nothing but a verdict"] == 1


def test_a_yes_that_answers_a_clarifying_question_stays() -> None:
    row = taught(questions(1)[0], answered=("Yes, an ox is heavy.", "No, a cart is not."), reasoning="Yes, an ox is heavy. No, a cart is not.")
    assert sound([row], min_words=1, max_words=99) == ([row], {})


def test_length_has_bounds_and_both_belong_to_them() -> None:
    rows = [said("an ox " * half) for half in (1, 2, 3, 4)]
    kept, counts = sound(rows, min_words=4, max_words=6)
    assert [len(row.reasoning.split()) for row in kept] == [4, 6]
    assert (counts["too short"], counts["too long"]) == (1, 1)


def test_a_fresh_pass_must_reach_the_verdict_and_must_need_the_reasoning() -> None:
    verdict = questions(1)[0].answer
    other = "no" if verdict == "yes" else "yes"
    answers = [(verdict, other), (verdict, "unparsed"), (other, other), ("unparsed", ""), (verdict, verdict), ("", "")]
    rows = [said("An ox is heavy.", sample=sample, recovered=recovered, unmoved=unmoved) for sample, (recovered, unmoved) in enumerate(answers)]
    kept, counts = validated(rows)
    assert [row.sample for row in kept] == [0, 1, 5]
    assert counts == {"verdict does not follow from the reasoning": 2, "verdict follows from another question's reasoning too": 1, "not validated": 1}


def test_of_two_alike_the_first_stays_and_no_more_than_asked_for() -> None:
    said_before = "An ox weighs far more than a cart does in any weather."
    alike = "an ox weighs far more than a cart does, in any weather!"
    rows = [said(said_before), said(alike, sample=1), said("A cart is light.", sample=2), said("Carts are made of wood.", sample=3)]
    kept, counts = distinct(rows, near_duplicate=0.8, most=2)
    assert [row.sample for row in kept] == [0, 2]
    assert counts == {"like another of the question": 1, "beyond the reasonings kept of a question": 1}
    elsewhere = distinct([said(said_before), said(said_before, question=1)], near_duplicate=0.8, most=1)
    assert len(elsewhere.rows) == 2  # another question's reasoning is another matter


def test_similarity_is_shared_triples_over_all_triples() -> None:
    assert similarity(word_triples("a b c d e"), word_triples("A b, c d f")) == 2 / 4
    assert similarity(word_triples("Yes."), word_triples("yes")) == 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS, st.integers(0, 3)), max_size=8), st.sampled_from([0.5, 0.8, 1.0]))
def test_pasted_reasonings_are_those_that_stand_under_another_question(texts: list[tuple[str, int]], bound: float) -> None:
    rows = [said(text, question=question, sample=sample) for sample, (text, question) in enumerate(texts)]
    alike = [any(other.qid != row.qid and similarity(word_triples(row.reasoning), word_triples(other.reasoning)) >= bound for other in rows) for row in rows]
    same = [any(other.qid != row.qid and word_triples(other.reasoning) == word_triples(row.reasoning) for other in rows) for row in rows]
    assert sum(same) <= pasted(rows, near_duplicate=bound, seed=0) <= sum(alike)  # equal ones are always found, others with high probability
