from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import UnbalancedCorpus
from tasks.contracts.recipes import Curate
from tasks.contracts.rows import Drafted, Question, Taught
from tasks.logic.balance import check_balance
from tasks.logic.curation import Curation, assign_roles, consensus
from tasks.logic.curation import curate as curate_rows
from tests.logic.rows_of import BENCHMARK, drafted, questions, taught, values

RECIPE = Curate(
    disagreement="rationalise", resamples=0, rationales=4, min_words=1, max_words=250, near_duplicate=1.0, validate_with="none", rebalance="none",
    rationalised_weight=0.5, pair_share=0.0, max_shift=0.02,
)  # fmt: skip
DISAGREEMENTS = ("drop", "resample", "rationalise", "consensus")


def curate(rows: Sequence[Taught], *, unasked: Sequence[Question] = (), **changes: Any) -> Curation:
    asked = {row.qid: Drafted(**values(row, Drafted)) for row in rows}
    every = [*asked.values(), *map(drafted, unasked)]
    return curate_rows(every, rows, template=BENCHMARK.template_rationale, recipe=RECIPE.model_copy(update=changes), seed=0)


def check(made: Curation, *, max_shift: float = 0.02) -> None:
    check_balance(made.steps, made.trained, max_shift=max_shift, allowed=False)


def other(answer: str) -> str:
    return "no" if answer == "yes" else "yes"


def original_project() -> list[Taught]:
    """200 questions and a teacher that agrees with 39 of 91 yes and with 98 of 109 no."""
    pool = questions(300)
    yes, no = ([row for row in pool if row.answer == answer][:size] for answer, size in (("yes", 91), ("no", 109)))
    return [taught(row, verdict=row.answer if index < right else other(row.answer)) for rows, right in ((yes, 39), (no, 98)) for index, row in enumerate(rows)]


def test_an_agreeing_reply_is_kept_as_it_is() -> None:
    (row,) = curate([taught(questions(1)[0])]).rows
    assert (row.provenance, row.weight, row.direct_weight, row.role) == ("agreed", 1.0, 1.0, "sft")


def test_a_disagreement_uses_the_reply_given_the_facts_at_lower_weight() -> None:
    question = questions(1)[0]
    rows = [taught(question, verdict=other(question.answer)), taught(question, hinted=True, reasoning="Knowing the facts.")]
    (row,) = curate(rows).rows
    assert (row.provenance, row.weight, row.reasoning, row.verdict) == ("rationalised", 0.5, "Knowing the facts.", question.answer)
    assert row.direct_weight == 1.0  # its label is gold, however the reasoning was come by


@pytest.mark.parametrize("outcome", ["failed", "cut", "unparsed", "refused"])
def test_where_no_reply_can_be_used_the_template_speaks(outcome: str) -> None:
    question = questions(1)[0]
    (row,) = curate([taught(question, outcome=outcome, verdict="unparsed")]).rows
    assert (row.provenance, row.verdict, row.asked_source, row.answered) == ("template", question.answer, "gold", question.facts)


def test_dropping_hands_the_teachers_bias_to_the_classes_and_the_gate_says_so() -> None:
    rows = [taught(row, verdict="no") for row in questions(40)]  # a teacher that says no to everything
    dropped = curate(rows, disagreement="drop")
    assert [(step.step, step.yes, step.no) for step in dropped.steps] == [
        ("questions", 20, 20), ("asked", 20, 20), ("reply with a verdict", 20, 20), ("teacher agrees with gold", 0, 20), ("reasoning of use", 0, 20),
        ("after drop", 0, 20),
    ]  # fmt: skip
    with pytest.raises(UnbalancedCorpus, match=r"from 50\.0% to 0\.0%.*after drop: 0 yes, 20 no"):
        check(dropped)
    repaired = curate(rows, rationalised_weight=1.0)
    check(repaired, max_shift=0.0)
    assert len(repaired.rows) == 40


def test_less_trust_in_one_class_is_a_shift_too_and_weights_mend_it() -> None:
    rows = [taught(row, verdict="no") for row in questions(40)]
    with pytest.raises(UnbalancedCorpus, match=r"Track A, weighted: 20 yes, 20 no, 50\.0%; Track B, weighted: 10 yes, 20 no, 33\.3%"):
        check(curate(rows))
    check(curate(rows, rebalance="class_weight"), max_shift=0.0)


def test_the_original_projects_filter_stops_a_run_and_up_sampling_restores_its_classes() -> None:
    rows = original_project()
    dropped = curate(rows, disagreement="drop")
    assert [(step.yes, step.no) for step in (dropped.steps[0], dropped.steps[-1])] == [(91, 109), (39, 98)]
    with pytest.raises(UnbalancedCorpus, match=r"from 45\.5% to 28\.5%"):
        check(dropped)
    for how in ("up_sample", "down_sample", "class_weight", "verdict_weight"):
        check(curate(rows, disagreement="drop", rebalance=how))
    assert {(row.qid, row.answer) for row in curate(rows, disagreement="drop", rebalance="up_sample").rows} == {(row.qid, row.answer) for row in dropped.rows}


