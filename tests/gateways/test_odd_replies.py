"""Every odd answer of a chat endpoint ends as what it is: online, in a batch and in a recording alike."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tasks.contracts.failures import BudgetReached, TeacherRefused
from tasks.contracts.rows import Outcome
from tasks.gateways.batch_caller import FIRST_LINES
from tasks.gateways.ledger import Ledger
from tasks.gateways.ledger_files import export_ledger
from tasks.gateways.openai_teacher import PAGE_TRIES
from tasks.gateways.outset import AT_FIRST, IN_VAIN
from tasks.gateways.prices import Price
from tasks.gateways.recorded_teacher import RecordedTeacher
from tasks.gateways.simulated_server import SimulatedServer
from tasks.logic.benchmarks.teacher_talk import REPLY_SCHEMA, parse_check, parse_teacher_reply
from tests.bench.faults.mixed import ask_all
from tests.gateways.bench import KEY, Bench, asks
from tests.gateways.odd_replies import BARE, BILLS, CONTENTS, OUTAGES, PROSE, REASONING, REFUSALS, THOUGHT, UNUSABLE, WRAPPED, Odd, chat, refusal

PRICE = Price(input=1.0, cached_input=0.5, output=2.0, origin="test")


@dataclass
class OddServer(SimulatedServer):
    """Answers the first call of the question at each place in `odd` with what stands there, and everything `always`, where that is given."""

    error_rate: float = 0.0
    no_bias: float = 0.0
    odd: dict[str, Odd] = field(default_factory=dict)
    always: Any = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)

    def instead(self, body: dict[str, Any]) -> tuple[int, Any] | None:
        self.bodies.append(body)
        if self.always is not None:
            return self.always
        prompt = body["messages"][1]["content"]
        case = self.odd.get(prompt)
        self.told[prompt] += 1
        if case is None or (case.again and self.told[prompt] > 1):
            return 200, chat(BARE if "response_format" in body else PROSE)
        return case.status, case.body


@pytest.fixture(params=["online", "batch"])
def way(request: pytest.FixtureRequest, bench: Bench):
    return bench, bench.ask if request.param == "online" else bench.ask_in_batches


def _wanted(count: int, *, as_json: bool = True) -> list[Any]:
    return [replace(ask, schema=REPLY_SCHEMA if as_json else None) for ask in asks(count)]


@pytest.mark.parametrize("as_json", [True, False])
async def test_every_odd_answer_is_the_row_that_it_should_be(way, serve, as_json):
    bench, ask = way
    cases = [
        case
        for case in [*CONTENTS, *BILLS, *REFUSALS, *OUTAGES, *UNUSABLE]
        if case.prose != as_json and (ask == bench.ask or case.again or not isinstance(case.body, str))
    ]
    wanted = _wanted(len(cases) + 1, as_json=as_json)
    prompts = [each.messages[1]["content"] for each in wanted]
    serve(server=OddServer(odd=dict(zip(prompts[1:], cases, strict=True))))
    bench.judge, bench.price = (lambda text: parse_teacher_reply(text, as_json=as_json).problem or None), PRICE
    answers, usage = await bench.attempts(1).ask(wanted) if ask == bench.ask else await _in_batches(bench, wanted)
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        replies = {answer.text: answer for answer in answers}
        kept = [entry.reply for entry in ledger.entries() if not isinstance(entry, str)]
        assert ledger.spent() == pytest.approx(usage.usd)
    for case, answer in zip(cases, answers[1:], strict=True):
        assert (case.name, answer.outcome, answer.final) == (case.name, case.outcome, True)
        assert case.note in answer.note, case.name
        if answer.outcome == Outcome.OK:
            read = parse_teacher_reply(answer.text, as_json=as_json)
            assert (case.name, read.verdict, read.reasoning) == (case.name, "no", case.reasoning)
    assert replies
    bought = [case for case in cases if case.status == 200]
    assert Counter((reply.tokens_in, reply.tokens_out) for reply in kept) == Counter([(200, 60), *(case.tokens for case in bought)])
    left = b"".join(path.read_bytes() for path in bench.ledger.parent.iterdir() if path.is_file())
    assert THOUGHT.encode() not in left
    assert THOUGHT not in repr(answers)
    again = await _replayed(bench, wanted)
    for case, first, second in zip(cases, answers[1:], again[1:], strict=True):
        assert case.status != 200 or (case.name, second.outcome, second.text, second.note) == (case.name, first.outcome, first.text, first.note)


async def _replayed(bench: Bench, wanted):
    """The answers of a teacher that has no more than what the ledger exports."""
    export = bench.ledger.parent / "export.parquet"
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        export_ledger(ledger, export)
    settings = replace(bench.settings, attempts=1)
    other = replace(bench, ledger=bench.ledger.parent / "other.sqlite", settings=settings, price=None)
    return (await other.ask(wanted, teacher=RecordedTeacher([export], settings=settings)))[0]


async def _in_batches(bench: Bench, wanted):
    return await replace(bench, settings=replace(bench.settings, attempts=1)).ask_in_batches(wanted)


@pytest.mark.parametrize(("name", "text", "readable"), WRAPPED, ids=[name for name, *_ in WRAPPED])
def test_an_object_is_found_whatever_is_wrapped_around_it_or_the_reply_is_unusable(name, text, readable):
    read = parse_teacher_reply(text, as_json=True)
    assert (read.problem == "") is readable
    assert (read.verdict, read.reasoning) == (("no", REASONING) if readable else ("unparsed", ""))
    assert THOUGHT not in repr(read)
    unasked = parse_teacher_reply(text)  # a teacher that answers in JSON unasked is read as such too, and never as prose
    assert THOUGHT not in repr(unasked)
    assert "{" not in unasked.reasoning


@pytest.mark.parametrize(("name", "text", "readable"), [case for case in WRAPPED if case[0] != "deep"], ids=[name for name, *_ in WRAPPED if name != "deep"])
async def test_a_recording_is_read_as_a_reply_is(bench, tmp_path, name, text, readable):
    (ask,) = _wanted(1)
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"qid": ask.qid, "reasoning": text, "answer": None}), encoding="utf-8")
    bench.judge = lambda said: parse_teacher_reply(said, as_json=True).problem or None
    (answer,), _ = await bench.ask([ask], teacher=RecordedTeacher([path], settings=bench.settings))
    assert (answer.outcome == Outcome.OK) is readable
    assert THOUGHT not in answer.text
    assert all(THOUGHT.encode() not in each.read_bytes() for each in tmp_path.iterdir() if each != path)


def test_a_check_asked_for_as_json_is_not_read_as_prose():
    assert parse_check('<think>no</think>{"verdict": "yes"}', as_json=True) == "yes"
    assert parse_check("So the answer is yes.", as_json=True) == "unparsed"


SAME = refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", code="unsupported_parameter")


@pytest.mark.parametrize("answer", [(400, SAME), (400, refusal("No.")), (200, "<!doctype html><title>Sign in</title>")])
async def test_the_same_answer_to_all_first_calls_ends_the_run_unpaid(bench, serve, answer):
    server = serve(server=OddServer(always=answer))
    with pytest.raises(TeacherRefused, match=r"same answer .*(recipe\.teacher|http://127\.0\.0\.1.*OPENAI_BASE_URL)"):
        await bench.ask(asks(60))
    assert AT_FIRST <= server.calls <= 4 * AT_FIRST * PAGE_TRIES
    assert bench.kept() == 0


async def test_the_same_refusal_of_all_lines_ends_a_batch_too(bench, serve):
    server = serve(server=OddServer(always=(400, SAME)))
    with pytest.raises(TeacherRefused, match=r"same answer .*recipe\.teacher"):
        await bench.ask_in_batches(asks(100))
    assert server.batch_calls <= 2 * FIRST_LINES
    assert bench.kept() == 0


@pytest.mark.parametrize(
    ("body", "note"), [(chat("", finish_reason="length"), "max_tokens"), (chat(None, text=BARE), "`content` was empty"), (chat("Hm."), "verdict")]
)
async def test_a_run_whose_replies_are_all_unusable_stops_after_some_dozens_and_says_why(way, serve, body, note):
    bench, ask = way
    server = serve(server=OddServer(always=(200, body)))
    for _ in range(2):  # the next run finds them in the ledger and buys no more
        with pytest.raises(TeacherRefused, match=f"none of the first .*{note}"):
            await ask(asks(150))
    assert IN_VAIN <= server.calls + server.batch_calls <= IN_VAIN + AT_FIRST + 4
    assert bench.kept() == server.calls + server.batch_calls


async def test_the_cap_holds_on_what_calls_really_cost(bench, serve):
    serve(server=OddServer(always=(200, chat(PROSE, usage={"prompt_tokens": 200, "completion_tokens": 3000, "total_tokens": 3200}))))
    bench.price, bench.budget = PRICE, 0.1
    with pytest.raises(BudgetReached):
        await bench.ask(asks(60))
    with Ledger(bench.ledger, budget_usd=0.1) as ledger:
        assert 0.08 < ledger.spent() <= 0.1
    with pytest.raises(BudgetReached):
        await bench.ask(asks(60))


@pytest.mark.parametrize("model", ["vendor/gpt-5-mini", "my-deployment", "gpt-5"])
async def test_a_parameter_that_is_refused_by_name_is_left_out_once_and_for_all(way, serve, model):
    bench, ask = way

    class Choosy(OddServer):
        def instead(self, body):
            self.bodies.append(body)
            for name in ("max_tokens", "temperature", "response_format"):
                if name in body:
                    return 400, refusal(f"Unsupported parameter: '{name}' is not supported with this model.", code="unsupported_parameter", param=name)
            return 200, chat(BARE)

    server = serve(server=Choosy())
    bench.price, bench.settings = PRICE, replace(bench.settings, model=model)
    answers, usage = await ask(_wanted(30))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert usage.calls == 30
    assert "max_completion_tokens" in server.bodies[-1]
    assert len(server.bodies) <= 30 * (1 if server.calls else 4) + 4 * AT_FIRST


async def test_a_limit_is_always_sent_by_one_name(bench, serve):
    class Old(OddServer):
        def instead(self, body):
            self.bodies.append(body)
            return (400, refusal("Unknown parameter: max_completion_tokens")) if "max_completion_tokens" in body else (200, chat(PROSE))

    server = serve(server=Old())
    bench.price, bench.settings = PRICE, replace(bench.settings, model="gpt-5")
    answers, _ = await bench.ask(asks(3))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert all({"max_tokens", "max_completion_tokens"} & body.keys() for body in server.bodies)


async def test_an_error_that_repeats_the_key_is_a_row_without_it(way, serve):
    _, ask = way
    prompts = [each.messages[1]["content"] for each in asks(10)]
    serve(server=OddServer(odd={prompts[7]: Odd(name="", status=400, body=refusal(f"bad text, sent with {KEY}"))}))
    answers, _ = await ask(asks(10))
    assert (answers[7].outcome, "[key]" in answers[7].note, KEY in repr(answers)) == (Outcome.FAILED, True, False)


async def test_what_an_outage_bills_is_spent(way, serve):
    bench, ask = way
    bench.price = PRICE
    (first, *_) = prompts = [each.messages[1]["content"] for each in asks(3)]
    serve(server=OddServer(odd={first: OUTAGES[0]}))
    _, usage = await ask(asks(3))
    share = 1 if ask == bench.ask else 0.5
    with Ledger(bench.ledger, budget_usd=None) as ledger:
        assert ledger.spent() == pytest.approx(usage.usd) == pytest.approx(share * (len(prompts) + 1) * PRICE.usd(tokens_in=200, tokens_out=60))
        assert ledger.usage().calls == len(prompts)


@pytest.mark.parametrize("batch", [False, True])
async def test_of_200_questions_with_every_fault_at_random_none_is_lost_paid_twice_or_let_slip(tmp_path, batch):
    figures = await ask_all(tmp_path, count=200, seed=1, batch=batch)
    assert figures["rows"] == 200
    assert figures["spent"] == figures["bill"] > 0
    assert {"ok", "refused", "failed", "cut", "unparsed"} >= figures["outcomes"].keys() >= {"ok", "refused", "failed"}
