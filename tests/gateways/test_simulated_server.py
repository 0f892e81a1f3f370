"""The simulated endpoint, as OpenAI's own client meets it: faults on request, limits, files and batches, what it counts."""

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import openai
import pytest

from tasks.gateways.simulated_faults import RECOVERABLE, WHOLE, Fault, Mix
from tasks.gateways.simulated_server import SimulatedServer, serve_simulated
from tasks.logic.benchmarks import pocketqa
from tasks.logic.benchmarks.teacher_talk import parse_teacher_reply

SCHEMA = {"type": "json_schema", "json_schema": {"name": "teaching", "strict": True, "schema": {"type": "object"}}}


def make(faults=None, **settings):
    return SimulatedServer(**{"error_rate": 0.0, "no_bias": 0.0, "faults": faults or {}, **settings})


@asynccontextmanager
async def client_of(server, *, timeout=5.0):
    """OpenAI's client, without retries, against a server of its own."""
    with serve_simulated(server) as url:
        transport = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0, timeout=timeout, http_client=transport) as client:
            yield client


def body_for(number=0, **more):
    question = list(pocketqa.sample(split="dev", n=number + 1, seed=0))[number]
    return {"model": "gpt-4", "messages": [{"role": "user", "content": f"Question: {question.question}"}], "temperature": 0.0, "seed": 0, **more}


async def create(client, body=None):
    return await client.chat.completions.create(**(body or body_for()))


async def status_error(client, body=None):
    with pytest.raises(openai.APIStatusError) as caught:
        await create(client, body)
    return caught.value


