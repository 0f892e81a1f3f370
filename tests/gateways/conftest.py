"""A real server on loopback for every test that asks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tasks.gateways.simulated_teacher import Fault, SimulatedServer, serve_simulated
from tests.gateways.bench import KEY, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(ledger=tmp_path / "ledger.sqlite")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SimulatedServer]]:
    """Start a server with the given faults and point the environment at it."""
    with ExitStack() as stack:

        def start(faults: Mapping[int, Fault] | None = None, *, server: SimulatedServer | None = None) -> SimulatedServer:
            server = server or SimulatedServer(error_rate=0.0, no_bias=0.0, faults=faults or {})
            monkeypatch.setenv("OPENAI_BASE_URL", stack.enter_context(serve_simulated(server)))
            monkeypatch.setenv("OPENAI_API_KEY", KEY)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            return server

        yield start
