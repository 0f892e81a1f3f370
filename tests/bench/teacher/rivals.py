"""What people write without a library for it. Settings are those that each one's documentation recommends; none is held back.

- `sdk`: OpenAI's client as it comes (two retries of its own, Retry-After obeyed), `asyncio.gather` over everything, a semaphore so that no more calls
  are open than our client may have. It has no setting for calls or tokens per minute.
- `tenacity`: OpenAI's cookbook recipe, `wait_random_exponential(min=1, max=60)` and six tries with the client's own retries off, and aiolimiter for
  calls and tokens per minute, as its documentation shows it; each try takes its place in both. Tokens are the bytes of the prompt by four plus
  max_tokens, as in the cookbook's parallel processor.

A row is lost when there is no reply, or one that is null or cut.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any

import openai
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, stop_after_attempt, wait_random_exponential

from tests.bench.teacher.meter import measure, messages_for


def usable(reply: Any) -> bool:
    choice = reply.choices[0]
    return bool(choice.message.content) and choice.finish_reason == "stop"


def body(spec: dict[str, Any], number: int) -> dict[str, Any]:
    return {"model": spec["model"], "messages": messages_for(spec, number), "temperature": 0.0, "max_tokens": spec["max_tokens"], "seed": 0}


async def sdk(spec: dict[str, Any]) -> dict[str, Any]:
    room = asyncio.Semaphore(spec["in_flight"])
    async with openai.AsyncOpenAI(timeout=spec["timeout"]) as client:

        async def one(number: int) -> bool:
            async with room:
                return usable(await client.chat.completions.create(**body(spec, number)))

        replies = await asyncio.gather(*(one(number) for number in range(spec["count"])), return_exceptions=True)
    return {"lost": sum(reply is not True for reply in replies)}


async def tenacity(spec: dict[str, Any]) -> dict[str, Any]:
    room = asyncio.Semaphore(spec["in_flight"])
    calls = AsyncLimiter(spec["rpm"], 60) if spec["rpm"] else None
    tokens = AsyncLimiter(spec["tpm"], 60) if spec["tpm"] else None
    async with openai.AsyncOpenAI(timeout=spec["timeout"], max_retries=0) as client:

        async def once(number: int) -> bool:
            request = body(spec, number)
            if calls:
                await calls.acquire()
            if tokens:
                await tokens.acquire(sum(len(message["content"].encode()) // 4 for message in request["messages"]) + spec["max_tokens"])
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(room)
                return usable(await client.chat.completions.create(**request))

        async def one(number: int) -> bool:
            return await AsyncRetrying(stop=stop_after_attempt(6), wait=wait_random_exponential(min=1, max=60), reraise=True)(once, number)

        replies = await asyncio.gather(*(one(number) for number in range(spec["count"])), return_exceptions=True)
    return {"lost": sum(reply is not True for reply in replies)}


if __name__ == "__main__":
    kind = {"sdk": sdk, "tenacity": tenacity}[sys.argv[1]]
    measure(lambda spec: asyncio.run(kind(spec)))
