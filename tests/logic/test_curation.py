from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import UnbalancedCorpus
from tasks.logic.curation import FilterStep, assign_roles, check_balance, consensus, curate
from tests.logic.rows_of import BENCHMARK, questions, taught

SETTINGS = {"template": BENCHMARK.template_rationale, "rationalised_weight": 0.5, "pair_share": 0.0, "seed": 0}


def other(answer: str) -> str:
    return "no" if answer == "yes" else "yes"


def test_an_agreeing_reply_is_kept_as_it_is() -> None:
    (row,) = curate([taught(questions(1)[0])], disagreement="rationalise", **SETTINGS).rows
    assert (row.provenance, row.weight, row.role) == ("agreed", 1.0, "sft")


def test_a_disagreement_uses_the_reply_given_the_facts_at_lower_weight() -> None:
    question = questions(1)[0]
    rows = [taught(question, verdict=other(question.answer)), taught(question, hinted=True, reasoning="Knowing the facts.")]
    (row,) = curate(rows, disagreement="rationalise", **SETTINGS).rows
    assert (row.provenance, row.weight, row.reasoning, row.verdict) == ("rationalised", 0.5, "Knowing the facts.", question.answer)


@pytest.mark.parametrize("outcome", ["failed", "cut", "unparsed", "refused"])
def test_where_no_reply_can_be_used_the_template_speaks(outcome: str) -> None:
    question = questions(1)[0]
    (row,) = curate([taught(question, outcome=outcome, verdict="unparsed")], disagreement="rationalise", **SETTINGS).rows
    assert (row.provenance, row.verdict, row.asked_source, row.answered) == ("template", question.answer, "gold", question.facts)


def test_dropping_hands_the_teachers_bias_to_the_classes_and_the_gate_says_so() -> None:
    asked = questions(40)
    rows = [taught(row, verdict="no") for row in asked]  # a teacher that says no to everything
    dropped = curate(rows, disagreement="drop", **SETTINGS)
    assert [(step.yes, step.no) for step in dropped.steps] == [(20, 20), (20, 20), (0, 20), (0, 20)]
    with pytest.raises(UnbalancedCorpus, match=r"from 50\.0% to 0\.0%.*kept 0 of 20 yes and 20 of 20 no"):
        check_balance(dropped.steps, max_shift=0.02)
    repaired = curate(rows, disagreement="rationalise", **SETTINGS)
    check_balance(repaired.steps, max_shift=0.0)
    assert len(repaired.rows) == 40


def test_an_emptied_class_fails_whatever_the_allowance() -> None:
    with pytest.raises(UnbalancedCorpus):
        check_balance((FilterStep(step="a", yes=1, no=99), FilterStep(step="b", yes=0, no=99)), max_shift=0.5)


def test_samples_that_say_the_same_count_once() -> None:
    question = questions(1)[0]
    rows = [taught(question), taught(question, sample=1), taught(question, sample=2, reasoning="Something else.")]
    assert len(curate(rows, disagreement="rationalise", **SETTINGS).rows) == 2


@given(st.integers(2, 60), st.floats(0.0, 1.0), st.integers(0, 5))
def test_roles_split_every_class_alike(n: int, share: float, seed: int) -> None:
    asked = questions(n)
    roles = assign_roles(asked, pair_share=share, seed=seed)
    for answer in ("yes", "no"):
        members = [row for row in asked if row.answer == answer]
        assert abs(sum(roles[row.qid] == "pair" for row in members) - share * len(members)) < 1
        for kind in {row.kind for row in members}:
            own = [row for row in members if row.kind == kind]
            assert abs(sum(roles[row.qid] == "pair" for row in own) - share * len(own)) < 2


@pytest.mark.parametrize(
    ("said", "verdict", "margin"),
    [(["yes"], "yes", 1.0), (["yes", "no", "no"], "no", 1 / 3), (["yes", "no"], "unparsed", 0.0), ([], "unparsed", 0.0), (["no", "unparsed"], "no", 0.5)],
)
def test_consensus_is_the_majority_with_its_margin(said, verdict, margin):
    assert consensus(said) == (verdict, pytest.approx(margin))


def test_a_kept_row_carries_what_the_samples_said():
    question = questions(1)[0]
    wrong = other(question.answer)
    rows = [taught(question, sample=0), taught(question, sample=1, verdict=wrong), taught(question, sample=2, verdict=wrong)]
    (kept,) = curate(rows, disagreement="rationalise", **SETTINGS).rows
    assert (kept.consensus, kept.verdict) == (wrong, question.answer)
    assert kept.consensus_margin == pytest.approx(1 / 3)
