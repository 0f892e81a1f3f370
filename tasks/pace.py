"""A share of the teacher's limits for this process, held by a lease on a Prefect concurrency limit.

Prefect's own `rate_limit` undershoots by a third and costs 76 ms an acquire, so pacing is done in the process, and Prefect only counts the
processes: each one asking holds one slot of a global concurrency limit, and uses 1/n of the calls and tokens per minute while n slots are held.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.logging import get_logger

from tasks.gateways.limits import Limiter

PROCESSES = 64  # slots of a limit that this program creates: how many processes may ask one teacher at once
LEASE_SECONDS = 60.0  # how long a process killed with -9 is still counted
LOOK_SECONDS = 5.0  # between two looks at how many processes share the limit


@asynccontextmanager
async def shared_pace(limiter: Limiter, *, name: str, look_seconds: float = LOOK_SECONDS) -> AsyncIterator[None]:
    """Hold one slot of the limit `name` while the block runs, and keep the limiter at this process's share.

    The limit is created where it does not exist. Who joins others waits until they have seen it, so that the shares never add up to more than the limit.
    """
    name = re.sub(r"[^\w.-]", "-", name)  # Prefect refuses some characters, and model names hold slashes
    await _create(name)
    # A lease that cannot be renewed (the server restarts, say) must not end calls that are paid.
    async with concurrency(name, occupy=1, strict=True, lease_duration=LEASE_SECONDS, raise_on_lease_renewal_failure=False):
        count = await _sharing(name)
        limiter.take_share(1 / count)
        if count > 1:
            await asyncio.sleep(2 * look_seconds)
        follower = asyncio.create_task(_follow(limiter, name=name, look_seconds=look_seconds))
        try:
            yield
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)


async def _create(name: str) -> None:
    async with get_client() as client:
        try:
            await client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):  # another process was faster
                await client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=PROCESSES))


async def _sharing(name: str) -> int:
    async with get_client() as client:
        limit = await client.read_global_concurrency_limit_by_name(name)
    return max(limit.active_slots, 1)


async def _follow(limiter: Limiter, *, name: str, look_seconds: float) -> None:
    while True:
        await asyncio.sleep(look_seconds)
        try:
            limiter.take_share(1 / await _sharing(name))
        except Exception as error:  # whatever keeps the server from answering: the share stays as it was, and paid calls go on
            get_logger(__name__).warning("cannot see who else asks the teacher (%s); going on at the present share", type(error).__name__)
