"""Pairs, rulings and evidence of the judge, against judges whose behaviour is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.asks import Answer, Ask
from tasks.contracts.failures import DataError
from tasks.contracts.recipes import Judge
from tasks.contracts.rows import Judgement, Outcome, Prediction
from tasks.logic.benchmarks.judge_talk import SET_MARKS
from tasks.logic.judging import (
    FEWEST_PAIRS,
    Contest,
    Report,
    contests,
    judge_asks,
    judge_counts,
    judge_report,
    judgements,
    net_at_equal_length,
    preference_problem,
)
from tests.logic.rows_of import BENCHMARK, prediction, questions

RECIPE = Judge(kind="openai", model="gpt-4", questions=0, max_tokens=200, labels=None)
WINNERS = ("new", "old", "tie", "unparsed")


def contest(number: int, *, new: Sequence[str] = ("When was it built?",), old: Sequence[str] = ("Who is it?",)) -> Contest:
    return Contest(qid=f"q{number}", question="Is it older?", new=tuple(new), old=tuple(old))


def answer(ask: Ask, text: str, *, outcome: str = Outcome.OK) -> Answer:
    return Answer(ask=ask, outcome=outcome, text=text, model="gpt-4-0613", attempts=1, note="")


def ruled(pairs: Sequence[Contest], rule: Callable[[Ask, int], str]) -> list[Judgement]:
    """What becomes of pairs when every ask, numbered, is answered by `rule`."""
    asks = judge_asks(pairs, recipe=RECIPE, benchmark=BENCHMARK)
    return judgements(pairs, [answer(ask, rule(ask, number)) for number, ask in enumerate(asks)], benchmark=BENCHMARK)


def report(rows: Sequence[Judgement], *, recipe: Judge = RECIPE, teacher: str = "another", labels: dict[str, str] | None = None, seed: int = 0) -> Report:
    return judge_report(rows, recipe=recipe, teacher=teacher, labels=labels or {}, benchmark=BENCHMARK, resamples=2000, seed=seed)


def judgement(number: int, first: str, second: str, *, longer: int = 0) -> Judgement:
    winner = "unparsed" if "unparsed" in (first, second) else first if first == second else "tie"
    return Judgement(qid=f"q{number}", question="Is it?", new=("a " * (5 + longer),), old=("b " * 5,), first=first, second=second, winner=winner, judge="j")


def outcome(wins: int, losses: int, ties: int) -> list[Judgement]:
    winners = ["new"] * wins + ["old"] * losses + ["tie"] * ties
    return [judgement(number, winner, winner) for number, winner in enumerate(winners)]


def chain(row: Prediction, *asked: str) -> Prediction:
    return replace(row, text="\n".join(["Clarifying questions:", *asked, "Answers:", "1945.", "Reasoning: So it is.", "Final answer: Yes"]))


def test_pairs_are_the_questions_of_chains_that_both_models_wrote_under_one_arm() -> None:
    rows = questions(4)
    new = [chain(prediction(row, model="aligned", arm="reasoning", verdict="yes"), "When?", "Who? The answer is yes.") for row in rows[:3]]
    old = [chain(prediction(row, model="track_b", arm="reasoning", verdict="yes"), "Where?") for row in reversed(rows[1:])]
    old += [chain(prediction(row, model="track_b", arm="rewrite", verdict="yes"), "Wrong arm?") for row in rows]
    pairs = contests(new, old, arm="reasoning", size=0, benchmark=BENCHMARK)
    assert [(pair.qid, pair.new, pair.old) for pair in pairs] == [(row.qid, ("When?", "Who?"), ("Where?",)) for row in rows[1:3]]
    assert len(contests(new, old, arm="reasoning", size=1, benchmark=BENCHMARK)) == 1
    with pytest.raises(DataError, match="nothing to compare"):
        contests(new, [], arm="reasoning", size=0, benchmark=BENCHMARK)


def test_equal_sets_tie_and_silence_loses_without_a_call_and_both_are_counted() -> None:
    pairs = [contest(0, new=("A?", "b?"), old=("B?", "a?")), contest(1, new=(), old=()), contest(2, new=()), contest(3, old=()), contest(4)]
    asks = judge_asks(pairs, recipe=RECIPE, benchmark=BENCHMARK)
    assert [ask.qid for ask in asks] == ["q4", "q4"]
    assert [row.winner for row in ruled(pairs, lambda _, number: f"winner: {1 + number}")] == ["tie", "tie", "old", "new", "new"]
    assert judge_counts(pairs) == {"asked": 1, "equal": 1, "neither_asked": 1, "new_asked_nothing": 1, "old_asked_nothing": 1}


def test_both_orders_are_asked_in_prompts_of_their_own() -> None:
    one, other = judge_asks([contest(0)], recipe=RECIPE, benchmark=BENCHMARK)
    lines, turned = (ask.messages[1]["content"].split("\n") for ask in (one, other))
    assert [line.removeprefix(mark) for line, mark in zip(lines[1:], SET_MARKS, strict=True)] == [
        line.removeprefix(mark) for line, mark in zip(turned[:0:-1], reversed(SET_MARKS), strict=True)
    ]
    assert one.messages[0] == other.messages[0]
    assert one.schema is None
    with_schema = judge_asks([contest(0)], recipe=RECIPE.model_copy(update={"model": "gpt-4o"}), benchmark=BENCHMARK)
    assert all(ask.schema == BENCHMARK.judge_schema for ask in with_schema)


@pytest.mark.parametrize(
    ("texts", "row"),
    [
        (("winner: 1", "winner: 2"), ("new", "new", "new")),
        (("winner: 2", "winner: 1"), ("old", "old", "old")),
        (("winner: 1", "winner: 1"), ("new", "old", "tie")),
        (("winner: 2", "winner: 2"), ("old", "new", "tie")),
        (("winner: tie", "winner: 2"), ("tie", "new", "tie")),
        (("winner: tie", "winner: tie"), ("tie", "tie", "tie")),
        (("who knows", "winner: 2"), ("unparsed", "new", "unparsed")),
    ],
)
def test_a_pair_is_won_only_in_both_orders(texts: tuple[str, str], row: tuple[str, str, str]) -> None:
    (made,) = ruled([contest(0)], lambda _, number: texts[number])
    assert (made.first, made.second, made.winner) == row
    assert made.judge == "gpt-4-0613"


@pytest.mark.parametrize("lost", [Outcome.CUT, Outcome.REFUSED, Outcome.FAILED])
def test_a_reply_that_was_cut_or_never_came_is_no_ruling(lost: str) -> None:
    pairs = [contest(0)]
    asks = judge_asks(pairs, recipe=RECIPE, benchmark=BENCHMARK)
    (row,) = judgements(pairs, [answer(asks[0], "winner: 1", outcome=lost), answer(asks[1], "winner: 2")], benchmark=BENCHMARK)
    assert row.winner == "unparsed"
    assert preference_problem(BENCHMARK)("winner: 1") is None
    assert preference_problem(BENCHMARK)("hm") is not None


def test_models_that_ask_the_same_are_told_apart_by_nobody_and_a_note_says_so() -> None:
    made = report(ruled([contest(number, new=("A?",), old=("a?",)) for number in range(150)], lambda *_: "winner: 1"))
    assert (made.evidence.ties, made.evidence.net, made.evidence.verdict) == (150, 0.0, "fail")  # ten points are ruled out
    assert made.evidence.judge.startswith("nobody")
    assert any("on 150 of 150 pairs both models asked the same" in note for note in made.notes)


@given(st.lists(st.tuples(st.sampled_from(WINNERS), st.sampled_from(WINNERS), st.integers(-4, 4)), min_size=1, max_size=60), st.integers(0, 5))
@settings(deadline=None)
def test_swapping_new_and_old_turns_every_figure_round(rulings: list[tuple[str, str, int]], seed: int) -> None:
    rows = [judgement(number, first, second, longer=longer) for number, (first, second, longer) in enumerate(rulings)]
    swap = {"new": "old", "old": "new", "tie": "tie", "unparsed": "unparsed"}
    turned = [replace(row, new=row.old, old=row.new, first=swap[row.second], second=swap[row.first], winner=swap[row.winner]) for row in rows]
    one, other = report(rows, seed=seed).evidence, report(turned, seed=seed).evidence
    assert (one.wins, one.losses, one.ties, one.unparsed) == (other.losses, other.wins, other.ties, other.unparsed)
    assert one.net == -other.net
    assert one.inconsistent == other.inconsistent
    assert one.words == pytest.approx(-other.words)
    assert one.net_at_equal_length == pytest.approx(-other.net_at_equal_length, abs=1e-5)
    assert all(math.isfinite(value) for value in vars(one).values() if isinstance(value, float))
    assert one.n + one.unparsed == len(rows)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (outcome(200, 100, 100), "pass"),
        (outcome(100, 200, 100), "fail"),
        (outcome(0, 0, 400), "fail"),
        (outcome(160, 140, 100), "underpowered"),  # net 0.05, interval -0.03 to 0.13
        (outcome(55, 40, 25), "underpowered"),  # net 0.125, interval below 0 at one end
        (outcome(20, 0, 0), "underpowered"),
        (outcome(0, 20, 0), "underpowered"),
        (outcome(FEWEST_PAIRS - 1, 0, 0), "underpowered"),
        (outcome(FEWEST_PAIRS, 0, 0), "pass"),
    ],
)
def test_the_verdict_wants_a_net_of_ten_points_and_enough_pairs(rows: list[Judgement], verdict: str) -> None:
    assert report(rows).evidence.verdict == verdict


def test_a_judge_that_reads_only_the_order_is_unusable_and_decides_nothing() -> None:
    made = report(ruled([contest(number) for number in range(150)], lambda *_: "winner: 1"))
    assert (made.evidence.inconsistent, made.evidence.usable, made.evidence.verdict, made.evidence.ties) == (1.0, False, "underpowered", 150)
    assert "too often" in made.notes[0]


def test_a_judge_that_cannot_be_read_decides_nothing_either() -> None:
    made = report(ruled([contest(number) for number in range(150)], lambda *_: "both are fine"))
    assert (made.evidence.n, made.evidence.unparsed, made.evidence.usable, made.evidence.verdict) == (0, 150, False, "underpowered")
    assert (made.evidence.ci_low, made.evidence.ci_high) == (-1.0, 1.0)


def test_a_judge_without_a_preference_passes_hardly_ever() -> None:
    passes = 0
    for trial in range(400):
        luck = random.Random(trial)
        winners = [luck.choices(("new", "old", "tie"), weights=(35, 35, 30))[0] for _ in range(200)]
        rows = [judgement(number, winner, winner) for number, winner in enumerate(winners)]
        passes += judge_report(rows, recipe=RECIPE, teacher="t", labels={}, benchmark=BENCHMARK, resamples=500, seed=trial).evidence.verdict == "pass"
    assert passes <= 20  # 5 %; 2.5 % are to be expected of a two-sided interval


def lengthy(*, effect: float, skill: float, n: int = 600) -> tuple[list[str], np.ndarray]:
    generator = np.random.default_rng(0)
    longer = generator.normal(4.0, 4.0, size=n).round()
    chance = 1 / (1 + np.exp(-(skill + effect * longer)))
    return ["new" if draw < each else "old" for draw, each in zip(generator.random(n), chance, strict=True)], longer


def test_a_judge_that_likes_length_alone_finds_no_net_at_equal_length() -> None:
    winners, longer = lengthy(effect=0.4, skill=0.0)
    assert winners.count("new") / len(winners) > 0.7
    found = net_at_equal_length(winners, longer)
    assert found is not None
    assert abs(found) < 0.12


def test_a_preference_for_quality_is_left_at_equal_length() -> None:
    winners, longer = lengthy(effect=0.0, skill=1.0)
    found = net_at_equal_length(winners, longer)
    assert found == pytest.approx(2 / (1 + math.exp(-1.0)) - 1, abs=0.12)
    halved = net_at_equal_length(["tie"] * len(winners) + winners, np.concatenate([longer, longer]))
    assert halved == pytest.approx(found / 2)


@pytest.mark.parametrize(
    ("winners", "longer"),
    [
        ([], []),
        (["tie"] * 50, range(50)),
        (["new"] * 50, range(50)),
        (["new", "old"] * 4, range(8)),
        (["new", "old"] * 30, [3] * 60),
        (["new"] * 30 + ["old"] * 30, range(60)),  # lengths tell the winners apart
    ],
)
def test_where_nothing_can_be_fitted_the_plain_net_stands_and_a_note_says_so(winners: list[str], longer: Sequence[int]) -> None:
    assert net_at_equal_length(winners, np.array(longer, dtype=np.float64)) is None
    made = report([judgement(number, each, each, longer=number % 4) for number, each in enumerate(winners[:8] or ["tie"])])
    assert made.evidence.net_at_equal_length == made.evidence.net
    assert any("plain net" in note for note in made.notes)


def test_a_persons_labels_are_scored_on_what_the_judge_ruled() -> None:
    rows = outcome(10, 10, 10)
    agreed = report(rows, labels={row.qid: row.winner for row in rows[:20]}).evidence
    assert (agreed.human_n, agreed.kappa) == (20, pytest.approx(1.0))
    swap = {"new": "old", "old": "new", "tie": "tie"}
    assert (report(rows, labels={row.qid: swap[row.winner] for row in rows[:20]}).evidence.kappa or 0) == pytest.approx(-1.0)
    none = report(rows).evidence
    assert (none.human_n, none.kappa, none.kappa_low, none.kappa_high) == (0, None, None, None)


def test_the_evidence_names_judge_and_prompt_and_the_notes_what_to_beware_of() -> None:
    rows = [replace(row, judge=f"gpt-4-061{index % 2}") for index, row in enumerate(outcome(2, 1, 1))]
    made = report(rows, teacher="gpt-4")
    assert made.evidence.judge == "gpt-4-0610, gpt-4-0611"
    assert made.evidence.prompt != report(rows, recipe=RECIPE.model_copy(update={"model": "gpt-4o"})).evidence.prompt
    assert any("own model (gpt-4)" in note for note in made.notes)
    simulated = report(rows, recipe=RECIPE.model_copy(update={"kind": "simulated"}))
    assert any("nothing about the students" in note for note in simulated.notes)
