"""What the simulated teacher knows, how it errs, and that a recipe opens it."""

import urllib.request
from dataclasses import replace
from json import loads

import pytest

from tasks.contracts.execution import TeacherExecution
from tasks.contracts.failures import TeacherRefused
from tasks.contracts.recipes import Teacher as TeacherRecipe
from tasks.contracts.rows import Outcome
from tasks.gateways.kinds import open_teacher
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.gateways.prices import published_price
from tasks.gateways.recorded_teacher import RecordedTeacher
from tasks.gateways.simulated_teacher import SimulatedServer, SimulatedTeacher, serve_simulated
from tasks.logic.benchmarks import get_benchmark
from tasks.logic.benchmarks.teacher_talk import parse_teacher_reply
from tasks.logic.teaching import asks_for, check_asks, checked_rows, talk_of, taught_rows, undrafted
from tests.gateways.bench import ask_for, asks, questions

PACE = TeacherExecution(
    mode="online", requests_per_minute=600, tokens_per_minute=10**6, max_in_flight=4, timeout_seconds=1.0, tries=2, budget_usd=None, price=None,
    max_failed_share=0.0, shard=500, poll_seconds=1.0,
)  # fmt: skip


async def test_a_faultless_teacher_answers_right_in_the_teachers_format(bench, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    drawn = questions(20)
    bench.budget = 0.01
    answers, usage = await bench.ask(
        [ask_for(question) for question in drawn], teacher=SimulatedTeacher(error_rate=0.0, no_bias=0.0, timeout_seconds=20.0, seed=0)
    )
    assert (usage.calls, usage.usd) == (20, 0.0)
    for question, answer in zip(drawn, answers, strict=True):
        parsed = parse_teacher_reply(answer.text)
        assert (parsed.verdict, parsed.problem) == (question.answer, "")
        assert parsed.answered
        assert parsed.reasoning


@pytest.mark.parametrize("no_bias", [0.0, 0.5, 1.0])
def test_errors_come_at_the_rate_and_with_the_bias_asked_for(no_bias):
    server = SimulatedServer(error_rate=0.3, no_bias=no_bias)
    drawn = questions(300)
    wrong = {"yes": 0, "no": 0}
    total = {"yes": 0, "no": 0}
    for seed in range(10):
        for question in drawn:
            total[question.answer] += 1
            wrong[question.answer] += server.verdict(question, sample_seed=seed, hinted=False) != question.answer
    assert wrong["yes"] / total["yes"] == pytest.approx(0.3, abs=0.05)
    assert wrong["no"] / total["no"] == pytest.approx(0.3 * (1 - no_bias), abs=0.05)
    assert all(server.verdict(question, sample_seed=0, hinted=True) == question.answer for question in drawn)


async def test_an_error_is_repeatable_and_a_hint_mends_it(bench):
    teacher = SimulatedTeacher(error_rate=1.0, no_bias=0.0, timeout_seconds=20.0, seed=3)
    drawn = questions(6)
    answers, _ = await bench.ask([ask_for(question) for question in drawn], teacher=teacher)
    assert all(parse_teacher_reply(answer.text).verdict != question.answer for question, answer in zip(drawn, answers, strict=True))
    assert all(parse_teacher_reply(answer.text).problem == "" for answer in answers)
    hinted, _ = await bench.ask([ask_for(question, hinted=True) for question in drawn], teacher=teacher)
    assert [parse_teacher_reply(answer.text).verdict for answer in hinted] == [question.answer for question in drawn]


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4o"])
async def test_without_questions_it_reasons_from_the_facts_alone(bench, model):
    talk = talk_of(_recipe("simulated", model=model, ask=False, response_format="auto"), benchmark=get_benchmark("pocketqa"))
    bench.judge = talk.problem
    rows = undrafted(questions(10))
    wanted = asks_for(rows, talk=talk, samples=range(1), hint=False)
    answers, _ = await bench.ask(wanted, teacher=SimulatedTeacher(error_rate=0.0, no_bias=0.0, timeout_seconds=20.0, seed=0))
    assert all(answer.text.startswith("{") == talk.as_json for answer in answers)
    for row, made in zip(rows, taught_rows(rows, answers, talk=talk), strict=True):
        assert (made.asked, made.answered, made.verdict) == ((), (), row.answer)
        assert all(fact in made.reasoning for fact in row.facts)
        assert not any(line.startswith("Q:") for line in made.reply.splitlines())


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4o"])
@pytest.mark.parametrize("ask", [True, False])
async def test_its_own_reasoning_leads_back_to_the_verdict_and_that_of_another_question_leads_nowhere(bench, ask, model):
    talk = talk_of(_recipe("simulated", model=model, ask=ask, response_format="auto"), benchmark=get_benchmark("pocketqa"))
    rows = undrafted(questions(60))
    bench.judge = talk.problem
    teacher = {"error_rate": 0.3, "no_bias": 0.5, "timeout_seconds": 20.0, "seed": 0}
    answers, _ = await bench.ask(asks_for(rows, talk=talk, samples=range(1), hint=False), teacher=SimulatedTeacher(**teacher))
    taught = taught_rows(rows, answers, talk=talk)
    bench.judge = lambda _: None
    checks, _ = await bench.ask(check_asks(taught, talk=talk, seed=0), teacher=SimulatedTeacher(**teacher))
    checked = checked_rows(taught, checks, talk=talk)
    right = [row for row in checked if row.verdict == row.answer]
    assert 0 < len(right) < 60
    assert all(row.recovered == row.verdict for row in right)
    assert {row.unmoved for row in right} == {"unparsed"}
    assert {(row.recovered, row.unmoved) for row in checked if row.verdict != row.answer} == {("", "")}


async def test_a_check_of_careless_reasoning_finds_what_it_says(bench):
    talk = talk_of(_recipe("simulated"), benchmark=get_benchmark("pocketqa"))
    rows = undrafted(questions(6))
    wrong = SimulatedTeacher(error_rate=1.0, no_bias=0.0, timeout_seconds=20.0, seed=0)
    answers, _ = await bench.ask(asks_for(rows, talk=talk, samples=range(1), hint=False), teacher=wrong)
    taught = taught_rows(rows, answers, talk=talk)
    believed = [replace(row, answer=row.verdict) for row in taught]  # were gold as wrong as the teacher
    bench.judge = lambda _: None
    checks, _ = await bench.ask(check_asks(believed, talk=talk, seed=0), teacher=wrong)
    assert [row.recovered for row in checked_rows(believed, checks, talk=talk)] == [row.verdict for row in taught]


async def test_a_teacher_of_another_error_rate_shares_no_replies(bench):
    wanted = asks(3)
    await bench.ask(wanted, teacher=SimulatedTeacher(error_rate=1.0, no_bias=0.0, timeout_seconds=20.0, seed=0))
    answers, usage = await bench.ask(wanted, teacher=SimulatedTeacher(error_rate=0.0, no_bias=0.0, timeout_seconds=20.0, seed=0))
    assert usage.calls == 3
    assert {answer.outcome for answer in answers} == {Outcome.OK}


async def test_questions_it_does_not_know_are_refused_with_what_to_do(bench, serve):
    serve()
    (question,) = questions(1)
    strangers = [
        ask_for(replace(question, qid=f"q{fruit}", question=f"Would a {fruit} sink in water?")) for fruit in ("pear", "plum", "fig", "lime", "date", "kiwi")
    ]
    (answer,), _ = await bench.ask(strangers[:1])  # one may be an accident of that question
    assert "kind=openai or recorded" in answer.note
    with pytest.raises(TeacherRefused, match=r"kind=openai or recorded"):
        await bench.ask(strangers)


async def test_it_counts_calls_and_duplicates(bench, tmp_path, serve, monkeypatch):
    server = SimulatedServer(error_rate=0.0, no_bias=0.0)
    with serve_simulated(server) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        await bench.ask(asks(4))
        bench.ledger = tmp_path / "other.sqlite"
        await bench.ask(asks(3))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url.removesuffix("/v1") + "/stats") as reply:
            assert {"calls": 7, "replied": 7, "duplicates": 3, "reasks": 0, "rejected": 0}.items() <= loads(reply.read()).items()
        with opener.open(url + "/models") as reply:
            assert loads(reply.read())["object"] == "list"


