"""Teachers judged: figures that can be counted by hand, and the faults that recordings hide."""

from __future__ import annotations

import pytest

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Outcome, Question
from tasks.logic.audit import Finding, Heard, Source, ends_mid_sentence, exemplars_in, hear, judge, kappas, taught_sources
from tasks.logic.benchmarks import get_benchmark
from tests.logic.rows_of import questions as pocket_questions
from tests.logic.rows_of import taught

PARSE = get_benchmark("strategyqa").parse_teacher_reply


def question(qid: str, answer: str) -> Question:
    return Question(qid=qid, split="train", kind="", term="", description="", question=qid, answer=answer, facts=(), decomposition=(), entities=())


def heard(qid: str, verdict: str) -> Heard:
    outcome = Outcome.UNPARSED if verdict == "unparsed" else Outcome.OK
    return Heard(qid=qid, outcome=outcome, verdict=verdict, stated=verdict, broken=False)


def case(counts: dict[tuple[str, str], int], name: str = "teacher") -> tuple[Source, list[Question]]:
    """A source and its questions out of counts by (gold, verdict)."""
    rows = [(f"{gold}-{verdict}-{number}", gold, verdict) for (gold, verdict), count in counts.items() for number in range(count)]
    source = Source(name=name, kind="recorded", heard=tuple(heard(qid, verdict) for qid, _, verdict in rows))
    return source, [question(qid, gold) for qid, gold, _ in rows]


def test_the_original_projects_teacher_is_biased_towards_no() -> None:
    source, asked = case({("yes", "yes"): 39, ("yes", "no"): 52, ("no", "no"): 98, ("no", "yes"): 11})
    made = judge(source, questions=asked, unseen={})
    assert (made.true_yes, made.true_no) == (pytest.approx(39 / 91), pytest.approx(98 / 109))
    assert made.balanced_accuracy == pytest.approx((39 / 91 + 98 / 109) / 2)
    assert (made.yes_rate, made.gold_yes_rate) == (0.25, 0.455)
    assert made.shift == pytest.approx(-0.205)
    assert made.finding is Finding.BIASED
    assert [(each["yes"], each["no"]) for each in made.steps] == [(91, 109), (91, 109), (39, 98)]
    assert made.agreement == pytest.approx(137 / 200)
    assert made.ci_low < made.agreement < made.ci_high


def test_silence_is_counted_and_wrong_but_is_no_bias() -> None:
    source, asked = case({("yes", "yes"): 20, ("no", "no"): 20, ("yes", "no"): 2, ("no", "yes"): 2, ("yes", "unparsed"): 56})
    made = judge(source, questions=asked, unseen={})
    assert (made.replies, made.answered, made.unparsed) == (100, 44, 56)
    assert made.agreement == pytest.approx(0.4)
    assert made.agreement_answered == pytest.approx(40 / 44)
    assert made.true_yes == pytest.approx(20 / 78)
    assert (made.shift, made.shift_p, made.finding) == (0.0, 1.0, Finding.FAIR)


@pytest.mark.parametrize(("wrong", "finding"), [(7, Finding.FAIR), (8, Finding.BIASED)])
def test_seven_points_are_allowed(wrong: int, finding: Finding) -> None:
    source, asked = case({("yes", "yes"): 50, ("no", "yes"): wrong, ("no", "no"): 50 - wrong})
    assert judge(source, questions=asked, unseen={}).finding is finding


def test_a_teacher_that_is_never_wrong_was_filtered_and_one_without_a_verdict_is_silent() -> None:
    source, asked = case({("yes", "yes"): 40, ("no", "no"): 60})
    assert judge(source, questions=asked, unseen={}).finding is Finding.FILTERED
    mute, asked = case({("yes", "unparsed"): 4})
    made = judge(mute, questions=asked, unseen={})
    assert (made.finding, made.yes_rate, made.true_no, made.balanced_accuracy, made.agreement) == (Finding.SILENT, None, None, None, 0.0)


def test_replies_to_other_questions_are_counted_by_reason_and_not_judged() -> None:
    source, asked = case({("yes", "yes"): 3, ("no", "no"): 3})
    made = judge(source, questions=asked[:4], unseen={asked[4].qid: "test questions"})
    assert (made.replies, dict(made.left_out)) == (4, {"not in the question file": 1, "test questions": 1})
    with pytest.raises(DataError, match="check recipe"):
        judge(source, questions=[question("other", "yes")], unseen={})


