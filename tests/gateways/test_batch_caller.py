"""The Batch API through the ledger: same keys as online, nothing paid twice, and a kill -9 at any step."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from tasks.contracts.failures import BudgetReached, SocratuneError, TeacherRefused, TeacherUnavailable
from tasks.contracts.rows import Outcome
from tasks.gateways.batch_caller import ROUNDS
from tasks.gateways.batch_store import BatchStore
from tasks.gateways.caller import Tally, Wanted
from tasks.gateways.ledger import Ledger
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.gateways.simulated_faults import Fault
from tasks.gateways.simulated_server import SimulatedServer
from tests.gateways.bench import KEY, Bench, asks


def server(**changes) -> SimulatedServer:
    return SimulatedServer(error_rate=0.0, no_bias=0.0, **changes)


async def test_a_batch_answers_as_online_does_at_half_the_price_and_switching_pays_nothing(bench: Bench, serve):
    one = serve(server=server(batch_polls=3))
    wanted = asks(25)
    answers, usage = await bench.ask_in_batches(wanted)
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert [answer.ask for answer in answers] == wanted
    assert (usage.calls, usage.cached, one.calls, one.batch_calls) == (25, 0, 0, 25)
    assert bench.progress[-1] == (25, 25)
    online, second = await bench.ask(wanted)
    assert (second.calls, second.cached, one.calls) == (0, 25, 0)
    assert [answer.text for answer in online] == [answer.text for answer in answers]

    elsewhere = Bench(ledger=bench.ledger.with_name("other.sqlite"))
    _, full = await elsewhere.ask(wanted)
    assert usage.usd == pytest.approx(full.usd / 2)
    again, third = await elsewhere.ask_in_batches(wanted)
    assert (third.calls, third.cached, one.batch_calls) == (0, 25, 25)
    assert [answer.text for answer in again] == [answer.text for answer in online]


async def test_an_expired_batch_keeps_what_was_paid_and_sends_the_rest(bench: Bench, serve):
    one = serve(server=server(batch_expires_after=0.5))
    answers, usage = await bench.ask_in_batches(asks(16))
    assert {answer.outcome for answer in answers} == {Outcome.OK, Outcome.FAILED}  # 16, 8, 4, 2 sent; one is left
    lost = [answer for answer in answers if answer.outcome == Outcome.FAILED]
    assert len(lost) == 16 // 2**ROUNDS
    assert not any(answer.final for answer in lost)
    assert (usage.calls, usage.failed, one.batch_calls) == (15, 1, 15)
    one.batch_expires_after = None
    answers, usage = await bench.ask_in_batches(asks(16))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (usage.calls, usage.cached) == (1, 15)


async def test_lines_that_fail_in_part_are_sent_again_alone(bench: Bench, serve):
    one = serve(server=server(batch_fails=0.4))
    answers, usage = await bench.ask_in_batches(asks(20))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (usage.calls, len(one.seen), max(one.seen.values())) == (20, 20, 1)


async def test_passing_trouble_with_the_batch_endpoints_is_sat_out_and_starts_no_second_batch(bench: Bench, serve):
    faults = {1: Fault(status=500), 3: Fault(shape="reset"), 5: Fault(status=429), 7: Fault(status=503)}
    one = serve(server=server(batch_faults=faults))
    answers, usage = await bench.ask_in_batches(asks(10))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (usage.calls, one.batch_calls) == (10, 10)


async def test_the_budget_holds_in_batches_too(bench: Bench, serve):
    one = serve(server=server())
    bench.budget = 0.25
    with pytest.raises(BudgetReached, match="raise the cap"):
        await bench.ask_in_batches(asks(60))
    with Ledger(bench.ledger, budget_usd=0.25) as ledger:
        assert 0.1 < ledger.spent() <= 0.25
        assert ledger.headroom() == pytest.approx(0.25 - ledger.spent())
    before = one.batch_calls
    bench.budget = 100.0
    answers, usage = await bench.ask_in_batches(asks(60))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (usage.cached, one.batch_calls) == (before, 60)


async def test_a_batch_that_is_refused_says_why(bench: Bench, serve):
    serve(server=server(batch_rejected="token_limit_exceeded"))
    with pytest.raises(TeacherRefused, match="batch") as caught:
        await bench.ask_in_batches(asks(3))
    assert KEY not in str(caught.value)
    with Ledger(bench.ledger, budget_usd=1.0) as ledger:
        assert ledger.headroom() == 1.0


async def test_an_endpoint_without_batches_is_told_as_such(bench: Bench, serve):
    serve(server=server(batch_faults=dict.fromkeys(range(1, 99), Fault(status=404))))
    with pytest.raises(SocratuneError, match="HTTP 404"):
        await bench.ask_in_batches(asks(3))
    serve(server=server(batch_faults=dict.fromkeys(range(1, 99), Fault(status=503))))
    with pytest.raises(TeacherUnavailable, match="HTTP 503"):
        await bench.ask_in_batches(asks(3))


_CHILD = """
import asyncio, os, signal, sys, pathlib
from tasks.gateways.batch_store import BatchStore
from tests.gateways.bench import Bench, asks
step, after = sys.argv[2].split()
kept = getattr(BatchStore, step)
def dies(self, *arguments, **named):
    if after == "after":
        kept(self, *arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(BatchStore, step, dies)
asyncio.run(Bench(ledger=pathlib.Path(sys.argv[1])).ask_in_batches(asks(12)))
"""


@pytest.mark.parametrize("step", ["draw after", "uploaded before", "uploaded after", "sent before", "sent after", "close before"])
async def test_kill_9_at_every_step_pays_nothing_twice(bench: Bench, serve, step: str):
    one = serve(server=server())
    child = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _CHILD, str(bench.ledger), step], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    answers, usage = await bench.ask_in_batches(asks(12))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (usage.calls + usage.cached, one.batch_calls, max(one.seen.values())) == (12, 12, 1)
    with Ledger(bench.ledger, budget_usd=1.0) as ledger:
        assert ledger.db.execute("SELECT count(*) FROM batches").fetchone() == (0,)
        assert ledger.db.execute("SELECT count(*) FROM reservations").fetchone() == (0,)


_KILLED_BEFORE_COLLECTING = """
import asyncio, os, signal, sys, pathlib
from tasks.gateways.batch_caller import BatchCaller
from tests.gateways.bench import Bench, asks
async def dies(*_):
    os.kill(os.getpid(), signal.SIGKILL)
BatchCaller._wait_for = dies
asyncio.run(Bench(ledger=pathlib.Path(sys.argv[1])).ask_in_batches(asks(12)))
"""


async def _leave_a_batch_in_the_air(bench: Bench) -> None:
    child = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _KILLED_BEFORE_COLLECTING, str(bench.ledger)], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr


async def test_all_lines_of_a_batch_are_kept_whatever_this_run_wants(bench: Bench, serve):
    one = serve(server=server())
    await _leave_a_batch_in_the_air(bench)
    answers, usage = await bench.ask_in_batches(asks(6))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert usage.calls == 12
    _, usage = await bench.ask_in_batches(asks(12))
    assert (usage.calls, usage.cached, one.batch_calls) == (0, 12, 12)


async def test_going_online_does_not_buy_what_a_batch_is_about_to_answer(bench: Bench, serve):
    one = serve(server=server())
    await _leave_a_batch_in_the_air(bench)
    with pytest.raises(TeacherRefused, match=r"12 of the questions .*\.mode=batch .* forget-batches"):
        await bench.ask(asks(14))
    assert one.calls == 0
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        assert BatchStore(ledger).forget() == 1
    _, usage = await bench.ask(asks(14))
    assert usage.calls == 14


async def test_a_re_ask_that_is_in_a_batch_is_not_bought_online_either(bench: Bench, serve):
    one = serve(server=server(faults={1: Fault(shape="no_verdict")}))
    await bench.attempts(1).ask(asks(1))  # the first reply is known and cannot be used
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        async with OpenAITeacher(timeout_seconds=5.0) as teacher:
            caller = bench.caller(teacher, ledger)
            firsts, (key,) = caller.requests(asks(1))
            step = caller.advance(firsts[key], key, Tally())
            assert isinstance(step, Wanted)
            assert step.key != key
            batch, _ = BatchStore(ledger).draw("e", [(step.key, 0.0)]) or ("", [])
            BatchStore(ledger).sent(batch, "batch-1")
    with pytest.raises(TeacherRefused, match="1 of the questions"):
        await bench.ask(asks(1))
    assert one.calls == 1


async def test_a_dead_process_holds_no_budget_for_a_batch_that_it_never_sent(bench: Bench, serve):
    serve(server=server())
    bench.budget = 1.0
    script = (
        "import os, sys, pathlib; from tasks.gateways.ledger import Ledger; from tasks.gateways.batch_store import BatchStore; "
        "ledger = Ledger(pathlib.Path(sys.argv[1]), budget_usd=1.0); assert ledger.reserve(0.4); assert BatchStore(ledger).draw('e', [('k', 0.5)]); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(bench.ledger)]).returncode == 9
    with Ledger(bench.ledger, budget_usd=1.0) as ledger:
        assert ledger.headroom() == pytest.approx(0.1)
    answers, _ = await bench.ask_in_batches(asks(10))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    with Ledger(bench.ledger, budget_usd=1.0) as ledger:
        assert ledger.headroom() == pytest.approx(1.0 - ledger.spent())


async def test_a_line_separator_inside_a_reply_does_not_split_it(bench: Bench, serve):
    class _Separated(SimulatedServer):
        def says(self, body):
            said = super().says(body)
            return replace(said, reasoning=f"{said.reasoning} \u2028 More.")

    one = serve(server=_Separated(error_rate=0.0, no_bias=0.0))
    answers, _ = await bench.ask_in_batches(asks(4))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert one.batch_calls == 4
