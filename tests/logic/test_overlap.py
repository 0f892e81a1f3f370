"""Questions in two places: hashing may only propose, the exact figures decide."""

from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.rows import Question
from tasks.logic.overlap import ALIKE, character_grams, containment, crossings, find_matches, jaccard, overlaps, word_grams
from tasks.logic.sampling import normalised

WORDS = ["did", "the", "old", "heron", "ever", "cross", "a", "very", "wide", "river", "before", "any", "grey", "stork", "could"]
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


def question(qid: str, text: str) -> Question:
    return Question(qid=qid, split="", kind="", term="", description="", question=text, answer="yes", facts=(), decomposition=(), entities=())


def worded(seed: int) -> str:
    """A question of fifteen made-up words, unlike any other."""
    chance = random.Random(seed)
    return " ".join("".join(chance.choices("abcdefghijklmnoprstuvw", k=6)) for _ in range(15))


def edited(text: str) -> str:
    """The same with one letter changed in the last word: one word 5-gram and five of a hundred character 5-grams differ."""
    return f"{text[:-1]}z"


@given(st.lists(SENTENCE, min_size=2, max_size=25))
def test_every_pair_that_is_too_much_alike_is_found_and_no_other(texts: list[str]) -> None:
    questions = {str(number): text for number, text in enumerate(texts)}
    level = {qid: normalised(text) for qid, text in questions.items()}
    words, characters = ({qid: grams(text) for qid, text in level.items()} for grams in (word_grams, character_grams))
    wanted = {
        (left, right)
        for left, right in combinations(questions, 2)
        if containment(words[left], words[right]) >= ALIKE or jaccard(characters[left], characters[right]) >= ALIKE
    }
    assert {(match.left, match.right) for match in find_matches(questions)} == wanted


def test_near_duplicates_are_found_among_many_questions() -> None:
    texts = {f"q{number}": worded(number) for number in range(300)}
    copies = {f"copy{number}": edited(worded(number)) for number in range(0, 300, 10)}
    assert {(match.left, match.right) for match in find_matches({**texts, **copies})} == {(f"q{number}", f"copy{number}") for number in range(0, 300, 10)}


def test_what_differs_only_in_case_and_punctuation_is_one_text() -> None:
    (match,) = find_matches({"a": "Would a pear sink?", "b": "would a PEAR sink", "c": "Would a stone sink, in a lake?"})
    assert (match.left, match.right, match.same_text, match.jaccard) == ("a", "b", True, 1.0)


@pytest.mark.parametrize("gram", [word_grams, character_grams])
def test_a_text_shorter_than_a_gram_is_one_gram(gram) -> None:
    assert gram("yes") == {"yes"}
    assert gram("") == {""}


def test_an_overlap_counts_the_questions_of_the_second_part_by_each_measure() -> None:
    parts = {
        "train": [question("a", worded(1)), question("b", worded(2)), question("c", worded(3))],
        "test": [question("a", worded(1)), question("d", worded(2).upper()), question("e", edited(worded(3))), question("f", worded(4))],
    }
    matches = find_matches({each.qid: each.question for questions in parts.values() for each in questions})
    (line,) = overlaps(parts, [("train", "test")], matches)
    assert (line.left_size, line.right_size) == (3, 4)
    assert (line.same_id, line.same_text, line.contained, line.near, line.most) == (1, 2, 3, 3, 3)


def test_a_crossing_names_both_places_and_the_question_that_is_not_read() -> None:
    parts = {"train": [question("a", worded(1)), question("b", worded(1))], "test": [question("c", worded(1))]}
    matches = find_matches({"c": worded(1), "a": worded(1), "b": worded(1)})
    found = crossings(parts, matches, read={"b", "c"})
    assert {(each.left_part, each.left, each.right_part, each.right, each.left_out) for each in found} == {
        ("train", "a", "test", "c", "a"),
        ("train", "b", "test", "c", ""),
    }  # a and b lie in one part and are no crossing
