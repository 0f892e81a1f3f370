"""Which questions are asked about: by the student's own doubt, never by gold."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.rows import Completion, Drafted
from tasks.logic.selection import DRAFTS, chosen, selection_counts, selection_requests, usefulness
from tests.logic.rows_of import BENCHMARK, drafted, questions

ROWS = [drafted(question) for question in questions(24)]
SHARES = st.floats(0.01, 1.0)
SCORES = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=24, max_size=24).map(lambda drawn: dict(zip((row.qid for row in ROWS), drawn, strict=True)))


def qids(rows: list[Drafted]) -> list[str]:
    return [row.qid for row in rows]


@given(SCORES | st.just({}), SHARES, SHARES, st.integers(0, 9))
def test_a_smaller_share_is_part_of_a_larger_one_in_the_order_of_the_table(scores: dict[str, float], one: float, other: float, seed: int) -> None:
    few, many = (chosen(ROWS, scores, share=share, seed=seed) for share in sorted((one, other)))
    assert set(qids(few)) <= set(qids(many))
    assert len(many) == max(1, round(max(one, other) * 24))
    assert qids(many) == [qid for qid in qids(ROWS) if qid in set(qids(many))]


@given(SCORES | st.just({}), SHARES, st.permutations(["yes", "no"] * 12))
def test_gold_is_never_looked_at(scores: dict[str, float], share: float, answers: list[str]) -> None:
    other = [replace(row, answer=answer) for row, answer in zip(ROWS, answers, strict=True)]
    assert qids(chosen(other, scores, share=share, seed=0)) == qids(chosen(ROWS, scores, share=share, seed=0))


@given(SCORES, SHARES)
def test_nobody_left_out_scores_more_than_anybody_chosen(scores: dict[str, float], share: float) -> None:
    kept = set(qids(chosen(ROWS, scores, share=share, seed=0)))
    left = set(scores) - kept
    assert not left or min(scores[qid] for qid in kept) >= max(scores[qid] for qid in left)


def test_another_seed_chooses_others_at_random() -> None:
    assert qids(chosen(ROWS, {}, share=0.5, seed=0)) != qids(chosen(ROWS, {}, share=0.5, seed=1))


def completion(qid: str, *, text: str = "", sample: int = 0, margin: float = math.nan) -> Completion:
    return Completion(qid=qid, arm="draft", sample=sample, text=text, tokens=1, cut=False, margin=margin)


def test_uncertain_is_a_small_margin_either_way() -> None:
    scores = usefulness(
        [completion("sure yes", margin=4.0), completion("torn", margin=-0.1), completion("sure no", margin=-3.0)], how="uncertain", benchmark=BENCHMARK
    )
    assert sorted(scores, key=scores.__getitem__) == ["sure yes", "sure no", "torn"]


def test_disagreement_is_the_entropy_of_the_verdicts_and_none_is_a_verdict_too() -> None:
    said = {"one mind": ["Answer: Yes"] * 4, "two minds": ["Answer: Yes", "Answer: No"] * 2, "three": ["Answer: Yes", "Answer: No", "Hm.", "Answer: Yes"]}
    completions = [completion(qid, text=text, sample=sample) for qid, texts in said.items() for sample, text in enumerate(texts)]
    scores = usefulness(completions, how="disagreement", benchmark=BENCHMARK)
    assert scores == pytest.approx({"one mind": 0.0, "two minds": math.log(2), "three": 1.5 * math.log(2)})


def test_the_student_is_asked_only_what_the_way_needs() -> None:
    assert selection_requests(ROWS, how="random", benchmark=BENCHMARK) == []
    direct = selection_requests(ROWS, how="uncertain", benchmark=BENCHMARK)
    assert [(each.qid, each.sample) for each in direct] == [(qid, 0) for qid in qids(ROWS)]
    assert all(each.yes_choices for each in direct)
    drafts = selection_requests(ROWS, how="disagreement", benchmark=BENCHMARK)
    assert [(each.qid, each.sample) for each in drafts] == [(qid, sample) for qid in qids(ROWS) for sample in range(DRAFTS)]
    assert not any(each.yes_choices for each in drafts)


def test_the_figures_show_both_classes_on_both_sides() -> None:
    scores = {row.qid: float(place) for place, row in enumerate(ROWS)}
    kept = chosen(ROWS, scores, share=0.25, seed=0)
    counts = selection_counts(ROWS, kept, scores)
    assert counts["scores"] == {"min": 0.0, "lower_quartile": 5.75, "median": 11.5, "upper_quartile": 17.25, "max": 23.0}
    assert {answer: counts["chosen"].get(answer, 0) + counts["left"].get(answer, 0) for answer in ("yes", "no")} == {"yes": 12, "no": 12}  # type: ignore[attr-defined]
    assert sum(counts["chosen"].values()) == 6  # type: ignore[attr-defined]
