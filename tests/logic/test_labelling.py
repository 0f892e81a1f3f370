"""The file by which a person judges pairs unseen, written and read back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.logic.judging import Contest
from tasks.logic.labelling import labelling_lines, read_labels

PAIRS = [Contest(qid=f"q{number}", question="Is it?", new=(f"new {number}?",), old=(f"old {number}?",)) for number in range(40)]


def filled(seed: int, winner: str) -> str:
    """The file with, on each line, the side that holds `winner`."""
    lines = []
    for line in labelling_lines(PAIRS, seed=seed):
        row = json.loads(line)
        lines.append(json.dumps({**row, "winner": "1" if row["set_1"][0].startswith(winner) else "2"}))
    return "\n".join(lines)


@given(st.integers(0, 100), st.sampled_from(["new", "old"]))
def test_what_a_person_marks_is_what_is_read_back(seed: int, winner: str) -> None:
    assert read_labels(filled(seed, winner), PAIRS, seed=seed, name="f") == {pair.qid: winner for pair in PAIRS}


def test_the_file_gives_no_side_away() -> None:
    rows = [json.loads(line) for line in labelling_lines(PAIRS, seed=3)]
    first = [row["set_1"][0].startswith("new") for row in rows]
    assert 8 < sum(first) < 32
    assert rows[0].keys() == {"qid", "question", "set_1", "set_2", "winner"}
    assert labelling_lines(PAIRS, seed=3) != labelling_lines(PAIRS, seed=4)


def test_pairs_that_need_no_judge_are_not_labelled() -> None:
    assert labelling_lines([Contest(qid="q", question="Is it?", new=("a?",), old=("A?",))], seed=0) == []


def test_lines_not_labelled_yet_are_passed_over_and_plain_winners_are_taken() -> None:
    text = '{"qid": "q0", "winner": ""}\n\n{"qid": "q1", "winner": "old"}\n{"qid": "q2", "winner": "tie"}\n'
    assert read_labels(text, PAIRS, seed=0, name="f") == {"q1": "old", "q2": "tie"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "f, line 1: not JSON"),
        ("[]", "needs a qid and a winner"),
        ('{"qid": "q1", "winner": "3"}', "needs a qid and a winner"),
        ('{"qid": "q1", "winner": null}', "needs a qid and a winner"),
        ('{"qid": 1, "winner": "new"}', "needs a qid and a winner"),
        ('{"qid": "elsewhere", "winner": "new"}', "was not judged in this run"),
        ('{"qid": "q1", "winner": "new"}\n{"qid": "q1", "winner": "new"}', "line 2: question q1 is labelled twice"),
        ('{"qid": "q1", "winner": "1", "set_1": ["new 2?"], "set_2": ["old 1?"]}', "not those of question q1"),
    ],
)
def test_what_cannot_be_used_is_named(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labels(text, PAIRS, seed=0, name="f")


def test_a_file_of_another_seed_is_refused() -> None:
    with pytest.raises(DataError, match="label the file that this run wrote"):
        read_labels(filled(1, "new"), PAIRS, seed=2, name="f")
