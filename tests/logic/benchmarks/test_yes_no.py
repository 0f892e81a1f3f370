"""Prompts and completions: what is written is what is read back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.rows import Arm, Verdict
from tasks.logic.benchmarks import get_benchmark, yes_no
from tests.logic.benchmarks.drafted_row import drafted

BENCHMARK = get_benchmark("strategyqa")
WORDS = st.text("abcdefghij 0123456789,", min_size=1, max_size=40).map(lambda text: "x" + " ".join(text.split()))


@given(st.lists(st.tuples(WORDS, WORDS), max_size=3), WORDS | st.just(""), st.sampled_from(["yes", "no"]))
def test_a_skeleton_reads_back_as_it_was_written(pairs: list[tuple[str, str]], reasoning: str, answer: str) -> None:
    asked, answered = tuple(ask for ask, _ in pairs), tuple(reply for _, reply in pairs)
    text = BENCHMARK.completion(asked=asked, answered=answered, reasoning=reasoning, answer=answer)
    parsed = BENCHMARK.parse_skeleton(text)
    assert (parsed.asked, parsed.answered, parsed.verdict) == (asked, answered, Verdict(answer))
    assert parsed.reasoning == ("" if reasoning == " ".join(answered) else reasoning)
    assert text.splitlines()[-1] == f"Final answer: {answer.capitalize()}"


def test_empty_sections_and_repetition_are_left_out() -> None:
    assert yes_no.skeleton(asked=(), answered=(), reasoning=" ", answer="no") == "Final answer: No"
    assert "Reasoning" not in yes_no.skeleton(asked=("A?", "B?"), answered=("One.", "Two."), reasoning="One. Two.", answer="yes")


def test_a_skeleton_goes_no_further_than_the_models_own_text() -> None:
    parsed = BENCHMARK.parse_skeleton("Clarifying questions:\n1. How heavy?\nFinal answer: No<|im_end|>\nReasoning: more\nFinal answer: Yes")
    assert (parsed.asked, parsed.reasoning, parsed.verdict) == (("How heavy?",), "", Verdict.NO)


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_the_direct_completion_is_its_prefix_and_a_scored_choice(answer: str) -> None:
    choices = {"yes": BENCHMARK.yes_choices, "no": BENCHMARK.no_choices}[answer]
    completion = BENCHMARK.direct_completion(answer)
    assert completion.startswith(BENCHMARK.direct_prefix)
    assert completion.removeprefix(BENCHMARK.direct_prefix) in choices
    assert BENCHMARK.parse(completion, cut=False) == answer


def test_only_yes_and_no_are_written() -> None:
    with pytest.raises((KeyError, ValueError)):
        BENCHMARK.direct_completion("maybe")
    with pytest.raises((KeyError, ValueError)):
        BENCHMARK.direct_completion("unparsed")


def test_arms_differ_and_only_rewrite_shows_the_draft() -> None:
    row = drafted(draft="Answer: Maybe<|im_end|>Answer: No")
    prompts = {arm: BENCHMARK.prompt(arm, row) for arm in (Arm.DIRECT, Arm.REASONING, Arm.REWRITE, Arm.COUNTERFACTUAL)}
    prompts[Arm.FACTS] = BENCHMARK.draft_prompt(row.question)
    assert len({prompt.split()[0] for prompt in prompts.values()}) == 5
    assert all(row.question in prompt for prompt in prompts.values())
    assert [arm for arm, prompt in prompts.items() if "Maybe" in prompt] == [Arm.REWRITE]
    assert "<|im_end|>" not in prompts[Arm.REWRITE]
    with pytest.raises(ValueError, match="facts"):
        BENCHMARK.prompt(Arm.FACTS, row)


@pytest.mark.parametrize("arm", [Arm.DIRECT, Arm.REASONING, Arm.REWRITE, Arm.COUNTERFACTUAL])
def test_no_prompt_depends_on_gold(arm: Arm) -> None:
    row = drafted()
    other = replace(row, answer="yes", facts=("Iron floats.",), decomposition=(), term="", description="")
    assert BENCHMARK.prompt(arm, row) == BENCHMARK.prompt(arm, other)


@given(st.text())
def test_drafts_reach_the_rewrite_arm_only(draft: str) -> None:
    row, other = drafted(draft=draft), drafted(draft="Answer: No")
    assert BENCHMARK.prompt(Arm.DIRECT, row) == BENCHMARK.prompt(Arm.DIRECT, other)
    assert BENCHMARK.prompt(Arm.REASONING, row) == BENCHMARK.prompt(Arm.REASONING, other)


@pytest.mark.parametrize(
    ("text", "verdict", "questions"),
    [
        ("Answer: Yes\nQuestions: How heavy is iron? How heavy is gold?", "yes", ("How heavy is iron?", "How heavy is gold?")),
        (
            "Answer: No - iron is light\nClarifying questions:\n1. How heavy is it?\n2. Is gold heavier?\n3. Why?",
            "no",
            ("How heavy is it?", "Is gold heavier?"),
        ),
        ("**Answer:** No\n\n**Question 1:** How old is it?\n**Question 2:** Who made it?", "no", ("How old is it?", "Who made it?")),
        ("Answer: Yes\nQuestion: How old is it?", "yes", ("How old is it?",)),
        ("Answer: Uncertain\nQuestions: Is it yes? Could it be no?", "unparsed", ("Is it yes?", "Could it be no?")),
        ("Questions: Is the airplane in the sky?\nAnswer: No", "no", ("Is the airplane in the sky?",)),
        ("Questions: Who is he? Who is she? Who are they?\nAnswer: Yes<|im_end|>\nAnswer: No", "yes", ("Who is he?", "Who is she?")),
        ("Is a panda heavier than an eagle?\nNo", "no", ("Is a panda heavier than an eagle?",)),
        (
            "Questions: How old is he? When did she die?\nAnswer: Yes\n\nQuestion: Is a bus red?\nQuestions: What is red?\nAnswer: No",
            "yes",
            ("How old is he?", "When did she die?"),
        ),
        ("Yes", "yes", ()),
        ("How heavy is it? How heavy is it?", "unparsed", ("How heavy is it?",)),
        ("", "unparsed", ()),
    ],
)
def test_drafts_as_small_models_write_them(text: str, verdict: str, questions: tuple[str, ...]) -> None:
    parsed = BENCHMARK.parse_draft(text)
    assert (parsed.verdict, parsed.questions) == (verdict, questions)


def test_a_draft_ends_where_the_pattern_of_the_examples_goes_on() -> None:
    text = "Questions: How old is he?\nAnswer: Yes"
    assert BENCHMARK.own_draft(f"{text}\n\nQuestion: Is a bus red?\nAnswer: No<|im_end|>") == text
    assert BENCHMARK.own_draft(f"{text}\nQuestion: Who is he?") == f"{text}\nQuestion: Who is he?"  # one of its own


@given(st.text())
def test_any_draft_can_be_read(text: str) -> None:
    parsed = BENCHMARK.parse_draft(text)
    assert len(parsed.questions) <= 2
    assert all(question.endswith("?") for question in parsed.questions)


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("Reasoning: it is.\nFinal answer: Yes", "Reasoning: it is.\nFinal answer:"),
        ("Reasoning: it is", "Reasoning: it is\nFinal answer:"),
        ("Final answer: No\nNo wait.\nfinal answer: Yes", "Final answer: No\nNo wait.\nFinal answer:"),
        ("So.\nFinal answer: Yes<|im_end|>Final answer: No", "So.\nFinal answer:"),
        ("", "Final answer:"),
    ],
)
def test_a_text_up_to_its_verdict(text, before):
    assert yes_no.before_verdict(text) == before