@pytest.mark.parametrize(
    "headers",
    [{"retry-after": "7"}, {"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)}, {"retry-after-ms": "250"}],
)
async def test_a_429_carries_the_header_form_asked_for(headers):
    async with client_of(make({1: Fault(status=429, code="rate_limit_exceeded", headers=headers)})) as client:
        error = await status_error(client)
    assert (error.status_code, error.code) == (429, "rate_limit_exceeded")
    assert headers.items() <= dict(error.response.headers).items()


@pytest.mark.parametrize(("status", "code"), [(429, "insufficient_quota"), (500, ""), (503, ""), (401, "invalid_api_key")])
async def test_a_status_comes_with_its_code(status, code):
    async with client_of(make({1: Fault(status=status, code=code)})) as client:
        error = await status_error(client)
        assert (error.status_code, error.code or "") == (status, code)
        assert (await create(client)).choices[0].finish_reason == "stop"


async def test_credit_runs_out_for_good():
    server = make(credit=2)
    async with client_of(server) as client:
        for number in range(2):
            await create(client, body_for(number))
        assert {(await status_error(client, body_for(number))).code for number in range(4)} == {"insufficient_quota"}
    assert server.stats()["by_status"] == {"200": 2, "429": 4}


async def test_a_prompt_that_azure_filters_is_a_400_with_its_reasons():
    async with client_of(make({1: Fault(status=400, code="content_filter")})) as client:
        error = await status_error(client)
    assert (error.status_code, error.code, error.param) == (400, "content_filter", "prompt")
    assert error.body["innererror"]["code"] == "ResponsibleAIPolicyViolation"


@pytest.mark.parametrize("shape", ["reset", "closed", "dropped"])
async def test_a_connection_ends_without_a_whole_reply_and_the_next_one_works(shape):
    server = make({1: Fault(shape=shape)})
    async with client_of(server) as client:
        with pytest.raises(openai.APIConnectionError):
            await create(client)
        assert (await create(client)).choices[0].message.content
    assert server.stats()["by_status"] == {shape: 1, "200": 1}
    assert server.stats()["duplicates"] == 0  # nothing was paid for the call that was lost


async def test_a_reset_is_one_on_the_wire():
    with serve_simulated(make({1: Fault(shape="reset")})) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        content = json.dumps(body_for()).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_held_reply_hangs_until_it_is_let_go():
    server = make({1: Fault(shape="held"), 2: Fault(shape="held")})
    async with client_of(server) as client:
        with pytest.raises(openai.APITimeoutError):
            await create(client.with_options(timeout=0.1))
        held = asyncio.create_task(create(client))
        while server.calls < 2:
            await asyncio.sleep(0.001)
        await create(client, body_for(1))
        assert not held.done()
        server.hold.set()
        assert (await held).choices


async def test_a_slow_first_byte_and_latency_pass_before_the_reply():
    server = make({1: Fault(seconds=0.15), 2: Fault(status=500, seconds=0.15)}, latency=0.05)
    loop = asyncio.get_running_loop()
    async with client_of(server) as client:
        started = loop.time()
        await create(client)
        first = loop.time()
        await status_error(client)
        second = loop.time()
        await create(client)
    assert first - started >= 0.2
    assert second - first >= 0.2
    assert loop.time() - second >= 0.05


@pytest.mark.parametrize(
    ("shape", "finish", "content"),
    [
        ("cut", "length", "## Teaching Analysis"),
        ("filtered", "content_filter", None),
        ("null", "stop", None),
        ("refused", "stop", None),
        ("no_verdict", "stop", "This is hard to say."),
    ],
)
async def test_an_unusable_reply_has_the_shape_asked_for_and_is_paid_for(shape, finish, content):
    server = make({1: Fault(shape=shape)})
    async with client_of(server) as client:
        (choice,) = (await create(client)).choices
        assert choice.finish_reason == finish
        assert (choice.message.content or "").startswith(content or "")
        assert (choice.message.content is None) == (content is None)
        await create(client, body_for(seed=9))
        await create(client, body_for(seed=9))
    stats = server.stats()
    assert (stats["replied"], stats["duplicates"], stats["reasks"]) == (2, 1, 1)


async def test_a_repair_that_adds_messages_is_a_re_ask():
    server = make({1: Fault(shape="no_verdict")}, faulty_share=0.0)
    async with client_of(server) as client:
        body = body_for()
        await create(client, body)
        await create(client, {**body, "messages": [*body["messages"], {"role": "assistant", "content": "?"}, {"role": "user", "content": "Say yes or no."}]})
    assert (server.stats()["reasks"], server.stats()["duplicates"]) == (1, 0)


@pytest.mark.parametrize(
    ("shape", "usage"),
    [("odd_usage", "many"), ("negative_usage", {"prompt_tokens": int}), ("text_usage", {"prompt_tokens": str}), ("no_usage", None)],
)
async def test_usage_can_be_odd(shape, usage):
    async with client_of(make({1: Fault(shape=shape)})) as client:
        raw = json.loads((await client.chat.completions.with_raw_response.create(**body_for())).text)
    if isinstance(usage, dict):
        assert isinstance(raw["usage"]["prompt_tokens"], usage["prompt_tokens"])
        assert shape != "negative_usage" or raw["usage"]["prompt_tokens"] < 0
    else:
        assert raw.get("usage") == usage


async def test_usage_tells_cached_tokens():
    async with client_of(make()) as client:
        usage = (await create(client)).usage
    assert usage.prompt_tokens_details.cached_tokens == 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_broken_json_and_half_a_character_travel():
    async with client_of(make({1: Fault(shape="broken_json"), 2: Fault(shape="surrogate"), 3: Fault(shape="surrogate")})) as client:
        text = (await client.chat.completions.with_raw_response.create(**body_for())).text
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
        content = json.loads((await client.chat.completions.with_raw_response.create(**body_for())).text)["choices"][0]["message"]["content"]
        assert "\ud800" in content
        nested = json.loads((await client.chat.completions.with_raw_response.create(**body_for(response_format=SCHEMA))).text)
        assert "\ud800" in json.loads(nested["choices"][0]["message"]["content"])["reasoning"]


async def test_a_json_schema_gets_the_same_reply_as_json():
    async with client_of(make({3: Fault(shape="cut")})) as client:
        text = parse_teacher_reply((await create(client)).choices[0].message.content)
        said = json.loads((await create(client, body_for(response_format=SCHEMA))).choices[0].message.content)
        cut = (await create(client, body_for(response_format=SCHEMA))).choices[0].message.content
    assert said.keys() == {"questions", "reasoning", "verdict"}
    assert tuple(each["question"] for each in said["questions"]) == text.asked
    assert tuple(each["answer"] for each in said["questions"]) == text.answered
    assert said["verdict"] == text.verdict
    assert text.reasoning in said["reasoning"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut)


async def _outcome(client, body):
    """What one attempt came to: a status with its header form, a kind of broken connection, or the shape of a reply."""
    try:
        response = await client.chat.completions.with_raw_response.create(**body)
        choice = json.loads(response.text)["choices"][0]
    except openai.APIStatusError as error:
        header = next((name for name in ("retry-after-ms", "retry-after") if name in error.response.headers), "")
        if header == "retry-after" and not error.response.headers[header].isdecimal():
            ahead = parsedate_to_datetime(error.response.headers[header]) - datetime.now(UTC)
            header = "date" if timedelta(seconds=-5) < ahead <= timedelta(seconds=1) else "a bad date"
        return error.status_code, header
    except openai.APIConnectionError:
        return "connection", ""
    except ValueError:
        return "broken_json", ""
    return "null" if choice["message"]["content"] is None else choice["finish_reason"], ""


async def test_every_recoverable_fault_comes_at_first_attempts_only():
    server = make(echo=True, faulty_share=1.0, hang_seconds=0.01, seed=1)
    bodies = [body_for() | {"messages": [{"role": "user", "content": f"number {number}"}]} for number in range(60)]
    async with client_of(server) as client:
        first = await asyncio.gather(*(_outcome(client, body) for body in bodies))
        again = await asyncio.gather(*(_outcome(client, {**body, "seed": number % 2}) for number, body in enumerate(bodies)))
    answered = {("broken_json", ""), ("length", ""), ("null", "")}
    assert set(first) == answered | {(429, "retry-after"), (429, "date"), (429, "retry-after-ms"), (500, ""), (503, ""), ("connection", "")}
    assert set(again) == {("stop", "")}
    assert (server.stats()["replied"], server.stats()["duplicates"]) == (60, 0)


def test_the_share_is_kept_and_depends_on_seed_and_request_alone():
    def drawn(seed, *, backwards=False):
        mix = Mix(share=0.3, seed=seed, hang_seconds=9.0)
        return {key: mix.draw(body_key=key, talk_key=key) for key in sorted(range(2000), reverse=backwards)}

    one, again, other = drawn(1), drawn(1, backwards=True), drawn(2)
    faults = [fault for fault in one.values() if fault != WHOLE]
    assert len(faults) / 2000 == pytest.approx(0.3, abs=0.03)
    shapes, shapes_again, other_shapes = ({key: (fault.status, fault.shape) for key, fault in each.items()} for each in (one, again, other))
    assert shapes == shapes_again != other_shapes
    assert {fault.seconds for fault in faults} == {0.0, 9.0}
    counts = Counter((fault.status, fault.shape, *fault.headers) for fault in faults)
    assert min(counts.values()) > 30
    assert len(RECOVERABLE) == 10


async def test_arrivals_and_statuses_can_be_read_over_http():
    server = make({2: Fault(status=500)})
    with serve_simulated(server) as url:
        transport = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0, http_client=transport) as client:
            await create(client)
            await status_error(client)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url.removesuffix("/v1") + "/stats") as reply:
            stats = json.loads(reply.read())
    assert (stats["calls"], stats["by_status"], sum(calls for calls, _ in stats["per_second"])) == (2, {"200": 1, "500": 1}, 2)
    assert stats["admitted"]["seconds"] > 0


@pytest.mark.parametrize("content", [b"", b"[]", b'{"messages": 3}', b'{"messages": ["a"]}', b'{"messages": []}'])
async def test_what_is_no_request_is_refused(content):
    with serve_simulated(make()) as url:
        request = urllib.request.Request(f"{url}/chat/completions", data=content, headers={"content-type": "application/json"}, method="POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError, match="400"):
            await asyncio.to_thread(opener.open, request)


def test_it_serves_from_the_command_line():
    command = [sys.executable, "-m", "tasks.gateways.simulated_server", "--port", "0", "--rpm", "2", "--echo", "--latency", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            client = openai.OpenAI(api_key="k", base_url=url, max_retries=0, http_client=openai.DefaultHttpxClient(trust_env=False))
            with client:
                body = {"model": "m", "messages": [{"role": "user", "content": "anything"}]}
                replies = [client.chat.completions.create(**body) for _ in range(2)]
                with pytest.raises(openai.RateLimitError):
                    client.chat.completions.create(**body)
        finally:
            process.kill()
    assert parse_teacher_reply(replies[0].choices[0].message.content).problem == ""