def test_several_replies_to_a_question_do_not_narrow_the_interval() -> None:
    once, asked = case({("yes", "yes"): 20, ("no", "yes"): 20})
    thrice = Source(name="t", kind="taught", heard=once.heard * 3)
    narrow, wide = judge(thrice, questions=asked, unseen={}), judge(once, questions=asked, unseen={})
    assert (narrow.replies, narrow.questions) == (120, 40)
    assert (narrow.ci_low, narrow.ci_high) == (wide.ci_low, wide.ci_high)


@pytest.mark.parametrize(
    ("words", "text", "outcome", "stated", "broken"),
    [
        ("Pears float. So the answer is no.", "Pears float. So the answer is no.\nFinal answer: No", "ok", "no", False),
        ("Pears are denser than", "Pears are denser than\nFinal answer: No", "ok", "unparsed", True),  # a default that the file wrote
        ("Pears float. Final answer: No.", "Pears float. Final answer: No.\nFinal answer: Yes", "ok", "no", False),
        ("Pears are denser than", "Pears are denser than", "cut", "unparsed", True),
        ("It depends on the pear.", "It depends on the pear.", "unparsed", "unparsed", False),
    ],
)
def test_a_recorded_reply_is_heard_with_and_without_the_files_verdict(words: str, text: str, outcome: str, stated: str, broken: bool) -> None:
    made = hear("q", words=words, text=text, parse=PARSE)
    assert (made.outcome, made.stated, made.broken) == (outcome, stated, broken)


def test_verdicts_that_words_do_not_bear_out_are_counted() -> None:
    replies = {"default": "Pears are denser than", "opposite": "It sinks. Final answer: Yes.", "borne out": "It floats. So the answer is no."}
    source = Source(
        name="t", kind="recorded", heard=tuple(hear(qid, words=said, text=f"{said}\nFinal answer: No", parse=PARSE) for qid, said in replies.items())
    )
    made = judge(source, questions=[question(qid, "no") for qid in replies], unseen={})
    assert (made.answered, made.unstated, made.unstated_cut, made.contradicted) == (3, 1, 1, 1)


@pytest.mark.parametrize(
    ("text", "broken"), [("It floats.", False), ('"It floats!"', False), ("**[NO]**", False), ("It floats because of the", True), ("", False)]
)
def test_a_text_that_was_cut_ends_in_mid_sentence(text: str, broken: bool) -> None:
    assert ends_mid_sentence(text) is broken


def test_kappa_leaves_out_what_one_side_did_not_answer_and_takes_the_majority_of_samples() -> None:
    left = Source(name="l", kind="recorded", heard=(heard("a", "yes"), heard("b", "no"), heard("c", "yes")))
    votes = [heard("a", "yes"), heard("b", "no"), heard("b", "yes"), heard("b", "no"), heard("c", "yes"), heard("c", "no"), heard("d", "no")]
    (made,) = kappas([left, Source(name="r", kind="taught", heard=tuple(votes))], questions=[question(qid, "yes") for qid in "abcd"])
    assert (made.n, made.kappa) == (2, 1.0)  # c is a tie, d was answered by one only


def test_a_taught_table_is_one_source_a_model_without_hinted_and_failed_rows() -> None:
    first, second = pocket_questions(2)
    rows = [
        taught(first, teacher="gpt-4"),
        taught(first, teacher="gpt-4", hinted=True),
        taught(second, teacher="nano", outcome="cut", verdict="unparsed"),
        taught(second, teacher="", outcome="failed", verdict="unparsed"),
    ]
    assert [(each.name, [(one.qid, one.outcome) for one in each.heard]) for each in taught_sources(rows)] == [
        ("gpt-4 (taught)", [(first.qid, "ok")]),
        ("nano (taught)", [(second.qid, "cut")]),
    ]


def test_worked_examples_are_told_with_their_place() -> None:
    parts = {"train": [question("a", "yes"), question("b", "no")], "test": [question("c", "no")]}
    found = exemplars_in(parts, exemplars=frozenset("ac"), read={"train": parts["train"][1:], "test": parts["test"]})
    assert [(each.qid, each.part, each.read) for each in found] == [("a", "train", False), ("c", "test", True)]
