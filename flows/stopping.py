"""How a command of the terminal is stopped: by Ctrl-C and SIGTERM within seconds, and so that nothing that it started outlives it, not even a SIGKILL.
Its temporary Prefect server ends with it and listens to nobody else.

The signals are blocked and a thread waits for them: no library's own handler (Prefect raises from one, in whatever frame runs) can drop them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

Result = TypeVar("Result")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = "stopped; run the same command again to go on from here"
PATIENCE_SECONDS = 6.0  # for telling a server that the run was stopped
# The temporary server ends with its standard input, as a nursery does. os.read: a buffered reader in a daemon thread can abort the interpreter's end.
WATCHED_SERVER = (
    "import os, runpy, signal, threading; "
    "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM]); "
    "threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start(); "
    "runpy.run_module('uvicorn', run_name='__main__', alter_sys=True)"
)


class Stoppable:
    """From entering on, before the slow imports (their threads inherit what is blocked), the first signal cancels what `run` runs; a second ends at once."""

    def __init__(self) -> None:
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

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, whose temporary Prefect server, if any, listens to this process alone and ends with it."""
        close_temporary_server()
        watch_temporary_server()
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


def close_temporary_server() -> None:
    """Agree on a secret with the temporary server, where no other is named: without one any web page that is open during the run could use it."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        os.environ.update(dict.fromkeys(("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"), secrets.token_urlsafe(24)))
        refresh_global_settings_context()


def watch_temporary_server() -> None:
    """Start Prefect's temporary server so that it neither dies of a terminal's signals before the run nor outlives it."""
    from prefect.server.api.server import SubprocessASGIServer

    SubprocessASGIServer._run_uvicorn_command = _start_watched  # type: ignore[method-assign, assignment]


def _start_watched(server: Any) -> subprocess.Popen[Any]:
    import prefect
    from prefect.settings import get_current_settings

    options = {"--app-dir": str(prefect.__module_path__.parent), "--host": "127.0.0.1", "--port": str(server.port), "--log-level": "error", "--lifespan": "on"}
    flags = [word for pair in options.items() for word in pair]
    ephemeral = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    theirs, _ours = os.pipe()  # ours stays open as long as this process lives
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED_SERVER, *flags, "--factory", "prefect.server.api.server:create_app"],
        stdin=theirs,
        env={**os.environ, **ephemeral, **get_current_settings().to_environment_variables(exclude_unset=True)},
        start_new_session=True,
    )
    os.close(theirs)
    return process
