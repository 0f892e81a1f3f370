"""When the loop goes on, and why it ends."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.loops import round_label
from tasks.contracts.profiles import load_profile
from tasks.contracts.recipes import Recipe, Stop
from tasks.contracts.rounds import Round
from tasks.logic.loops import best_before, best_round, lineage, made_up, next_turn, pair_yield, stop_reason

STOP = Stop(max_rounds=6, rejections=2, flat_rounds=2, min_pair_yield=0.3)
PLAIN = {str: "", int: 0, float: math.nan, "str": "", "int": 0, "float": math.nan, "tuple[str, ...]": ()}


def recipe() -> Recipe:
    return load_profile("demo", folder=Path("deployments/profiles"), overrides={}).recipe


def a_round(number: int, verdict: str, **values: Any) -> Round:
    plain = {field.name: PLAIN[str(field.type)] for field in fields(Round)}
    gained = {
        "accuracy": 0.5,
        "gain": 0.0,
        "gain_p": 1.0,
        "questions": 100,
        "pairs": 50,
        "minutes": 10.0,
        "started_at": f"2026-01-0{number}T02:00:00.000+00:00",
    }
    return Round(**{**plain, **gained, "number": number, "verdict": verdict, **values})


START = a_round(0, "start", minutes=0.0)


def gained(number: int, **values: Any) -> Round:
    return a_round(number, "accepted", gain=0.05, gain_p=0.01, accuracy=0.5 + number / 20, **values)


def why(*rounds: Round, since: int = 0, total_minutes: float | None = None) -> str:
    return stop_reason([START, *rounds], since=since, recipe=STOP, total_minutes=total_minutes)


def test_it_goes_on_while_students_gain() -> None:
    assert why() == ""
    assert why(*(gained(number) for number in range(1, 6))) == ""


@pytest.mark.parametrize(
    ("rounds", "reason"),
    [
        ([gained(1), a_round(2, "reverted"), a_round(3, "reverted")], "2 rounds in a row reverted"),
        ([gained(1), a_round(2, "accepted"), a_round(3, "accepted")], "no significant gain in 2 rounds accepted"),
        ([a_round(1, "accepted"), a_round(2, "reverted"), a_round(3, "accepted")], "no significant gain in 2 rounds accepted"),
        ([gained(1), gained(2, pairs=14)], "0.14 pairs a question, less than 30% of the first round's 0.50"),
        ([gained(1), gained(2, pairs=20, replayed=6)], "0.14 pairs a question, less than 30% of the first round's 0.50"),
        ([gained(number) for number in range(1, 7)], "6 rounds made, as many as recipe.loop.stop.max_rounds allows"),
    ],
)
def test_it_ends_for_the_reason_that_it_names(rounds: list[Round], reason: str) -> None:
    assert why(*rounds) == reason
    assert why(*rounds[:-1]) == ""


def test_rejections_that_do_not_follow_one_another_are_no_reason() -> None:
    assert why(a_round(1, "reverted"), gained(2), a_round(3, "reverted"), gained(4)) == ""


def test_a_round_that_was_given_up_counts_as_reverted_and_not_as_short_of_pairs() -> None:
    given_up = {"questions": 0, "pairs": 0}
    assert why(gained(1), a_round(2, "reverted", **given_up)) == ""
    assert why(a_round(1, "reverted", **given_up), gained(2)) == ""
    assert why(gained(1), a_round(2, "reverted", **given_up), a_round(3, "reverted", **given_up)) == "2 rounds in a row reverted"


def test_a_fall_that_is_significant_is_no_gain() -> None:
    assert why(a_round(1, "accepted", gain=-0.05, gain_p=0.01), a_round(2, "accepted", gain=0.01, gain_p=0.6)).startswith("no significant gain")


def test_minutes_of_all_rounds_count_towards_the_budget() -> None:
    assert why(gained(1), gained(2), total_minutes=20.1) == ""
    assert why(gained(1), gained(2), total_minutes=20) == "20 minutes used of 20 (execution.loop.total_minutes)"


def test_a_person_who_moved_the_pointer_starts_the_count_again() -> None:
    reverted = [a_round(1, "reverted"), a_round(2, "reverted")]
    assert why(*reverted)
    assert why(*reverted, since=2) == ""
    assert why(*reverted, a_round(3, "reverted"), since=2) == ""


def test_each_round_draws_anew_and_learns_more_slowly_after_each_accepted_one() -> None:
    given_recipe = recipe()
    rounds = [START]
    seeds, rates = [], []
    for number, verdict in enumerate(["accepted", "reverted", "accepted"], start=1):
        turn = next_turn(rounds, recipe=given_recipe.loop, align=given_recipe.align, seed=7)
        seeds.append(turn.seed)
        rates.append(turn.align.learning_rate / given_recipe.loop.learning_rate)
        assert turn.number == number
        assert turn.align.phases == (given_recipe.loop.phase,)
        rounds.append(a_round(number, verdict))
    assert seeds == [8, 9, 10]
    assert rates == [1.0, 0.5, 0.5]


def test_of_many_missed_firings_one_is_made_up() -> None:
    missed = [f"2026-01-0{day}T02:00:00.000+00:00" for day in (1, 2, 3)]
    rounds = [START]
    made = 0
    for due in missed:
        if not made_up(due, rounds):
            made += 1
            rounds.append(a_round(made, "accepted", started_at=f"2026-01-05T0{made}:00:00.000+00:00"))
    assert made == 1
    assert not made_up("2026-01-06T02:00:00.000+00:00", rounds)


@given(st.lists(st.tuples(st.sampled_from(["accepted", "reverted", "taken back"]), st.integers(0, 20)), max_size=8))
def test_the_best_of_a_line_was_kept_and_nothing_kept_beats_it(made: list[tuple[str, int]]) -> None:
    rounds, kept = [replace(START, parent="start", accuracy=0.5)], [0]
    for number, (fate, right) in enumerate(made, start=1):
        verdict = "reverted" if fate == "reverted" else "accepted"
        rounds.append(replace(a_round(1, verdict, accuracy=right / 20), number=number, parent=round_label(kept[-1])))
        kept += [number] if fate == "accepted" else []
    descended = lineage(rounds, round_label(kept[-1]))
    assert [each.number for each in descended] == kept[::-1]
    best = best_round(descended)
    assert best.accuracy == max(rounds[number].accuracy for number in kept)
    assert best.number == min(number for number in kept if rounds[number].accuracy == best.accuracy)


def test_the_bar_is_the_best_of_the_line_whatever_was_taken_back() -> None:
    rounds = [replace(START, parent="start", accuracy=0.94), gained(1, parent="start"), replace(gained(2, parent="round 1"), accuracy=0.97, gain=0.02)]
    rounds[1] = replace(rounds[1], accuracy=0.95, gain=0.01)
    assert best_before(rounds, parent="round 2", accuracy=0.97) == 0.97
    assert best_before(rounds, parent="round 1", accuracy=0.95) == 0.95  # round 2 was taken back
    assert best_before(rounds, parent="demo-20260101T000000Z", accuracy=0.9) == 0.9


def test_a_promoted_run_is_remembered_by_the_rounds_that_follow_it() -> None:
    rounds = [replace(START, parent="start", accuracy=0.94), replace(gained(5), parent="demo-20260101T000000Z", accuracy=0.96, gain=-0.01)]
    assert best_before(rounds, parent="round 5", accuracy=0.96) == pytest.approx(0.97)


def test_a_loop_does_not_settle_on_what_the_gate_reverted() -> None:
    promoted = replace(a_round(3, "reverted"), parent="start", accuracy=0.97)
    rounds = [replace(START, parent="start", accuracy=0.94), promoted, replace(gained(4), parent="round 3", accuracy=0.965)]
    assert best_round(lineage(rounds, "round 4")).number == 4


def test_a_promoted_run_descends_from_no_round() -> None:
    rounds = [replace(START, parent="start"), gained(1, parent="start"), gained(2, parent="demo-20260101T000000Z")]
    assert lineage(rounds, "demo-20260101T000000Z") == []
    assert [each.number for each in lineage(rounds, "round 2")] == [2]


def test_replayed_pairs_are_no_yield() -> None:
    assert pair_yield(a_round(1, "accepted", pairs=40, replayed=10, questions=60)) == 0.5
