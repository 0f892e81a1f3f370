"""The Prefect server of one run, where no standing one is named: it listens to that run alone and ends with it.

It is started by hand and not by Prefect, which would import all of the server into the run's own process, wait for it before it imports anything else, and
wait again for its end.
"""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Mapping

from tasks.contracts.failures import ServerError

HOST = "127.0.0.1"
START_SECONDS = 120.0  # a busy laptop takes most of a minute
_ANSWER_SECONDS = 10.0
_LOOK_EVERY = 0.05
# It ends with its standard input, as a nursery does, once what it heard last is stored; what it says by then would stand behind the prompt.
# os.read: a buffered reader in a daemon thread can abort the interpreter's end. Its imports make much that stays, which the collector need not look through.
_WATCHED = """
import gc, os, runpy, signal, threading, time
gc.set_threshold(100_000)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
def watch():
    os.read(0, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(4)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
"""


class TemporaryServer:
    """Started at once; `wait` until it answers. Without its secret any web page that is open during the run could use it."""

    def __init__(self) -> None:
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        secret = secrets.token_urlsafe(24)
        self._api = f"http://{HOST}:{port}/api"
        self.environment: Mapping[str, str] = {"PREFECT_API_URL": self._api, "PREFECT_API_AUTH_STRING": secret, "PREFECT_SERVER_API_AUTH_STRING": secret}
        ephemeral = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        options = ["--host", HOST, "--port", str(port), "--log-level", "error", "--lifespan", "on"]
        theirs, _ours = os.pipe()  # ours stays open as long as this process lives
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WATCHED, *options, "--factory", "prefect.server.api.server:create_app"],
            stdin=theirs,
            env={**os.environ, **self.environment, **ephemeral},
            start_new_session=True,
        )
        os.close(theirs)

    def wait(self) -> None:
        """Until it answers. Raises ServerError where it ends before that, or takes far too long."""
        limit = time.monotonic() + START_SECONDS
        while (fault := server_fault(self._api, secret=self.environment["PREFECT_API_AUTH_STRING"])) is not None:
            code = self._process.poll()
            if code is not None:
                raise ServerError(
                    f"Prefect's temporary server ended with {code} before the run began; what it said stands above. `make up` starts a standing one"
                )
            if time.monotonic() > limit:
                raise ServerError(f"Prefect's temporary server does not answer ({fault}); is the machine busy? `make up` starts a standing one")
            time.sleep(_LOOK_EVERY)


def server_fault(api: str, *, secret: str | None = None) -> str | None:
    """Why the Prefect server at `api` cannot be used with `secret`; None where it can."""
    try:
        _ask(f"{api.rstrip('/')}/health", secret=None)  # free of the secret
    except urllib.error.HTTPError as error:
        with error:
            return f"what is there answers with HTTP status {error.code}"
    except urllib.error.URLError as error:
        return str(getattr(error.reason, "strerror", None) or error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    try:
        _ask(f"{api.rstrip('/')}/admin/version", secret=secret)
    except urllib.error.HTTPError as error:
        with error:
            return "it wants its own secret in PREFECT_API_AUTH_STRING" if error.code == http.HTTPStatus.UNAUTHORIZED else None
    except OSError:
        return None  # it was there a moment ago
    return None


def _ask(url: str, *, secret: str | None) -> None:
    headers = {"Authorization": f"Basic {b64encode(secret.encode()).decode()}"} if secret else {}
    local = urllib.parse.urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))  # no proxy knows this machine's own ports
    with opener.open(urllib.request.Request(url, headers=headers), timeout=_ANSWER_SECONDS):
        return
