"""How the simulated judge rules, asked over HTTP as any judge is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.contracts.execution import TokenPrice
from tasks.contracts.recipes import Judge
from tasks.gateways.kinds import judge_pace
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.gateways.simulated_server import SimulatedServer
from tasks.gateways.simulated_teacher import SimulatedTeacher
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.judging import Contest, judge_asks, judgements, preference_problem
from tests.gateways.bench import ask_for, questions
from tests.gateways.test_simulated_teacher import PACE

BENCHMARK = get_benchmark("pocketqa")
VAGUE = ("What is known?", "Is it so?")


def pairs(count, *, swapped=False):
    """Questions that name what is asked about against questions that name nothing."""
    drawn = [(question.qid, question.question, BENCHMARK.template_rationale(question).asked) for question in questions(count)]
    return [Contest(qid=qid, question=text, new=VAGUE if swapped else asked, old=asked if swapped else VAGUE) for qid, text, asked in drawn]


def recipe(model):
    return Judge(kind="simulated", model=model, questions=0, max_tokens=200, labels=None)


async def rulings(bench, contests, *, model="simulated-judge", teacher=None):
    bench.judge = preference_problem(BENCHMARK)
    asks = judge_asks(contests, recipe=recipe(model), benchmark=BENCHMARK)
    answers, usage = await bench.ask(asks, teacher=teacher or SimulatedTeacher(error_rate=0.0, no_bias=0.0, timeout_seconds=20.0, seed=0))
    return judgements(contests, answers, benchmark=BENCHMARK), usage


@pytest.mark.parametrize("model", ["simulated-judge", "gpt-4o"])  # lines, and JSON
async def test_questions_that_take_up_what_is_asked_win_whichever_model_wrote_them(bench, model):
    rows, usage = await rulings(bench, pairs(60), model=model)
    winners = [row.winner for row in rows]
    assert winners.count("new") > 45
    assert winners.count("unparsed") == 0
    assert usage.calls == 120
    swapped, _ = await rulings(bench, pairs(60, swapped=True), model=model)
    assert [row.winner for row in swapped].count("old") > 45


async def test_it_likes_the_first_set_a_little_and_is_the_same_every_time(bench, tmp_path):
    rows, _ = await rulings(bench, pairs(100))
    moved = sum(row.first != row.second for row in rows)
    assert 1 <= moved <= 25
    bench.ledger = tmp_path / "another.sqlite"
    again, usage = await rulings(bench, pairs(100))
    assert usage.calls == 200
    assert again == rows


async def test_a_server_told_to_rule_by_position_does_nothing_else(bench, serve):
    serve(server=SimulatedServer(error_rate=0.0, no_bias=0.0, position_bias=1.0))
    rows, _ = await rulings(bench, pairs(20), teacher=OpenAITeacher(timeout_seconds=20.0))
    assert {(row.first, row.second, row.winner) for row in rows} == {("new", "old", "tie")}


async def test_a_teachers_question_that_speaks_of_judging_is_still_taught(bench, serve):
    serve()
    (question,) = questions(1)
    asked = ask_for(question)
    turned = asked.messages[1]["content"] + "\nSet 1: []\nSet 2: []\nwinner: 1"
    answers, _ = await bench.ask([replace(asked, messages=(asked.messages[0], {"role": "user", "content": turned}))])
    assert "## Final Assessment" in answers[0].text


def test_a_judge_with_a_published_price_is_not_billed_at_the_teachers():
    own = TokenPrice(input=1.0, cached_input=None, output=2.0)
    pace = PACE.model_copy(update={"price": own})
    assert judge_pace(pace, model="gpt-4o").price is None
    assert judge_pace(pace, model="my-own-model").price == own
