"""Changed drafts: shuffled ones are a matched derangement, the others say what their arm says and nothing more."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.failures import DataError
from tasks.contracts.profiles import load_profile
from tasks.contracts.readings import TWIN, kind_of, readings, twin_exam_arm
from tasks.contracts.rows import Arm, Drafted, Verdict
from tasks.logic.ablations import ablated, shuffled
from tasks.logic.asking import exams, greedy_requests
from tests.contracts.test_profiles import PROFILES
from tests.logic.rows_of import BENCHMARK, drafted, questions

(ONE,) = questions(1)
VALIDATE = load_profile("validate", folder=PROFILES, overrides={}).recipe
DRAFTS = st.lists(st.tuples(st.sampled_from(list(Verdict)), st.integers(0, 30)), min_size=2, max_size=60)


def rows_of(drafts: list[tuple[Verdict, int]]) -> list[Drafted]:
    """One row a draft, each draft with words of its own."""
    return [
        replace(drafted(ONE, draft=" ".join([f"d{place}"] + ["word"] * length), verdict=verdict, asked=(f"Is it {place}?",)), qid=f"q{place}")
        for place, (verdict, length) in enumerate(drafts)
    ]


@given(DRAFTS, st.integers(0, 9))
def test_a_shuffle_is_a_derangement_that_loses_no_draft_and_matches_the_verdict_where_it_can(drafts, seed) -> None:
    rows = rows_of(drafts)
    made, unmatched = shuffled(rows, seed=seed)
    assert [row.qid for row in made] == [row.qid for row in rows]
    assert not any(after.draft == row.draft for row, after in zip(rows, made, strict=True))
    assert Counter((row.draft, row.draft_verdict, row.draft_questions) for row in made) == Counter(
        (row.draft, row.draft_verdict, row.draft_questions) for row in rows
    )
    counts = Counter(row.draft_verdict for row in rows)
    alone = [verdict for verdict, count in counts.items() if count == 1]
    differ = [row for row, after in zip(rows, made, strict=True) if after.draft_verdict != row.draft_verdict]
    assert len(differ) == unmatched.get("other verdict", 0) == (2 if len(alone) == 1 else len(alone))
    if len(alone) != 1:
        assert {row.draft_verdict for row in differ} == set(alone)
    assert (made, unmatched) == shuffled(rows, seed=seed)


@given(st.integers(0, 50))
def test_shuffled_drafts_are_nearly_as_long(seed) -> None:
    rows = rows_of([(Verdict.YES, length) for length in range(10, 210)])
    made, unmatched = shuffled(rows, seed=seed)
    assert max(abs(len(row.draft) - len(after.draft)) for row, after in zip(rows, made, strict=True)) <= 5 * 8  # 8 neighbours of "word "
    assert unmatched.get("other length", 0) < 20


def test_shuffles_differ_and_what_could_not_be_matched_is_counted() -> None:
    rows = rows_of([(Verdict.YES, 5)] * 40)
    texts = {tuple(row.draft for row in ablated(rows, arm=f"shuffled_draft_{number}", benchmark=BENCHMARK, seed=0).rows) for number in range(1, 6)}
    assert len(texts) == 5
    same = [replace(row, draft="all alike") for row in rows]
    assert ablated(same, arm="shuffled_draft_1", benchmark=BENCHMARK, seed=0).unmatched == {"same text": 40}
    _, unmatched = shuffled(rows_of([(Verdict.YES, 1), (Verdict.YES, 2), (Verdict.NO, 30)]), seed=0)
    assert unmatched == {"other verdict": 2, "other length": 2} or unmatched == {"other verdict": 2, "other length": 3}


def test_a_shuffled_draft_tells_nothing_of_the_own_one() -> None:
    rows = [replace(row, draft=f"clue {place % 2}") for place, row in enumerate(rows_of([(Verdict.NO, 0)] * 400))]
    kept = [
        unmatched["same text"] for number in range(5) for unmatched in [ablated(rows, arm=f"shuffled_draft_{number}", benchmark=BENCHMARK, seed=0).unmatched]
    ]
    assert sum(kept) / 5 == pytest.approx(200, abs=40)  # block by block a little under half: a question's own draft is not among the donors


def test_one_question_has_nobody_to_swap_with() -> None:
    with pytest.raises(DataError, match="at least 2"):
        shuffled(rows_of([(Verdict.YES, 3)]), seed=0)


@given(st.text(), st.booleans())
def test_neutral_text_has_as_many_words_and_says_nothing(draft, padded) -> None:
    row = drafted(ONE, draft=draft + " and more words" * padded)
    (made,) = ablated([row], arm=Arm.NEUTRAL_DRAFT, benchmark=BENCHMARK, seed=0).rows
    shown = BENCHMARK.prompt(Arm.REWRITE, made)
    assert len(shown.split()) == len(BENCHMARK.prompt(Arm.REWRITE, row).split())
    parsed = BENCHMARK.parse_draft(made.draft)
    assert (parsed.verdict, parsed.questions) == (Verdict.UNPARSED, ())


def test_questions_alone_have_no_verdict_and_the_verdict_alone_no_question() -> None:
    full = drafted(ONE, draft="Questions: When was it made? Who made it? Answer: No", verdict="no", asked=("When was it made?", "Who made it?"))
    rows = [full, replace(full, qid="q2", draft="Hm", draft_verdict="unparsed", draft_questions=())]
    asking, guessing = (ablated(rows, arm=arm, benchmark=BENCHMARK, seed=0) for arm in (Arm.DRAFT_QUESTIONS, Arm.DRAFT_VERDICT))
    assert [row.draft for row in asking.rows] == ["Questions: When was it made? Who made it?", ""]
    assert [row.draft for row in guessing.rows] == ["Answer: No", ""]
    assert (asking.unmatched, guessing.unmatched) == ({"draft without a question": 1}, {"draft without a verdict": 1})
    for made in (*asking.rows, *guessing.rows):
        assert BENCHMARK.parse_draft(made.draft) == type(BENCHMARK.parse_draft(""))(verdict=Verdict(made.draft_verdict), questions=made.draft_questions)


def test_without_a_draft_the_rewrite_prompt_lacks_one_line_and_nothing_else() -> None:
    row = drafted(ONE, draft="Answer: Yes")
    (full,), _ = greedy_requests([row], arm=Arm.REWRITE, benchmark=BENCHMARK, seed=0)
    (none,), _ = greedy_requests([row], arm=Arm.NO_DRAFT, benchmark=BENCHMARK, seed=0)
    assert none.prompt.splitlines() == [line for line in full.prompt.splitlines() if not line.startswith("Student draft:")]
    assert len(full.prompt.splitlines()) == len(none.prompt.splitlines()) + 1


def test_requests_carry_the_name_of_their_reading_and_other_arms_are_as_they_were() -> None:
    rows = [drafted(row) for row in questions(4)]
    for arm in ("direct", "reasoning", "rewrite", "no_draft", "shuffled_draft_2", "neutral_draft"):
        asked, _ = greedy_requests(rows, arm=arm, benchmark=BENCHMARK, seed=0)
        assert [(request.qid, request.arm) for request in asked] == [(row.qid, arm) for row in rows]
    assert kind_of("shuffled_draft_12") is Arm.SHUFFLED_DRAFT
    with pytest.raises(ValueError, match="shuffled_draft_x"):
        kind_of("shuffled_draft_x")


def test_the_aligned_model_reads_every_changed_draft_and_its_twin_reads_none() -> None:
    found = {each.model: each for each in readings(VALIDATE.grade, VALIDATE.ablate)}
    changed = {"rewrite", "no_draft", *(f"shuffled_draft_{number}" for number in range(1, 6)), "neutral_draft", "draft_questions", "draft_verdict"}
    assert {arm: size for arm, size in found["aligned"].arms.items() if arm in changed} == dict.fromkeys(changed, 200)
    assert found[TWIN].arms == {"no_draft": 200}
    plain = VALIDATE.ablate.model_copy(update={"arms": (), "matched": False})
    assert readings(VALIDATE.grade, plain) == [
        each._replace(arms={arm: size for arm, size in each.arms.items() if arm not in changed}) for each in found.values() if each.model != TWIN
    ]
    twin_only = {each.model: each.arms for each in readings(VALIDATE.grade, plain.model_copy(update={"matched": True}))}
    assert twin_only["aligned"]["rewrite"] == 200
    assert twin_only[TWIN] == {"no_draft": 200}


def test_the_twin_is_examined_as_it_is_trained() -> None:
    assert [twin_exam_arm(headline) for headline in ("direct", "reasoning", "rewrite", "soft")] == ["direct", "reasoning", "no_draft", "reasoning"]
    (exam,) = exams([drafted(ONE)], arm=Arm.NO_DRAFT, benchmark=BENCHMARK)
    assert exam.arm == "no_draft"
    assert "Student draft" not in exam.prompt
