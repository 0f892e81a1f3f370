from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.recipes import PairRecipe
from tasks.contracts.rows import Curated, Pair
from tasks.logic.pairs import balance_chosen, build_pairs, pair_questions, with_disagreement, without_drafts
from tests.logic.rows_of import BENCHMARK, completion, curated, questions, taught

RECIPE = PairRecipe(arms=("reasoning",), samples=2, temperature=0.8, max_new_tokens=99, max_length_ratio=1.3, per_question=1)


def chain(row: Curated, *, verdict: str, fact: str | None = None) -> str:
    answered = (fact, *row.answered[1:]) if fact else row.answered
    return BENCHMARK.completion(asked=row.asked, answered=answered, reasoning=row.reasoning, answer=verdict)


def wrong(row: Curated) -> str:
    return "no" if row.answer == "yes" else "yes"


def both_classes() -> list[Curated]:
    rows = [curated(row, role="pair") for row in questions(12)]
    return [next(row for row in rows if row.answer == answer) for answer in ("yes", "no")]


def build(rows: list[Curated], texts: dict[str, list[str]], **changes: object):
    completions = [completion(row, text, sample=index) for row in rows for index, text in enumerate(texts[row.qid])]
    return build_pairs(rows, completions, recipe=RECIPE.model_copy(update=changes), benchmark=BENCHMARK, seed=0)


def test_an_own_chain_with_the_teachers_facts_is_chosen() -> None:
    rows = both_classes()
    made = build(rows, {row.qid: [chain(row, verdict=row.answer), chain(row, verdict=wrong(row))] for row in rows})
    assert [(pair.chosen_source, pair.chosen, pair.rejected) for pair in made.pairs] == [
        ("own", chain(row, verdict=row.answer), chain(row, verdict=wrong(row))) for row in rows
    ]


def test_a_right_verdict_from_wrong_facts_is_no_example_to_follow() -> None:
    rows = both_classes()
    made = build(rows, {row.qid: [chain(row, verdict=row.answer, fact="It was so in 1999."), chain(row, verdict=wrong(row))] for row in rows})
    assert {pair.chosen_source for pair in made.pairs} == {"teacher"}
    assert [pair.chosen for pair in made.pairs] == [chain(row, verdict=row.answer) for row in rows]


def test_without_a_wrong_sample_there_is_no_pair_and_unparsed_ones_are_counted() -> None:
    rows = both_classes()
    made = build(rows, {row.qid: [chain(row, verdict=row.answer), "I do not know"] for row in rows})
    assert made.pairs == []
    assert made.turned_away["own sample without a verdict"] == 2


def test_lengths_must_be_alike() -> None:
    rows = both_classes()
    made = build(rows, {row.qid: [f"Final answer: {wrong(row).capitalize()}"] for row in rows})
    assert made.pairs == []
    assert made.turned_away["lengths too far apart"] == 2


@given(st.lists(st.sampled_from(["yes", "no"]), max_size=30), st.integers(0, 9))
def test_chosen_classes_are_balanced(answers: list[str], seed: int) -> None:
    template = build(rows := both_classes(), {row.qid: [chain(row, verdict=wrong(row))] for row in rows}).pairs[0]
    pairs = [replace(template, qid=str(index), answer=answer) for index, answer in enumerate(answers)]
    kept = balance_chosen(pairs, seed=seed)
    counts = [sum(pair.answer == answer for pair in kept) for answer in ("yes", "no")]
    assert counts == [min(answers.count("yes"), answers.count("no"))] * 2
    assert [pair.qid for pair in kept] == sorted((pair.qid for pair in kept), key=int)


def test_questions_held_out_of_sft_are_sampled_and_all_where_none_is() -> None:
    rows = [curated(row, role="pair" if index < 2 else "sft") for index, row in enumerate(questions(6))]
    assert [row.qid for row in pair_questions(rows)] == [row.qid for row in rows[:2]]
    assert len(pair_questions([replace(row, role="sft") for row in rows])) == 6


@pytest.mark.parametrize("role", ["sft", "pair"])
def test_where_nobody_asked_there_is_no_teacher_text_to_pair(role: str) -> None:
    asked, unasked = both_classes()
    rows = [replace(asked, role=role), replace(unasked, role="pair", provenance="unasked", reasoning="", asked=(), answered=())]
    assert [row.qid for row in pair_questions(rows)] == [asked.qid]


def test_a_pair_that_teacher_and_reference_doubt_is_the_more_suspicious() -> None:
    rows = both_classes()
    pairs = build(rows, {row.qid: [chain(row, verdict=wrong(row))] for row in rows}).pairs
    sure, doubtful = pairs
    scored = with_disagreement(
        [replace(sure, reference_chosen=-1.0, reference_rejected=-50.0), replace(doubtful, reference_chosen=-50.0, reference_rejected=-1.0)],
        [taught(rows[0]), taught(rows[0], sample=1), taught(rows[1]), taught(rows[1], verdict=wrong(rows[1]), sample=1)],
    )
    assert [pair.disagreement for pair in scored] == [0.0, 1.0]


def test_disagreement_stays_between_zero_and_one() -> None:
    rows = both_classes()
    pairs: list[Pair] = build(rows, {row.qid: [chain(row, verdict=wrong(row))] for row in rows}).pairs
    assert all(0.0 <= pair.disagreement <= 1.0 for pair in with_disagreement(pairs, []))


def test_a_twins_pairs_differ_in_the_prompts_that_showed_a_draft_and_in_nothing_else() -> None:
    rows = [replace(row, draft="Answer: Yes, surely") for row in both_classes()]
    said = [completion(row, chain(row, verdict=wrong(row)), arm=arm) for arm in ("rewrite", "reasoning") for row in rows]
    pairs = sorted(build_pairs(rows, said, recipe=RECIPE, benchmark=BENCHMARK, seed=0).pairs, key=lambda pair: pair.arm, reverse=True)
    bare = without_drafts(pairs, rows, benchmark=BENCHMARK)
    assert ["surely" in pair.prompt for pair in pairs] == [True, True, False, False]
    assert not any("draft" in pair.prompt for pair in bare)
    assert [pair.arm for pair in bare] == ["no_draft", "no_draft", "reasoning", "reasoning"]
    assert [replace(pair, arm="", prompt="") for pair in bare] == [replace(pair, arm="", prompt="") for pair in pairs]
    assert bare[2:] == pairs[2:]
