"""Several processes share one teacher's limits through leases on a real Prefect server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from tasks.gateways.limits import Limiter
from tasks.pace import shared_pace

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]
_CHILD = """
import asyncio, sys
from tasks.gateways.limits import Limiter
from tasks.pace import shared_pace
async def main():
    async with shared_pace(Limiter(requests_per_minute=600, tokens_per_minute=6000, max_in_flight=4), name=sys.argv[1], look_seconds=0.1):
        print("in", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""


def limiter() -> Limiter:
    return Limiter(requests_per_minute=600, tokens_per_minute=6000, max_in_flight=4)


@asynccontextmanager
async def another_process(name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CHILD, name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdin is not None
    assert await child.stdout.readline() == b"in\n"
    yield child
    if child.returncode is None:
        child.stdin.write(b"\n")
        await child.communicate()


async def shrunk_to(wanted: Limiter, requests: float) -> None:
    async with asyncio.timeout(30):
        while wanted.pace[0] != requests:
            await asyncio.sleep(0.05)


async def test_a_limit_that_is_missing_is_made_and_shares_add_up_and_move() -> None:
    name = "teacher-org-shared"
    async with get_client() as client:
        with pytest.raises(ObjectNotFound):
            await client.read_global_concurrency_limit_by_name(name)
    mine = limiter()
    async with shared_pace(mine, name="teacher/org&shared", look_seconds=0.1):  # Prefect takes neither sign
        assert mine.pace == (600.0, 6000.0)
        async with another_process(name):
            await shrunk_to(mine, 300.0)
            assert mine.pace == (300.0, 3000.0)
            late = limiter()
            async with shared_pace(late, name=name, look_seconds=0.1):
                await shrunk_to(mine, 200.0)
                assert late.pace == (200.0, 2000.0)
        await shrunk_to(mine, 600.0)
    async with get_client() as client:
        assert (await client.read_global_concurrency_limit_by_name(name)).active_slots == 0


async def test_a_process_that_was_killed_is_counted_until_its_lease_ends() -> None:
    name = "teacher-killed"
    async with another_process(name) as child:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    async with get_client() as client:
        assert (await client.read_global_concurrency_limit_by_name(name)).active_slots == 1
    mine = limiter()
    async with shared_pace(mine, name=name, look_seconds=0.01):
        assert mine.pace == (300.0, 3000.0)  # cautious while the dead one's lease runs
