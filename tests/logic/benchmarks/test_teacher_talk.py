"""Teacher replies: ours and the shapes of recorded teachers; no verdict leaks into the reasoning."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Verdict
from tasks.logic.benchmarks import get_benchmark, pocketqa
from tasks.logic.benchmarks.teacher_talk import HINT_MARK, parse_check, parse_teacher_reply, reply_schema, teacher_messages, template_rationale
from tasks.logic.benchmarks.yes_no import parse_skeleton, skeleton
from tasks.logic.teaching import replies_as_json, undrafted
from tests.logic.benchmarks.drafted_row import drafted
from tests.logic.rows_of import questions

OURS = """## Teaching Analysis
Q: How heavy is an ox?
A: An ox weighs about 800 kg.
Q: How heavy is a cart?
A: A cart weighs about 300 kg.

## Step-by-Step Reasoning
1. 800 kg is more than 300 kg.
2. So the ox is heavier.

## Final Assessment
**[YES]**"""
LEAST_TO_MOST = """Q1. Where do herons nest?
Herons nest in trees.

Q2. Do trees grow on the sea?
No, trees do not grow on the sea.

Final answer: Do herons nest on the sea?
The answer is no. However, some nest near it."""


def test_our_format() -> None:
    reply = parse_teacher_reply(OURS)
    assert reply.asked == ("How heavy is an ox?", "How heavy is a cart?")
    assert reply.answered == ("An ox weighs about 800 kg.", "A cart weighs about 300 kg.")
    assert reply.reasoning == "800 kg is more than 300 kg. So the ox is heavier."
    assert (reply.verdict, reply.problem) == (Verdict.YES, "")


def test_the_seeds_form_with_prose_analysis() -> None:
    text = "## Teaching Analysis\nA start.\n\n## Step-by-Step Reasoning\n1. Ducks lay eggs.\n\n## Final Assessment\nFrom this, the answer is: **NO**"
    reply = parse_teacher_reply(text)
    assert (reply.verdict, reply.reasoning, reply.asked) == (Verdict.NO, "Ducks lay eggs.", ())


def test_least_to_most_gives_questions_and_answers() -> None:
    reply = parse_teacher_reply(LEAST_TO_MOST)
    assert reply.asked == ("Where do herons nest?", "Do trees grow on the sea?")
    assert reply.answered == ("Herons nest in trees.", "No, trees do not grow on the sea.")
    assert reply.verdict is Verdict.NO
    assert reply.reasoning == " ".join(reply.answered)


@pytest.mark.parametrize(
    ("text", "verdict", "reasoning"),
    [
        ("Herons nest in trees. Trees grow on land. So the answer is no.", "no", "Herons nest in trees. Trees grow on land."),
        ("Yes, herons fish in lakes. They wade.", "yes", "Herons fish in lakes. They wade."),
        ("No, herons do not bark.", "no", "Herons do not bark."),
        ("Herons wade. So the answer is yes, a heron gets wet.", "yes", "Herons wade. A heron gets wet."),
        ("1. Herons wade.\n2. Water is wet.\n\nFinal answer: **Yes**", "yes", "Herons wade. Water is wet."),
        ("Herons wade.\nFinal: No", "no", "Herons wade."),
        ("800 > 300. The answer is yes.", "yes", "800 > 300."),
        ("Herons wade, so yes.", "yes", "Herons wade."),
    ],
)
def test_prose_loses_its_verdict(text: str, verdict: str, reasoning: str) -> None:
    reply = parse_teacher_reply(text)
    assert (reply.verdict, reply.reasoning, reply.problem) == (verdict, reasoning, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no verdict"),
        (OURS.replace("**[YES]**", ""), "no verdict"),
        (OURS.split("## Final")[0], "no verdict"),
        ("As a model, I cannot predict what a heron thinks.", "no verdict"),
        ("Final answer: Yes", "no reasoning"),
        ("The answer is no.", "no reasoning"),
    ],
)
def test_what_cannot_be_used_says_why(text: str, problem: str) -> None:
    assert parse_teacher_reply(text).problem == problem


LEAK = re.compile(r"answer is:? \W*(yes|no)\b|final answer\W*:|^\W*(yes|no)\b[,.]", re.IGNORECASE)
_PIECES = [
    "Herons wade.",
    "Yes, they do.",
    "So the answer is **yes**.",
    "Thus, the answer is no, as it is dry.",
    "\nFinal answer: No",
    "the answer would be yes because they fly",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=6).map(" ".join), st.booleans())
def test_reasoning_never_states_the_verdict(text: str, ask: bool) -> None:
    assert not LEAK.search(parse_teacher_reply(text, ask=ask).reasoning)


@given(
    st.text() | st.lists(st.sampled_from(["## Step-by-Step Reasoning\n", "Q1. ", "Q: ", "A: ", "\n", "Final answer:", "yes", "# "]), max_size=12).map("".join)
)
def test_any_reply_can_be_read(text: str) -> None:
    reply = parse_teacher_reply(text)
    assert len(reply.asked) == len(reply.answered)
    assert (reply.problem == "") == (reply.verdict is not Verdict.UNPARSED and reply.reasoning != "")


@pytest.mark.parametrize("stretch", ["[", "\n", "\n\n* ", "Q1.\n", "# ", "final\n\n", "<\r\n", "&lt;think ", "<|channel|>"])
@pytest.mark.parametrize("before", ["", "<", "<|channel|>"])
def test_a_long_reply_of_one_sign_is_read_before_the_run_is_forgotten(before: str, stretch: str) -> None:
    reply = parse_teacher_reply(before + stretch * (200_000 // len(stretch)) + "x")  # hours where a pattern looks at a stretch from each of its places
    assert reply.problem == "no verdict"


def test_marks_that_close_up_to_new_marks_without_end_leave_no_reply() -> None:
    text = "Final answer: Yes"
    for _ in range(5000):
        text = f"<thi<think></think>nk>{text}</think>"
    assert parse_teacher_reply(text).problem == "no verdict"


def test_only_a_hint_shows_gold() -> None:
    row = drafted()
    system, user = teacher_messages(row, hint=False)
    assert [system["role"], user["role"]] == ["system", "user"]
    assert f"Question: {row.question}\n" in user["content"]
    assert "How heavy is iron?" in user["content"]
    assert not any(fact in user["content"] for fact in row.facts)
    assert HINT_MARK not in user["content"]
    hinted = teacher_messages(row, hint=True)[1]["content"]
    assert HINT_MARK in hinted
    assert all(text in hinted for text in (*row.facts, *row.decomposition, "The right verdict is No"))


def test_a_different_verdict_changes_only_the_hinted_messages() -> None:
    row, other = drafted(), replace(drafted(), answer="yes")
    assert teacher_messages(row, hint=False) == teacher_messages(other, hint=False)
    assert teacher_messages(row, hint=True) != teacher_messages(other, hint=True)


def test_template_pairs_facts_with_the_steps_they_answer() -> None:
    row = replace(
        drafted(),
        facts=("Gold melts at 1064 degrees", "Iron melts at 1538 degrees.", "Both are metals."),
        decomposition=("At what temperature does iron melt?", "At what temperature does gold melt?", "Is #1 higher than #2?"),
    )
    made = template_rationale(row)
    assert made.asked == row.decomposition[:2]
    assert made.answered == ("Iron melts at 1538 degrees.", "Gold melts at 1064 degrees.")
    assert made.reasoning == "Both are metals. It remains to weigh: Is answer 1 higher than answer 2?"


def test_template_without_askable_steps_reasons_from_the_facts_and_without_facts_refuses() -> None:
    made = template_rationale(replace(drafted(), facts=("Iron is dense.", "Dense is heavy."), decomposition=()))
    assert (made.asked, made.answered, made.reasoning) == ((), (), "Iron is dense. Dense is heavy.")
    with pytest.raises(DataError, match="q1 has no facts"):
        template_rationale(replace(drafted(), facts=()))


@pytest.mark.parametrize("fence", ["{}", "```json\n{}\n```", "\n```\n{}\n```\n"])
def test_an_object_of_the_schema_is_read_by_the_same_parser(fence: str) -> None:
    said = {"questions": [{"question": "When did he  die?", "answer": "In 44 BC."}], "reasoning": "That is too early. So the answer is no.", "verdict": "no"}
    read = parse_teacher_reply(fence.replace("{}", json.dumps(said)))
    assert (read.verdict, read.asked, read.answered, read.reasoning, read.problem) == ("no", ("When did he die?",), ("In 44 BC.",), "That is too early.", "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"questions": []', "no JSON object"),
        ("{}", "questions"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "JSON"),
        ('{"questions": [{"question": "Q?"}], "reasoning": "r", "verdict": "yes"}', "questions"),
        ('{"questions": [], "reasoning": "It is so.", "verdict": "maybe"}', "no verdict"),
        ('{"questions": [], "reasoning": "It is so.", "verdict": true}', "no verdict"),
        ('{"questions": [], "reasoning": null, "verdict": "yes"}', "no reasoning"),
        ('{"questions": [], "reasoning": "", "verdict": "yes"}', "no reasoning"),
    ],
)
def test_an_object_that_lacks_something_has_no_default(text: str, problem: str) -> None:
    read = parse_teacher_reply(text)
    assert problem in read.problem
    assert read.verdict == "unparsed" or "reasoning" in problem


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner)))
def test_any_object_can_be_read(value: object) -> None:
    assert parse_teacher_reply(json.dumps({"questions": value, "verdict": value, "reasoning": value})).problem


def test_the_prompt_names_the_form_that_is_wanted() -> None:
    (question,) = pocketqa.sample(split="dev", n=1, seed=0)
    as_text, as_json = (teacher_messages(undrafted([question])[0], hint=False, as_json=wanted) for wanted in (False, True))
    assert "## Final Assessment" in as_text[0]["content"]
    assert "JSON" in as_json[0]["content"]
    assert "##" not in as_json[0]["content"]
    assert as_text[1:] == as_json[1:]


@pytest.mark.parametrize(
    ("wanted", "model", "as_json"),
    [("auto", "gpt-4", False), ("auto", "gpt-4o-mini", True), ("auto", "gpt-4o-2024-05-13", False), ("auto", "gpt-5-mini", True),
     ("auto", "my-llama", False), ("json_schema", "my-llama", True), ("text", "gpt-5", False)],
)  # fmt: skip
def test_a_schema_is_asked_of_models_that_keep_to_one(wanted: Any, model: str, as_json: bool) -> None:
    assert replies_as_json(wanted, model=model) is as_json


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("hint", [False, True])
def test_a_teacher_that_is_not_asked_sees_neither_draft_nor_questions(*, hint: bool, as_json: bool) -> None:
    row = drafted(draft="I guess so.")
    system, user = teacher_messages(row, hint=hint, as_json=as_json, ask=False)
    assert user["content"].splitlines()[0] == f"Question: {row.question}"
    assert (len(user["content"].splitlines()) > 1) == hint
    said = f"{system['content']}\n{user['content']}".casefold()
    assert not any(word in said for word in ("draft", "clarifying", "guess", "how heavy is iron"))
    blank = replace(row, draft="", draft_questions=())
    assert teacher_messages(blank, hint=hint, as_json=as_json, ask=False) == (system, user)
    assert as_json == ("JSON" in system["content"])


@pytest.mark.parametrize(
    "text",
    [
        "## Step-by-Step Reasoning\nHerons wade. So the answer is yes.\n\n## Final Assessment\n**[YES]**",
        "Herons wade.\nFinal answer: Yes",
        '{"reasoning": "Herons wade. So the answer is yes.", "verdict": "yes"}',
    ],
)
def test_reasoning_alone_trains_a_text_without_a_question_part(text: str) -> None:
    read = parse_teacher_reply(text, ask=False)
    assert (read.asked, read.answered, read.reasoning, read.verdict, read.problem) == ((), (), "Herons wade.", "yes", "")
    written = skeleton(asked=read.asked, answered=read.answered, reasoning=read.reasoning, answer=read.verdict)
    assert written == "Reasoning: Herons wade.\nFinal answer: Yes"
    back = parse_skeleton(written)
    assert (back.asked, back.answered, back.reasoning, back.verdict) == ((), (), "Herons wade.", "yes")


def test_questions_that_nobody_wanted_become_reasoning() -> None:
    assert parse_teacher_reply(LEAST_TO_MOST, ask=False).reasoning == "Herons nest in trees. Trees do not grow on the sea."
    ours = parse_teacher_reply(OURS, ask=False)
    assert ours.asked == ours.answered == ()
    assert ours.reasoning == "An ox weighs about 800 kg. A cart weighs about 300 kg. 800 kg is more than 300 kg. So the ox is heavier."


@given(st.text() | st.lists(st.sampled_from(["## Step-by-Step Reasoning\n", "Q1. ", "\n", "Yes.", "Final answer: no", '{"reasoning": "'])).map("".join))
def test_any_reply_can_be_read_without_questions(text: str) -> None:
    reply = parse_teacher_reply(text, ask=False)
    assert reply.asked == reply.answered == ()
    assert (reply.problem == "") == (reply.verdict is not Verdict.UNPARSED and reply.reasoning != "")


def test_the_schema_has_questions_only_where_the_teacher_is_asked() -> None:
    assert reply_schema(ask=True)["required"] == ["questions", "reasoning", "verdict"]
    assert reply_schema(ask=False)["required"] == ["reasoning", "verdict"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("## Final Assessment\n**[YES]**", "yes"),
        ("**[NO]**", "no"),
        ("No.", "no"),
        ("## Final Assessment\n**[OPEN]**", "unparsed"),
        ("The reasoning says nothing of it.", "unparsed"),
        ("", "unparsed"),
        ('{"verdict": "yes"}', "yes"),
        ('```json\n{"verdict": "no"}\n```', "no"),
        ('{"verdict": "open"}', "unparsed"),
        ('{"verdict": true}', "unparsed"),
        ('{"verdict": ["yes"]}', "unparsed"),
        ("{", "unparsed"),
    ],
)
def test_a_check_reads_what_follows_and_nothing_else(text: str, verdict: str) -> None:
    assert parse_check(text) == verdict


@pytest.mark.parametrize("name", ["pocketqa", "strategyqa"])
def test_without_questions_a_template_says_the_same_in_its_reasoning_alone(name):
    benchmark = get_benchmark(name)
    (question,) = questions(1)
    asked, alone = (benchmark.template_for(question, ask=ask) for ask in (True, False))
    assert asked.asked
    assert (alone.asked, alone.answered) == ((), ())
    assert all(answer.rstrip(".") in alone.reasoning for answer in asked.answered)
    text = benchmark.completion(asked=alone.asked, answered=alone.answered, reasoning=alone.reasoning, answer=question.answer)
    assert benchmark.parse(text, cut=False) == question.answer
