"""Asking through the ledger: order, resume, re-asks, outcomes, and what stops a run."""

import asyncio
import json
from dataclasses import replace

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tasks.contracts.failures import SocratuneError, Stopped, TeacherRefused, TeacherUnavailable
from tasks.contracts.rows import Outcome
from tasks.gateways.caller import GIVE_UP_AFTER
from tasks.gateways.ledger import Ledger
from tasks.gateways.limits import Limiter
from tasks.gateways.openai_teacher import TRIES, OpenAITeacher
from tasks.gateways.simulated_teacher import Fault, SimulatedServer
from tasks.gateways.teacher import first_request
from tasks.logic.benchmarks.teacher_talk import REPLY_SCHEMA, parse_teacher_reply
from tests.gateways.bench import KEY, asks, questions


async def test_answers_come_in_the_order_asked_and_the_next_run_pays_nothing(bench, serve):
    server = serve()
    wanted = asks(30)
    answers, usage = await bench.ask(wanted)
    assert [answer.ask for answer in answers] == wanted
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (usage.calls, usage.cached, usage.failed) == (30, 0, 0)
    assert usage.tokens_in > 0
    assert usage.usd > 0
    assert bench.progress[-1] == (30, 30)

    again, second = await bench.ask(wanted)
    assert again == answers
    assert (second.calls, second.cached, second.usd) == (0, 30, 0.0)
    _, third = await bench.ask(asks(31))
    assert (third.calls, third.cached) == (1, 30)
    assert server.calls == 31


async def test_equal_asks_are_sent_once_and_a_sample_is_another_ask(bench, serve):
    server = serve()
    (first,) = asks(1)
    answers, usage = await bench.ask([first, replace(first, sample=1), first, replace(first, qid="other")])
    assert server.calls == 2
    assert (usage.calls, usage.cached) == (2, 2)
    assert [(answer.ask.qid, answer.ask.sample) for answer in answers] == [(first.qid, 0), (first.qid, 1), (first.qid, 0), ("other", 0)]
    assert bench.progress[-1] == (4, 4)


@pytest.mark.parametrize(
    ("shape", "outcome", "note"),
    [("cut", Outcome.CUT, "max_tokens"), ("filtered", Outcome.REFUSED, "filter"), ("no_verdict", Outcome.UNPARSED, "verdict"), ("null", Outcome.UNPARSED, "")],
)
async def test_an_unusable_reply_is_asked_again_then_recorded_as_what_it_is(bench, serve, shape, outcome, note):
    server = serve(dict.fromkeys(range(1, 4), Fault(shape=shape)))
    bench = bench.attempts(3)
    (answer,), usage = await bench.ask(asks(1))
    assert (answer.outcome, answer.attempts, server.calls, usage.calls) == (outcome, 3, 3, 3)
    assert note in answer.note
    (again,), usage = await bench.ask(asks(1))
    assert (again, usage.calls, server.calls) == (answer, 0, 3)
    (mended,), usage = await bench.attempts(4).ask(asks(1))
    assert (mended.outcome, mended.attempts, usage.calls, usage.cached) == (Outcome.OK, 4, 1, 3)


async def test_every_recoverable_fault_is_recovered_and_nothing_is_bought_twice(bench, serve):
    bad = [Fault(status=429), Fault(status=500), Fault(status=503), Fault(status=408), Fault(status=409), Fault(shape="dropped"), Fault(shape="broken_json")]
    odd = [Fault(shape="odd_usage"), Fault(shape="surrogate")]
    server = serve(dict(enumerate([*bad, *odd] * 2, start=1)))
    answers, usage = await bench.ask(asks(30))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert usage.retries == len(bad) * 2
    assert server.calls == 30 + len(bad) * 2
    assert len(server.seen) == 30
    assert usage.tokens_out > 0
    assert all(answer.text.encode("utf-8") for answer in answers)


async def test_a_slow_reply_times_out_and_is_tried_again(bench, serve):
    server = serve({1: Fault(shape="held")})
    (answer,), usage = await bench.ask(asks(1), teacher=OpenAITeacher(timeout_seconds=0.3))
    assert (answer.outcome, usage.retries, server.calls) == (Outcome.OK, 1, 2)


