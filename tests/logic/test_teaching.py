"""What is asked after the first replies: more samples, hints, and checks of the reasoning."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.asks import Answer, Ask
from tasks.contracts.rows import Outcome, Taught
from tasks.logic.benchmarks.teacher_talk import CHECK_MARK
from tasks.logic.teaching import Talk, asks_for, check_asks, checked_rows, further_asks, taught_rows
from tests.logic.rows_of import BENCHMARK, drafted, questions, taught

TALK = Talk(benchmark=BENCHMARK, ask=True, as_json=False)
QUESTIONS = questions(12)
ROWS = [drafted(question) for question in QUESTIONS]


def answer_to(ask: Ask, text: str, *, outcome: str = Outcome.OK) -> Answer:
    return Answer(ask=ask, outcome=outcome, text=text, model="m", attempts=1, note="")


def test_resampling_goes_on_where_the_first_pass_ended_and_only_rationalising_gives_hints() -> None:
    first = asks_for(ROWS[:2], talk=TALK, samples=range(3), hint=False)
    assert [(ask.qid, ask.sample) for ask in first] == [(row.qid, sample) for row in ROWS[:2] for sample in (0, 1, 2)]
    more = further_asks(ROWS[:2], talk=TALK, samples=3, resamples=2, rationalise=False)
    assert [(ask.qid, ask.sample) for ask in more] == [(row.qid, sample) for row in ROWS[:2] for sample in (3, 4)]
    assert {ask.messages[1]["content"] for ask in more} == {ask.messages[1]["content"] for ask in first}
    assert not any(ask.hinted for ask in more)
    hinted = further_asks(ROWS[:2], talk=TALK, samples=3, resamples=0, rationalise=True)
    assert [(ask.sample, ask.hinted) for ask in hinted] == [(0, True)] * 2


def test_a_teacher_that_is_not_asked_leaves_rows_without_questions() -> None:
    alone = replace(TALK, ask=False, as_json=True)
    (ask,) = asks_for(ROWS[:1], talk=alone, samples=range(1), hint=False)
    assert "questions" not in json.dumps(ask.schema)
    (row,) = taught_rows(ROWS[:1], [answer_to(ask, '{"reasoning": "It sinks. So the answer is yes.", "verdict": "yes"}')], talk=alone)
    assert (row.asked, row.answered, row.reasoning, row.verdict, row.outcome) == ((), (), "It sinks.", "yes", "ok")


def shown(ask: Ask) -> tuple[str, str]:
    """The question and the reasoning that a check shows."""
    question, _, reasoning = ask.messages[1]["content"].partition(f"\n{CHECK_MARK} ")
    return question.removeprefix("Question: "), reasoning


def reasoning_of(row: Taught) -> str:
    return " ".join([*row.answered, row.reasoning])


@given(st.lists(st.sampled_from(["right", "wrong", "hinted", "lost"]), min_size=12, max_size=12), st.integers(0, 5))
def test_every_usable_reply_is_checked_with_its_own_and_with_another_questions_reasoning(kinds: list[str], seed: int) -> None:
    rows = [
        taught(
            question,
            verdict={"yes": "no", "no": "yes"}[question.answer] if kind == "wrong" else None,
            hinted=kind == "hinted",
            outcome="failed" if kind == "lost" else "ok",
        )
        for question, kind in zip(QUESTIONS, kinds, strict=True)
    ]
    sound = [row for row, kind in zip(rows, kinds, strict=True) if kind in ("right", "hinted")]
    asks = [shown(ask) for ask in check_asks(rows, talk=TALK, seed=seed)]
    assert asks[: len(sound)] == [(row.question, reasoning_of(row)) for row in sound]
    others = asks[len(sound) :]
    if len(sound) < 2:
        assert others == []
        return
    assert [question for question, _ in others] == [row.question for row in sound]
    assert sorted(reasoning for _, reasoning in others) == sorted(map(reasoning_of, sound))  # each is lent to one other question
    assert all(reasoning != reasoning_of(row) for row, (_, reasoning) in zip(sound, others, strict=True))


def test_one_reply_more_changes_at_most_one_other_check() -> None:
    rows = [taught(question) for question in QUESTIONS]
    before, after = ({shown(ask) for ask in check_asks(some, talk=TALK, seed=0)} for some in (rows[1:], rows))
    assert len(before - after) == 1


def test_equal_reasoning_is_asked_about_once() -> None:
    twice = [taught(QUESTIONS[0]), taught(QUESTIONS[0], sample=1), taught(QUESTIONS[1])]
    asks = check_asks(twice, talk=TALK, seed=0)
    assert asks[0] == asks[1]
    assert asks[3] == asks[4]


def test_no_check_shows_the_verdict_that_it_asks_for() -> None:
    row = taught(QUESTIONS[0], answered=("Yes, it does.", "It is 3 m tall."), reasoning="It is tall enough.")
    assert shown(check_asks([row], talk=TALK, seed=0)[0])[1] == "It does. It is 3 m tall. It is tall enough."


def test_rows_keep_what_their_checks_said() -> None:
    rows = [taught(QUESTIONS[0]), taught(QUESTIONS[1], outcome="failed"), taught(QUESTIONS[2])]
    asks = check_asks(rows, talk=TALK, seed=0)
    said = ["**[YES]**", "**[NO]**", "**[OPEN]**", "**[YES]**"]
    answers = [answer_to(ask, text) for ask, text in zip(asks, said, strict=True)]
    assert [(row.recovered, row.unmoved) for row in checked_rows(rows, answers, talk=TALK)] == [("yes", "unparsed"), ("", ""), ("no", "yes")]
    lost = [replace(answer, outcome=Outcome.FAILED) for answer in answers]
    assert [(row.recovered, row.unmoved) for row in checked_rows(rows, lost, talk=TALK)] == [("unparsed", "unparsed"), ("", ""), ("unparsed", "unparsed")]


def test_a_reply_alone_is_checked_without_another_to_compare() -> None:
    rows = [taught(QUESTIONS[0]), taught(QUESTIONS[0], sample=1, reasoning="In other words, so it is.")]
    asks = check_asks(rows, talk=TALK, seed=0)
    answers = [answer_to(ask, "**[YES]**") for ask in asks]
    assert [(row.recovered, row.unmoved) for row in checked_rows(rows, answers, talk=TALK)] == [("yes", "")] * 2
