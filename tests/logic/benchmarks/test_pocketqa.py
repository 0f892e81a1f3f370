"""pocketqa: true arithmetic, even draws, splits that stay apart, and names alone that do not give the answer away."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Question
from tasks.logic.benchmarks import pocketqa
from tasks.logic.benchmarks.pocketqa.comparisons import ATTRIBUTES, COMPARISONS, WORDINGS
from tasks.logic.sampling import check_disjoint

POOLS = {split: pocketqa.sample(split=split, n=0, seed=0) for split in pocketqa.SPLITS}
EVERY = [question for pool in POOLS.values() for question in pool]


def imbalance(questions: list[Question]) -> int:
    counts = Counter(question.answer for question in questions)
    return abs(counts["yes"] - counts["no"])


def test_the_table_is_large_and_names_are_unique() -> None:
    names = [name for attribute in ATTRIBUTES for name in attribute.values]
    assert len(names) == len(set(names)) >= 200
    assert len(COMPARISONS) >= 6
    sizes = {split: len(pool) for split, pool in POOLS.items()}
    assert sizes["dev"] >= 500
    assert sizes["test"] >= 1000
    assert sizes["entity_disjoint"] >= 150
    assert sum(sizes.values()) >= 3000


def test_answers_follow_from_the_values() -> None:
    values = {name: value for attribute in ATTRIBUTES for name, value in attribute.values.items()}
    less = "too_early_to_use died_before_event died_before born_before appeared_before happened_before lighter slower shorter_life shorter lower_atomic_number"
    for question in EVERY:
        left, right = (values[name] for name in question.entities)
        assert left != right
        assert question.answer == ("yes" if (left < right) == (question.kind in less.split()) else "no"), question.question


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Did Bob Marley die before Socrates?", "no"),
        ("Did Bob Marley die after Socrates?", "yes"),
        ("Is a gold heart heavier than a lead balloon?", None),
    ],
)
def test_known_answers(text: str, answer: str | None) -> None:
    found = pocketqa.lookup(text)
    assert (found.answer if found else None) == answer


@given(st.sampled_from(EVERY))
def test_lookup_finds_every_question_whatever_its_spacing(question: Question) -> None:
    assert pocketqa.lookup(f"  {question.question.upper()} ") == question


def test_splits_share_no_pair_no_text_and_held_out_entities_stand_alone() -> None:
    check_disjoint(POOLS)
    pairs = {split: {frozenset(question.entities) for question in pool} for split, pool in POOLS.items()}
    entities = {split: {name for question in pool for name in question.entities} for split, pool in POOLS.items()}
    for one, other in combinations(pocketqa.SPLITS, 2):
        assert not pairs[one] & pairs[other]
    assert not entities["entity_disjoint"] & (entities["train"] | entities["dev"] | entities["test"])
    for split, pool in POOLS.items():
        assert len(pairs[split]) == len(pool)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(pocketqa.SPLITS), st.integers(1, 150), st.integers(0, 50), st.integers(0, 9))
def test_draws_are_balanced_nested_and_repeatable(split: str, n: int, more: int, seed: int) -> None:
    drawn = pocketqa.sample(split=split, n=n, seed=seed)
    assert len({question.qid for question in drawn}) == n
    assert pocketqa.sample(split=split, n=min(n + more, 150), seed=seed)[:n] == drawn[: min(n, 150)]
    for kind in WORDINGS:
        assert imbalance([question for question in drawn if question.kind == kind]) <= 1
    assert imbalance(drawn) <= 2
    assert all(question.split == split for question in drawn)


def test_the_seed_changes_the_draw_and_never_the_split() -> None:
    one, other = (pocketqa.sample(split="train", n=200, seed=seed) for seed in (1, 2))
    assert {question.qid for question in one} != {question.qid for question in other}
    test_pairs = {frozenset(question.entities) for question in pocketqa.sample(split="test", n=0, seed=3)}
    assert not test_pairs & {frozenset(question.entities) for question in one + other}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_small_train_set_covers_what_dev_and_test_ask_about(seed: int) -> None:
    counts = Counter(name for question in pocketqa.sample(split="train", n=240, seed=seed) for name in question.entities)
    assert min(counts.values()) >= 2
    for split in ("dev", "test"):
        assert {name for question in POOLS[split] for name in question.entities} <= counts.keys()


def test_too_many_names_the_maximum() -> None:
    most = len(POOLS["entity_disjoint"])
    assert len(pocketqa.sample(split="entity_disjoint", n=most, seed=0)) == most
    with pytest.raises(DataError, match=f"at most {most}"):
        pocketqa.sample(split="entity_disjoint", n=most + 1, seed=0)


def test_one_sentence_a_fact_wherever_it_appears() -> None:
    sentences: dict[tuple[str, str], set[str]] = {}
    for question in EVERY:
        for name, fact, step in zip(question.entities, question.facts, question.decomposition[:2], strict=True):
            sentences.setdefault((name, step), set()).add(fact)
            assert name.casefold() in fact.casefold()
    assert all(len(each) == 1 for each in sentences.values())
    assert len(sentences) == len({name for question in EVERY for name in question.entities})


def test_a_rationale_is_short_says_no_verdict_and_concludes_in_the_questions_words() -> None:
    for question in EVERY:
        made = pocketqa.rationale(question)
        words = [word.strip(".,").casefold() for word in made.reasoning.split()]
        assert len(words) <= 25
        assert not {"yes", "no"} & set(words)
        assert made.asked == question.decomposition[:2]
        assert made.answered == question.facts
    assert pocketqa.rationale(next(row for row in EVERY if set(row.entities) == {"Socrates", "Bob Marley"})).reasoning in (
        "399 BC is before 1981, so Socrates died before Bob Marley.",
        "1981 is after 399 BC, so Bob Marley died after Socrates.",
    )


def test_neither_wording_nor_order_gives_the_answer_away() -> None:
    drawn = pocketqa.sample(split="train", n=800, seed=0)
    for kind in WORDINGS:
        of_kind = [question for question in drawn if question.kind == kind]
        assert imbalance(of_kind) <= 1
    first_alphabetical = Counter(question.answer for question in drawn if question.entities[0] < question.entities[1])
    assert abs(first_alphabetical["yes"] / first_alphabetical.total() - 0.5) < 0.1


def test_the_entity_prior_knows_names_only() -> None:
    train = pocketqa.sample(split="train", n=400, seed=0)
    seen = pocketqa.entity_prior(train, train)
    assert sum(said == row.answer for said, row in zip(seen, train, strict=True)) > 0.9 * len(train)
    dev = pocketqa.sample(split="dev", n=400, seed=0)
    unseen = pocketqa.entity_prior(train, dev)
    assert 0.5 < sum(said == row.answer for said, row in zip(unseen, dev, strict=True)) / len(dev) < 0.8
    strangers = pocketqa.entity_prior(train, POOLS["entity_disjoint"])
    assert set(strangers) == {"no"}
    assert pocketqa.entity_prior(train[:1], POOLS["entity_disjoint"][:1]) == [train[0].answer]


def test_a_choice_of_kinds_asks_those_only() -> None:
    kinds = ("died_before", "died_after", "heavier")
    drawn = pocketqa.sample(split="train", n=40, seed=0, kinds=kinds)
    assert {question.kind for question in drawn} == set(kinds)
    assert abs(sum(question.answer == "yes" for question in drawn) - 20) <= 1


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(DataError, match="no kind wiser"):
        pocketqa.sample(split="train", n=4, seed=0, kinds=("wiser",))