async def test_a_row_that_fails_for_good_is_a_row_and_the_next_run_asks_only_it(bench, serve):
    serve(dict.fromkeys(range(1, TRIES + 1), Fault(status=500)))
    bench.budget = 0.1
    (failed,), usage = await bench.ask(asks(1))
    assert (failed.outcome, failed.text, usage.failed, usage.retries) == (Outcome.FAILED, "", 1, TRIES - 1)
    assert "HTTP 500" in failed.note
    with Ledger(bench.ledger, budget_usd=0.1) as ledger:
        assert ledger.reserve(0.1) == 1  # nothing stays reserved for a call that came to nothing
        ledger.release(1)
    answers, usage = await bench.ask(asks(3))
    assert [answer.outcome for answer in answers] == [Outcome.OK] * 3
    assert usage.calls == 3


async def test_an_endpoint_that_stays_down_ends_the_run(bench, serve):
    server = serve(dict.fromkeys(range(1, 10_000), Fault(status=503)))
    with pytest.raises(TeacherUnavailable, match="in a row got no reply"):
        await bench.ask(asks(25))
    assert GIVE_UP_AFTER * TRIES <= server.calls <= 25 * TRIES


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        (Fault(status=429, code="insufficient_quota"), "add credit"),
        (Fault(status=401), "OPENAI_API_KEY"),
        (Fault(status=403), "OPENAI_API_KEY"),
        (Fault(status=404, code="model_not_found"), "recipe.teacher.model"),
        (Fault(status=402), "add credit"),
    ],
)
async def test_a_refusal_stops_the_run_at_once_and_keeps_what_was_paid(bench, serve, fault, advice):
    server = serve(dict.fromkeys(range(11, 10_000), fault))
    with pytest.raises(TeacherRefused, match=advice):
        await bench.ask(asks(60))
    assert bench.kept() == 10
    assert server.calls <= 10 + bench.in_flight
    assert not bench.waits


async def test_a_call_on_the_wire_when_the_run_stops_is_still_recorded(bench, serve):
    server = serve({1: Fault(shape="held"), **dict.fromkeys(range(2, 100), Fault(status=401))})
    bench.in_flight = 2
    run = asyncio.create_task(bench.ask(asks(5)))
    while server.calls < 2:
        await asyncio.sleep(0.001)
    server.hold.set()
    with pytest.raises(TeacherRefused):
        await run
    assert bench.kept() == 1


async def test_a_cancelled_run_still_records_the_call_on_the_wire(bench, serve):
    server = serve(dict.fromkeys(range(1, 3), Fault(shape="held")))
    bench.in_flight = 2
    run = asyncio.create_task(bench.ask(asks(5)))
    while server.calls < 2:
        await asyncio.sleep(0.001)
    run.cancel()
    server.hold.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (server.calls, bench.kept()) == (2, 2)


async def test_a_re_ask_without_reply_leaves_the_first_verdict(bench, serve):
    serve({1: Fault(shape="cut"), **dict.fromkeys(range(2, TRIES + 2), Fault(status=500))})
    (answer,), usage = await bench.ask(asks(1))
    assert (answer.outcome, answer.attempts) == (Outcome.CUT, 1)
    assert (usage.calls, usage.failed, usage.retries) == (1, 0, TRIES - 1)


async def test_no_key_is_said_before_the_first_call_but_a_full_ledger_needs_none(bench, serve, monkeypatch):
    server = serve()
    await bench.ask(asks(2))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(TeacherRefused, match=r"set OPENAI_API_KEY .*kind=simulated / recorded"):
        await bench.ask(asks(3))
    assert server.calls == 2
    answers, _ = await bench.ask(asks(2))
    assert len(answers) == 2


class _Echo(SimulatedServer):
    """An endpoint that repeats the key in its refusal."""

    def app(self) -> Starlette:
        async def refuse(request: Request) -> Response:
            return JSONResponse({"error": {"message": f"bad key {request.headers['authorization']}", "code": "invalid_api_key"}}, 401)

        return Starlette(routes=[Route("/v1/chat/completions", refuse, methods=["POST"])])