def _recipe(kind, **more):
    base = {
        "model": "gpt-4",
        "samples": 1,
        "temperature": 0.0,
        "max_tokens": 100,
        "ask": True,
        "select": "all",
        "select_share": 1.0,
        "attempts": 2,
        "response_format": "text",
        "recordings": (),
        "error_rate": None,
        "no_bias": None,
    }
    return TeacherRecipe(**{**base, "kind": kind, **more})


def test_a_recipe_opens_its_kind_of_teacher(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"qid": "a", "reasoning": "r", "answer": "yes"}\n')
    recorded = open_teacher(_recipe("recorded", recordings=(str(path),)), recordings=[path], pace=PACE, seed=0)
    simulated = open_teacher(_recipe("simulated", error_rate=0.1, no_bias=0.5), recordings=[], pace=PACE, seed=0)
    paid = open_teacher(_recipe("openai"), recordings=[], pace=PACE, seed=0)
    assert [type(teacher) for teacher in (recorded, simulated, paid)] == [RecordedTeacher, SimulatedTeacher, OpenAITeacher]
    assert [teacher.can_take_hints for teacher in (recorded, simulated, paid)] == [False, True, True]


def test_prices_are_known_for_models_that_have_one_and_grow_with_use():
    price = published_price("gpt-4")
    assert price is not None
    assert price.usd(tokens_in=1000, tokens_out=1000) == pytest.approx(10 * price.usd(tokens_in=100, tokens_out=100))
    assert published_price("a-model-of-my-own") is None
