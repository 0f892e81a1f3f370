"""The verdict parser: a table of texts as models write them, and two properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.rows import Verdict
from tasks.logic.answers import own_text, parse_verdict

YES, NO, UNPARSED = Verdict.YES, Verdict.NO, Verdict.UNPARSED

CASES = [
    ("Final answer: Yes", YES),
    ("Final answer: No", NO),
    ("final answer: yes.", YES),
    ("FINAL ANSWER: NO!", NO),
    ("**Final Answer:** Yes", YES),
    ("**Final answer**: **No**", NO),
    ("Final answer: **[YES]**", YES),
    ("Final answer:\n\n**No**", NO),
    ("Final answer is: yes", YES),
    ("Final answer: No doubt, yes", YES),
    ("No doubt, yes", YES),
    ("Final answer: Yes, although some would say no.", YES),
    ("Final answer: The answer is no because whales are heavier.", NO),
    ("Answer: No\nFinal answer: Yes", YES),
    ("Final answer: No\nWait, let me check.\nFinal answer: Yes", YES),
    ("Final answer: Yes\nFinal answer: unclear", UNPARSED),
    ("Answer: Yes\nReasoning: none.\nFinal answer: it depends", UNPARSED),
    ("Final answer: Is frost common in winter?\nThe answer is yes.", YES),
    ("Final answer: Yes or No", UNPARSED),
    ("Final answer: Yes/No", UNPARSED),
    ("Reply `Answer: Yes` or `Answer: No`.", UNPARSED),
    ("then `Final answer: Yes` or `Final answer: No`", UNPARSED),
    ("Final answer: yes and no", UNPARSED),
    ("Final answer:", UNPARSED),
    ("Final answer: Yes<|im_end|>\nFinal answer: No", YES),
    ("Final answer: No</s>Final answer: Yes", NO),
    ("Final answer: Yes\nQuestion: Is iron heavy?\nFinal answer: No", YES),
    ("Final answer: Yes\n\n**Question:** Next?\nAnswer: No", YES),
    ("<|im_end|>Final answer: Yes", UNPARSED),
    ("Answer: Yes", YES),
    ("Answer: No - he died in 44 BC\nQuestions: Could it be yes? When did he die?", NO),
    ("Answer: No - donkeys are not part of it\nQuestions: Which donkeys?", NO),
    ("The answer is neither yes nor no.", UNPARSED),
    ("Answer: Uncertain - it depends on agreements\nQuestions: What is the fee?", UNPARSED),
    ("Answers:\n1. It is 5 kg.\nReasoning: 5 is less than 6, so no.", NO),
    ("Based on this analysis, the answer is: **NO**", NO),
    ("**[YES]**", YES),
    ("Some say no, but it is a clear yes.", YES),
    ("Yes, frost is common in December", YES),
    ("Caesar died in 44 BC. So the answer is no.", NO),
    ("Yes. That is what I think.", UNPARSED),
    ("There is no evidence for it.", UNPARSED),
    ("He is no longer alive.", UNPARSED),
    ("It was Chanel No. 5", UNPARSED),
    ("No-one knows", UNPARSED),
    ("Nobody in Norway", UNPARSED),
    ("It is a yes/no question.", UNPARSED),
    ("The answer is not yes", UNPARSED),
    ("To determine whether the", UNPARSED),
    ("The statement is false.", UNPARSED),
    ("", UNPARSED),
    ("No", NO),
    ("no it is not", NO),
    ("Reasoning: heavier means more.\nFinal: Yes", YES),
    ("Is it so? no!", NO),
    ("yes\n\n...", YES),
]


@pytest.mark.parametrize(("text", "verdict"), CASES)
def test_verdict_of(text: str, verdict: Verdict) -> None:
    assert parse_verdict(text) is verdict


@pytest.mark.parametrize("text", ["Final answer: Yes", "Answer: No", "yes"])
def test_a_cut_text_has_no_verdict(text: str) -> None:
    assert parse_verdict(text, cut=True) is UNPARSED


@given(st.text(), st.booleans())
def test_never_raises(text: str, cut: bool) -> None:
    assert parse_verdict(text, cut=cut) in Verdict


@given(st.text() | st.sampled_from([text for text, _ in CASES]), st.sampled_from(["Yes", "No", "**Yes**", "no."]), st.text())
def test_a_final_answer_line_decides_whatever_stands_before_it_or_after_the_turn(before: str, word: str, after: str) -> None:
    text = f"{own_text(before)}\nFinal answer: {word}<|im_end|>{after}"
    assert parse_verdict(text) is (YES if "yes" in word.casefold() else NO)


@given(st.text())
def test_own_text_is_a_prefix_and_stable(text: str) -> None:
    own = own_text(text)
    assert text.startswith(own)
    assert own_text(own) == own