async def test_the_key_appears_nowhere(bench, serve, caplog):
    caplog.set_level("DEBUG")
    serve()
    await bench.ask(asks(2))
    serve(server=_Echo(error_rate=0.0, no_bias=0.0))
    teacher = OpenAITeacher(timeout_seconds=5.0)
    with pytest.raises(TeacherRefused, match=r"\[key\]") as caught:
        await bench.ask(asks(3), teacher=teacher)
    chain: list[BaseException] = []
    error: BaseException | None = caught.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    left = [path.read_bytes() for path in bench.ledger.parent.iterdir()]
    assert KEY not in caplog.text + repr(chain) + "".join(map(str, chain)) + repr(teacher) + repr(vars(teacher))
    assert all(KEY.encode() not in content for content in left)
    assert isinstance(caught.value, SocratuneError)


class _Listening(SimulatedServer):
    """A simulated server that keeps the bodies it was sent."""

    def says(self, body):
        self.__dict__.setdefault("bodies", []).append(body)
        return super().says(body)


async def test_a_re_ask_says_what_was_wrong(bench, serve):
    server = _Listening(error_rate=0.0, no_bias=0.0, faults={1: Fault(shape="no_verdict"), 2: Fault(shape="cut"), 3: Fault(shape="filtered")})
    serve(server=server)
    bench.in_flight = 1
    answers, usage = await bench.ask(asks(3))
    assert [(answer.outcome, answer.attempts) for answer in answers] == [(Outcome.OK, 2)] * 3
    assert usage.reasks == 3
    unread, cut, filtered = ([message["role"] for message in body["messages"]] for body in server.bodies[3:])
    assert unread == ["system", "user", "assistant", "user"]  # its own words, then the reason
    assert "no verdict" in server.bodies[3]["messages"][-1]["content"]
    assert cut == ["system", "user", "user"]
    assert "be brief" in server.bodies[4]["messages"][-1]["content"]
    assert filtered == ["system", "user"]
    assert len({body["seed"] for body in (server.bodies[0], server.bodies[3])}) == 2
    again, usage = await bench.ask(asks(3))
    assert (again, usage.calls, usage.cached) == (answers, 0, 6)


async def test_a_prompt_that_a_filter_stops_is_a_row_and_not_the_end(bench, serve):
    server = serve(dict.fromkeys((1, 5), Fault(status=400, code="content_filter")))
    bench.in_flight = 1
    answers, usage = await bench.ask(asks(4))
    assert [answer.outcome for answer in answers] == [Outcome.REFUSED, *[Outcome.OK] * 3]
    assert (answers[0].status, answers[0].attempts, usage.usd > 0) == (400, 2, True)
    _, usage = await bench.ask(asks(4))
    assert (usage.calls, server.calls) == (0, 5)


async def test_every_row_says_how_it_ended(bench, serve):
    serve(dict.fromkeys(range(2, TRIES + 2), Fault(status=503)))
    bench.in_flight = 1
    (first,), _ = await bench.ask(asks(1))
    assert (first.status, first.attempts, first.final) == (200, 1, True)
    assert first.request_id.startswith("sim-")
    (_, second), usage = await bench.ask(asks(2))
    assert (second.outcome, second.status, second.final, usage.failed) == (Outcome.FAILED, 503, False, 1)
    assert "HTTP 503" in second.note


@pytest.mark.parametrize("faults", [{}, {1: Fault(shape="broken_json"), 3: Fault(shape="no_verdict")}])
async def test_a_model_that_keeps_to_a_schema_answers_in_it(bench, serve, faults):
    serve(faults)
    wanted = [replace(ask, schema=REPLY_SCHEMA) for ask in asks(5)]
    answers, _ = await bench.ask(wanted)
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    for answer, question in zip(answers, questions(5), strict=True):
        read = parse_teacher_reply(answer.text)
        assert answer.text.startswith("{")
        assert (read.verdict, bool(read.answered), read.problem) == (question.answer, True, "")


