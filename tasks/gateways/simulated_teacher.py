"""A teacher for runs without a key: the real client against a simulated server of its own, which knows the pocketqa facts.

The protocol, the retries and the ledger are those of a paid run. It errs on request.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from tasks.contracts.asks import Ask
from tasks.gateways.openai_teacher import OpenAITeacher
from tasks.gateways.prices import FREE, Price
from tasks.gateways.simulated_faults import Fault
from tasks.gateways.simulated_knowledge import VERSION
from tasks.gateways.simulated_server import SimulatedServer, serve_simulated

if TYPE_CHECKING:  # most of a second to import, for runs that call nobody too
    import openai

__all__ = ["Fault", "SimulatedServer", "SimulatedTeacher", "serve_simulated"]


class SimulatedTeacher(OpenAITeacher):
    """The OpenAI teacher against a simulated server of its own; free, and needs no key."""

    def __init__(self, *, error_rate: float, no_bias: float, timeout_seconds: float, seed: int) -> None:
        super().__init__(timeout_seconds=timeout_seconds)
        self._server = SimulatedServer(error_rate=error_rate, no_bias=no_bias, seed=seed)
        self._base_url = ""
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        self._base_url = self._stack.enter_context(serve_simulated(self._server))
        return self

    async def __aexit__(self, *exception: object) -> None:
        await super().__aexit__(*exception)
        self._stack.close()

    def source(self, ask: Ask) -> str:
        """What decides its errors: a simulated reply never passes for a paid one, nor for that of other error rates."""
        return f"simulated-{VERSION}:{self._server.error_rate!r}:{self._server.no_bias!r}:{self._server.seed}"

    def price(self, model: str) -> Price | None:
        """Nothing."""
        return FREE

    def _connect(self) -> openai.AsyncOpenAI:
        import openai

        transport = openai.DefaultAsyncHttpxClient(trust_env=False)  # a proxy of the environment cannot reach this machine's loopback
        return openai.AsyncOpenAI(api_key="simulated", base_url=self._base_url, max_retries=0, timeout=self._timeout, http_client=transport)
