"""Files and batches of the simulated endpoint, through OpenAI's own client."""

import json

import openai
import pytest

from tasks.gateways.simulated_faults import Fault
from tasks.gateways.simulated_server import SimulatedServer
from tests.gateways.test_simulated_server import body_for, client_of, create, make


def lines_for(count: int) -> list[dict]:
    return [{"custom_id": f"q{number}", "method": "POST", "url": "/v1/chat/completions", "body": body_for(number)} for number in range(count)]


async def upload(client, lines):
    content = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
    return await client.files.create(file=("asks.jsonl", content), purpose="batch")


async def submit(client, lines):
    file = await upload(client, lines)
    return await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": "one"})


async def until_done(client, batch):
    seen = [batch.status]
    while seen[-1] not in ("completed", "failed", "expired", "cancelled"):
        batch = await client.batches.retrieve(batch.id)
        seen.append(batch.status)
    return batch, seen


async def read(client, file_id):
    return [json.loads(line) for line in (await client.files.content(file_id)).text.splitlines()] if file_id else []


async def test_a_batch_is_done_after_the_polls_asked_for_and_its_lines_come_shuffled():
    server = make(batch_polls=2)
    lines = lines_for(12)
    async with client_of(server) as client:
        batch = await submit(client, lines)
        assert batch.metadata == {"run": "one"}
        first = await client.batches.retrieve(batch.id)
        assert (first.request_counts.total, first.request_counts.completed) == (12, 4)
        batch, seen = await until_done(client, first)
        assert seen == ["in_progress", "in_progress", "completed"]
        assert (batch.request_counts.completed, batch.request_counts.failed, batch.error_file_id) == (12, 0, None)
        output = await read(client, batch.output_file_id)
        online = await create(client)
    names = [line["custom_id"] for line in output]
    assert sorted(names) == sorted(line["custom_id"] for line in lines)
    assert names != [line["custom_id"] for line in lines]
    (answer,) = [line["response"]["body"] for line in output if line["custom_id"] == "q0"]
    assert (
        answer["choices"] == json.loads(online.model_dump_json())["choices"] or answer["choices"][0]["message"]["content"] == online.choices[0].message.content
    )
    assert answer["usage"]["prompt_tokens"] > 0
    stats = server.stats()
    assert (stats["calls"], stats["batch_calls"], stats["replied"], stats["duplicates"]) == (1, 12, 13, 1)


async def test_a_batch_that_expires_answers_a_share_and_names_the_rest():
    async with client_of(make(batch_polls=0, batch_expires_after=0.5)) as client:
        batch, _ = await until_done(client, await submit(client, lines_for(9)))
        answered, rest = await read(client, batch.output_file_id), await read(client, batch.error_file_id)
    assert batch.status == "expired"
    assert (len(answered), len(rest)) == (5, 4)
    assert {line["error"]["code"] for line in rest} == {"batch_expired"}
    assert all(line["response"] is None for line in rest)
    assert len({line["custom_id"] for line in answered + rest}) == 9


async def test_lines_that_fail_are_in_the_error_file_and_mend_when_sent_again():
    async with client_of(make(batch_polls=0, batch_fails=0.5)) as client:
        batch, _ = await until_done(client, await submit(client, lines_for(30)))
        failed = await read(client, batch.error_file_id)
        assert 5 < len(failed) < 25
        assert {line["response"]["status_code"] for line in failed} == {429, 500}
        assert all(line["response"]["body"]["error"]["message"] for line in failed)
        names = {line["custom_id"] for line in failed}
        again, _ = await until_done(client, await submit(client, [line for line in lines_for(30) if line["custom_id"] in names]))
    assert (again.status, again.error_file_id, again.request_counts.completed) == ("completed", None, len(names))


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([], "empty_file"),
        (["{"], "invalid_json_line"),
        ([{"custom_id": "a"}], "invalid_json_line"),
        (lines_for(1) * 2, "duplicate_custom_id"),
        ([{**lines_for(1)[0], "url": "/v1/embeddings"}], "invalid_request"),
    ],
)
async def test_a_bad_file_fails_at_validation_with_its_line(lines, code):
    async with client_of(make()) as client:
        batch, _ = await until_done(client, await submit(client, lines))
    assert batch.status == "failed"
    assert code in {error.code for error in batch.errors.data}
    assert batch.output_file_id is None