async def test_limits_are_learned_from_the_replies(bench, serve):
    serve(server=SimulatedServer(error_rate=0.0, no_bias=0.0, requests_per_minute=900, tokens_per_minute=800_000))
    async with OpenAITeacher(timeout_seconds=5.0) as teacher:
        limiter = Limiter(requests_per_minute=6000, tokens_per_minute=10_000, max_in_flight=4)
        await teacher.reply(first_request(asks(1)[0], bench.settings), limiter=limiter)
    assert limiter.pace == (900, 10_000)


async def test_control_characters_never_reach_a_row(bench, serve):
    class _Rude(SimulatedServer):
        def says(self, body):
            said = super().says(body)
            return replace(said, reasoning=f"=cmd() \x00\x1b[31m\x85{said.reasoning}\ttab")

    serve(server=_Rude(error_rate=0.0, no_bias=0.0))
    (answer,), _ = await bench.ask(asks(1))
    assert answer.outcome == Outcome.OK
    assert not {"\x00", "\x1b", "\x85"} & set(answer.text)
    assert "\ttab" in answer.text


class _Usage(SimulatedServer):
    """An endpoint whose replies claim impossible usage and a model name that no file can hold."""

    def app(self) -> Starlette:
        async def claim(request: Request) -> Response:
            content = "## Step-by-Step Reasoning\nIt is so.\n## Final Assessment\n**[YES]**"
            choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
            body = {"model": "m\ud800\x1b", "choices": [choice], "usage": {"prompt_tokens": 10**19, "completion_tokens": 10**9}}
            return Response(json.dumps(body), media_type="application/json")

        return Starlette(routes=[Route("/v1/chat/completions", claim, methods=["POST"])])


async def test_impossible_usage_is_estimated_and_odd_names_are_cleaned(bench, serve):
    serve(server=_Usage(error_rate=0.0, no_bias=0.0))
    answers, usage = await bench.ask(asks(3))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert {answer.model for answer in answers} == {"m?"}
    assert 300 < usage.tokens_in < 3000
    assert usage.tokens_out < 200


async def test_a_re_ask_that_got_no_reply_is_tried_again_by_the_next_run(bench, serve):
    server = serve({1: Fault(shape="cut"), **dict.fromkeys(range(2, TRIES + 2), Fault(status=500))})
    (answer,), _ = await bench.ask(asks(1))
    assert (answer.outcome, answer.final) == (Outcome.CUT, False)
    (mended,), usage = await bench.ask(asks(1))
    assert (mended.outcome, mended.final, usage.calls, server.calls) == (Outcome.OK, True, 1, TRIES + 2)


async def test_an_error_in_one_shard_loses_no_reply_of_the_others_and_stops_them_at_once(bench, serve):
    server = serve({**{number: Fault(shape="held") for number in (1, 2, 3)}, 4: Fault(status=401)})
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        async with OpenAITeacher(timeout_seconds=20.0) as teacher:
            bench.in_flight = 4
            caller = bench.caller(teacher, ledger)
            wanted = asks(60)
            shards = [asyncio.create_task(caller.ask(wanted[first : first + 20], progress=lambda *_: None)) for first in (0, 20, 40)]
            await caller.limiter.closed.wait()
            server.hold.set()
            ended = await asyncio.gather(*shards, return_exceptions=True)
    assert {type(each) for each in ended} == {TeacherRefused, Stopped}
    assert (server.calls, bench.kept()) == (4, 3)


async def test_a_stop_wakes_those_who_wait_for_their_turn_and_those_who_back_off():
    limiter = Limiter(requests_per_minute=1, tokens_per_minute=10**6, max_in_flight=4)

    async def call():
        async with limiter.slot(5):
            pytest.fail("a call started after the stop")

    async with limiter.slot(5):
        pass
    waiting = [asyncio.create_task(call()) for _ in range(50)] + [asyncio.create_task(limiter.back_off(1000.0))]
    await asyncio.sleep(0)
    limiter.close()
    waiting[0].cancel()  # who is at the head of the line waits on aiolimiter; the caller cancels it
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting, return_exceptions=True)
    assert all(task.cancelled() for task in waiting)
