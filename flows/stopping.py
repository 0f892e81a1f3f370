"""How a command of the terminal is stopped: by Ctrl-C and SIGTERM within seconds, and so that nothing that it started outlives it, not even a SIGKILL.
Its temporary Prefect server ends with it and listens to nobody else.

The signals are blocked and a thread waits for them: no library's own handler (Prefect raises from one, in whatever frame runs) can drop them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

Result = TypeVar("Result")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = "stopped; run the same command again to go on from here"
PATIENCE_SECONDS = 6.0  # for telling a server that the run was stopped


class Stoppable:
    """From entering on, before the slow imports (their threads inherit what is blocked), the first signal cancels what `run` runs; a second ends at once."""

    def __init__(self, *, orchestrated: bool = True) -> None:
        self._server_answers: Callable[[], None] | None = None if orchestrated else lambda: None  # what only looks ahead needs no server
        self._main: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._lock = threading.Lock()
        self._stopped_by = 0
        self._done = False
        self._watch = threading.Thread(target=self._wait, daemon=True)

    def __enter__(self) -> Self:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            stopped = self._stopped_by
            self._done = True
        if stopped:
            self._end()
        assert self._watch.ident is not None
        signal.pthread_kill(self._watch.ident, signal.SIGTERM)  # ends its wait
        self._watch.join()
        signal.signal(signal.SIGINT, self._interrupted)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def find_server(self) -> None:
        """Start what takes longest, a temporary Prefect server, unless one is named; the slow imports go on meanwhile. Raises ServerError."""
        if self._server_answers is None:
            from tasks.orchestrator import find_server

            self._server_answers = find_server()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, once there is a Prefect server for it where it needs one."""
        with closing(work):
            self.find_server()
            assert self._server_answers is not None
            self._server_answers()
            return asyncio.run(self._follow(work))

    async def _follow(self, work: Coroutine[Any, Any, Result]) -> Result:
        task = asyncio.ensure_future(work)
        with self._lock:
            self._main = asyncio.get_running_loop(), task
        try:
            return await task
        finally:
            if self._stopped_by:  # here, not later: asyncio.run would wait for every thread, and the server's end for seconds
                self._end()

    def _wait(self) -> None:
        number = signal.sigwait(SIGNALS)
        with self._lock:
            if self._done:
                return
            self._stopped_by = number
            main = self._main
        logging.disable(logging.CRITICAL)  # what follows from the stop is no fault
        threading.excepthook = lambda _: None
        if main is not None:
            backstop = threading.Timer(PATIENCE_SECONDS, self._end)
            backstop.daemon = True
            backstop.start()
            main[0].call_soon_threadsafe(main[1].cancel)
            signal.sigwait(SIGNALS)
        self._end()

    def _end(self) -> NoReturn:
        """Say so and be gone; the nursery, its children and the server end when their standard input closes."""
        os.write(2, f"\n{STOPPED}\n".encode())
        os._exit(128 + self._stopped_by)