async def test_a_batch_can_be_rejected_as_a_whole():
    async with client_of(make(batch_rejected="token_limit_exceeded")) as client:
        batch, _ = await until_done(client, await submit(client, lines_for(2)))
    assert (batch.status, [error.code for error in batch.errors.data]) == ("failed", ["token_limit_exceeded"])


async def test_a_cancelled_batch_keeps_what_was_answered():
    server = make(batch_polls=3)
    async with client_of(server) as client:
        batch = await submit(client, lines_for(8))
        await client.batches.retrieve(batch.id)
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        batch, _ = await until_done(client, batch)
        answered = await read(client, batch.output_file_id)
        with pytest.raises(openai.BadRequestError):
            await client.batches.cancel(batch.id)
    assert (batch.status, len(answered), server.batch_calls) == ("cancelled", 4, 4)


async def test_batches_are_listed_newest_first_in_pages():
    async with client_of(make()) as client:
        made = [(await submit(client, lines_for(1))).id for _ in range(5)]
        listed = [batch.id async for batch in client.batches.list(limit=2)]
    assert listed == made[::-1]


async def test_files_are_kept_until_deleted():
    async with client_of(make()) as client:
        file = await upload(client, lines_for(2))
        assert (file.purpose, file.status, file.filename) == ("batch", "processed", "asks.jsonl")
        assert (await client.files.retrieve(file.id)).bytes == file.bytes
        assert len(await read(client, file.id)) == 2
        await client.files.delete(file.id)
        for call in (client.files.retrieve, client.files.content):
            with pytest.raises(openai.NotFoundError):
                await call(file.id)
        with pytest.raises(openai.NotFoundError):
            await client.batches.retrieve("batch_9")
        with pytest.raises(openai.BadRequestError):
            await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


async def test_a_batch_whose_confirmation_is_lost_exists_all_the_same():
    server = SimulatedServer(error_rate=0.0, no_bias=0.0, batch_faults={1: Fault(status=503), 3: Fault(shape="reset")})
    async with client_of(server) as client:
        with pytest.raises(openai.InternalServerError):
            await upload(client, lines_for(1))
        with pytest.raises(openai.APIConnectionError):
            await submit(client, lines_for(1))
        assert [batch.metadata async for batch in client.batches.list()] == [{"run": "one"}]


async def test_a_line_that_cannot_be_answered_is_an_error_line():
    stranger = {**lines_for(1)[0], "body": {**body_for(), "messages": [{"role": "user", "content": "Question: Would a pear sink?"}]}}
    async with client_of(make(batch_polls=0)) as client:
        batch, _ = await until_done(client, await submit(client, [stranger]))
        (line,) = await read(client, batch.error_file_id)
    assert (line["response"]["status_code"], line["response"]["body"]["error"]["code"]) == (400, "unknown_question")


async def test_a_batch_may_hold_replies_that_cannot_be_used_and_the_re_ask_is_whole():
    server = make(batch_polls=0, faulty_share=1.0)
    lines = lines_for(40)
    async with client_of(server) as client:
        batch, _ = await until_done(client, await submit(client, lines))
        first = {line["custom_id"]: line["response"]["body"]["choices"][0] for line in await read(client, batch.output_file_id)}
        unusable = [name for name, choice in first.items() if choice["finish_reason"] == "length" or choice["message"]["content"] is None]
        batch, _ = await until_done(client, await submit(client, [line for line in lines if line["custom_id"] in unusable]))
        again = [line["response"]["body"]["choices"][0] for line in await read(client, batch.output_file_id)]
    assert {first[name]["finish_reason"] for name in unusable} == {"length", "stop"}
    assert all(choice["finish_reason"] == "stop" and choice["message"]["content"] for choice in again)
    stats = server.stats()
    assert (stats["replied"], stats["duplicates"], stats["reasks"]) == (40, 0, len(unusable))