def test_resampling_keeps_what_the_further_samples_agree_on() -> None:
    question = questions(1)[0]
    wrong = [taught(question, verdict=other(question.answer), sample=sample) for sample in range(2)]
    assert curate(wrong, disagreement="resample").rows == []
    made = curate([*wrong, taught(question, sample=2)], disagreement="resample")
    assert ([row.sample for row in made.rows], made.steps[-1].step) == ([2], "after resample")


def test_consensus_leaves_out_a_lucky_minority() -> None:
    lucky, sure, torn = questions(3)
    rows = [taught(lucky), *(taught(lucky, verdict=other(lucky.answer), sample=sample) for sample in (1, 2))]
    rows += [taught(sure), taught(sure, verdict=other(sure.answer), sample=1), taught(sure, sample=2)]
    rows += [taught(torn), taught(torn, verdict=other(torn.answer), sample=1)]
    assert {row.qid for row in curate(rows, disagreement="drop").rows} == {lucky.qid, sure.qid, torn.qid}
    made = curate(rows, disagreement="consensus")
    assert {row.qid for row in made.rows} == {sure.qid}
    assert [(step.step, step.yes + step.no) for step in made.steps[-3:]] == [("reasoning of use", 3), ("majority is gold", 1), ("after consensus", 1)]


@pytest.mark.parametrize("disagreement", DISAGREEMENTS)
def test_a_question_whose_reasonings_are_all_turned_away_falls_back(disagreement: str) -> None:
    rows = [taught(questions(1)[0], reasoning="Too short."), taught(questions(1)[0], reasoning="Yes.", answered=(), sample=1)]
    made = curate(rows, disagreement=disagreement, min_words=3)
    assert [row.provenance for row in made.rows] == (["template"] if disagreement == "rationalise" else [])
    assert made.reasonings == {"too short": 1, "verdict taken out of the reasoning": 1, "nothing but a verdict": 1}


@pytest.mark.parametrize(("validate_with", "provenance"), [("none", "agreed"), ("teacher", "rationalised")])
def test_what_a_fresh_pass_said_counts_where_the_recipe_asks_for_it(validate_with: str, provenance: str) -> None:
    question = questions(1)[0]
    rows = [taught(question, recovered=other(question.answer)), taught(question, hinted=True, reasoning="Knowing the facts.", recovered=question.answer)]
    made = curate(rows, validate_with=validate_with)
    assert [row.provenance for row in made.rows] == [provenance]
    assert ("reasoning validated" in {step.step for step in made.steps}) == (validate_with == "teacher")


@pytest.mark.parametrize("disagreement", DISAGREEMENTS)
def test_a_question_that_nobody_asked_about_keeps_its_label_and_has_no_reasoning(disagreement: str) -> None:
    asked, unasked = questions(20)[:8], questions(20)[8:]
    made = curate([taught(row) for row in asked], unasked=unasked, disagreement=disagreement, pair_share=0.25)
    rows = {row.qid: row for row in made.rows}
    assert set(rows) == {row.qid for row in (*asked, *unasked)}
    assert {(rows[row.qid].provenance, rows[row.qid].reasoning, rows[row.qid].verdict, rows[row.qid].weight) for row in unasked} == {
        ("unasked", "", "unparsed", 1.0)
    }
    assert {row.qid: row.role for row in made.rows} == assign_roles([*asked, *unasked], pair_share=0.25, seed=0)
    assert [(step.step, step.yes + step.no) for step in made.steps[:2]] == [("questions", 20), ("asked", 8)]
    assert made.steps[-1].yes + made.steps[-1].no == 20


def test_samples_that_say_the_same_count_once() -> None:
    question = questions(1)[0]
    rows = [taught(question), taught(question, sample=1), taught(question, sample=2, reasoning="Something else.")]
    made = curate(rows)
    assert ([row.sample for row in made.rows], made.reasonings) == ([0, 2], {"like another of the question": 1})


def test_a_reasoning_under_two_questions_is_counted() -> None:
    same = "One reasoning that fits every question there is."
    rows = [taught(row, reasoning=same) for row in questions(3)] + [taught(questions(4)[3], reasoning="Quite another one.")]
    assert curate(rows).pasted == 3


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
    (kept,) = curate(rows).rows
    assert (kept.consensus, kept.verdict) == (wrong, question.answer)
    assert kept.consensus_margin == pytest.approx(1 / 3)


def test_templates_never_stand_in_for_most_of_what_was_bought():
    from types import SimpleNamespace

    from tasks.contracts.failures import GuardError
    from tasks.logic.curation import templated_share

    def rows(cut, agreed):
        made = [SimpleNamespace(qid=f"c{place}", provenance="template", outcome="cut") for place in range(cut)]
        return made + [SimpleNamespace(qid=f"a{place}", provenance="agreed", outcome="ok") for place in range(agreed)]

    assert templated_share(rows(1, 3)) == 0.25
    assert templated_share([]) == 0.0
    with pytest.raises(GuardError, match=r"3 of 4 questions .*max_tokens"):
        templated_share(rows(3, 1))
