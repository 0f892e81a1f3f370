"""The Prefect server of `make up` and its worker: started behind a secret, found again, stopped.

A web page that the user opens may send requests to this computer, and an open Prefect server runs what it is asked to. So this one wants a secret of
everybody. It stands in a file that only its owner may read, and travels in the environment alone: the arguments of a process can be listed by all.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import secrets
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

HOST = "127.0.0.1"  # the UI too is named by it alone: under localhost it would be a foreign origin
SECRET = Path("data/.prefect-secret")
LOGS = Path("data/logs")
START_SECONDS = 180  # a busy laptop takes a minute
STOP_SECONDS = 15
_SHORTEST_SECRET = 16


class Answer(Enum):
    """Who answers on a port, and what to do about it."""

    OURS = ""
    NOBODY = "no Prefect server answers on port {port}: `make up` starts one"
    OPEN = "the Prefect server on port {port} asks for no secret: any web page could start runs. `make down; make up`, or end it if another program started it"
    FOREIGN = "the Prefect server on port {port} has another secret than {secret}: `make down; make up`, or end it if another folder's `make up` started it"
    STRANGER = "something that is no Prefect server answers on port {port}: `make up PORT=4300`, say"


@dataclass(frozen=True)
class StandingServer:
    """Where the server is and what it and everybody who talks to it must know."""

    port: int
    secret: str = field(repr=False)

    @property
    def api(self) -> str:
        """The address of its API."""
        return f"http://{HOST}:{self.port}/api"

    def environment(self) -> dict[str, str]:
        """The settings of the server, the worker and the command line. With the UI's own origin allowed, no other page may read an answer."""
        server = {"API_AUTH_STRING": self.secret, "API_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{self.port}", "UI_API_URL": self.api}
        return {"PREFECT_API_URL": self.api, "PREFECT_API_AUTH_STRING": self.secret, **{f"PREFECT_SERVER_{name}": value for name, value in server.items()}}

    def answer(self) -> Answer:
        """Who answers. The secret is shown only to a server that asks for one."""
        health = _asked(f"{self.api}/health")  # free of the secret
        if health is None:
            return Answer.NOBODY
        if health != (http.HTTPStatus.OK, b"true"):
            return Answer.STRANGER
        version = f"{self.api}/admin/version"
        if (refused := _asked(version)) is None or refused[0] != http.HTTPStatus.UNAUTHORIZED:
            return Answer.OPEN
        known = _asked(version, secret=self.secret)
        return Answer.OURS if known is not None and known[0] == http.HTTPStatus.OK else Answer.FOREIGN

    def fault(self, answer: Answer) -> str:
        """What to tell of an answer."""
        return answer.value.format(port=self.port, secret=SECRET)


def own_secret(path: Path) -> str:
    """The secret in `path`, made where there is none: from its first byte on nobody but its owner can read it. Ends where others could, with what to do."""
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _kept_secret(path)
    with os.fdopen(made, "w") as file:
        file.write(secrets.token_urlsafe(24))
    return _kept_secret(path)


def _kept_secret(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        owner, mode = os.fstat(file.fileno()).st_uid, stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        secret = file.read().strip()
    renew = f"delete it, then `make down; make up` makes a new one ({path})"
    if mode & 0o077 or owner != os.getuid():
        sys.exit(f"others than you can read the secret of the Prefect server (mode {mode:03o}): {renew}")
    if len(secret) < _SHORTEST_SECRET or not secret.isascii() or not secret.isprintable():
        sys.exit(f"the secret of the Prefect server is shorter than {_SHORTEST_SECRET} plain characters: {renew}")
    return secret


def _asked(url: str, *, secret: str | None = None) -> tuple[int, bytes] | None:
    """Status and body that `url` is answered with, status 0 for what is no HTTP; None where nobody listens."""
    headers = {"Authorization": f"Basic {b64encode(secret.encode()).decode()}"} if secret else {}
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(urllib.request.Request(url, headers=headers), timeout=10) as response:
            return response.status, response.read(100)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ConnectionRefusedError) else (0, b"")
    except (OSError, http.client.HTTPException):
        return 0, b""


@dataclass(frozen=True)
class Background:
    """A process of `make up` that lives on: its log, and a file with its id and a digest of the settings it was started with."""

    name: str
    logs: Path

    @property
    def log(self) -> Path:
        """What it says."""
        return self.logs / f"{self.name}.log"

    @property
    def note(self) -> Path:
        """Its id and its settings' digest."""
        return self.logs / f"{self.name}.pid"

    def start(self, arguments: Sequence[str], settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start it in a session of its own, which no terminal ends."""
        self.logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "prefect", self.name, "start", *arguments]
        with self.log.open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **settings}, start_new_session=True)
        self.note.write_text(f"{process.pid} {_digest(settings)}\n", encoding="utf-8")
        return process

    def running(self) -> int | None:
        """Its process id while it lives; another program that got the id since is not it."""
        words = self.note.read_text(encoding="utf-8").split() if self.note.exists() else []
        if not words:
            return None
        arguments = subprocess.run(["ps", "-p", words[0], "-o", "args="], capture_output=True, text=True, check=False).stdout
        return int(words[0]) if f"prefect {self.name} start" in arguments else None

    def has(self, settings: Mapping[str, str]) -> bool:
        """Whether it was started with these settings."""
        return self.note.read_text(encoding="utf-8").split()[1:] == [_digest(settings)]

    def stop(self) -> bool:
        """End it, by force if it takes too long; says whether it ran."""
        process = self.running()
        if process is not None:
            os.kill(process, signal.SIGTERM)
            limit = time.monotonic() + STOP_SECONDS
            while self.running() and time.monotonic() < limit:
                time.sleep(0.2)
            if self.running():
                os.kill(process, signal.SIGKILL)
        self.note.unlink(missing_ok=True)
        return process is not None

    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def _digest(settings: Mapping[str, str]) -> str:
    return hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:16]


def ensure_server(server: StandingServer, process: Background) -> None:
    """Start the server, or use the one that runs; ends with what to do where that is not ours, and with its last words where it does not come up."""
    answer = server.answer()
    if answer is Answer.NOBODY:
        if (earlier := process.running()) is not None:
            sys.exit(f"a server that `make up` started (process {earlier}) runs, and not on port {server.port}: `make down`, or the PORT it was started with")
        started = process.start(["--host", HOST, "--port", str(server.port)], server.environment())
        limit = time.monotonic() + START_SECONDS
        while (answer := server.answer()) is Answer.NOBODY and started.poll() is None and time.monotonic() < limit:
            time.sleep(0.3)
        if answer is Answer.NOBODY:
            process.stop()
            sys.exit(f"{process.last_words()}\nthe Prefect server did not come up; above is the end of {process.log}")
    if answer is not Answer.OURS:
        sys.exit(server.fault(answer))


def ensure_worker(server: StandingServer, process: Background) -> None:
    """Start the worker, unless the one that runs knows this server and its secret: one of earlier is replaced."""
    if process.running() is None or not process.has(server.environment()):
        process.stop()
        process.start(["--pool", "local"], server.environment())


def main(words: Sequence[str]) -> None:
    """What the Makefile calls."""
    parser = argparse.ArgumentParser(prog="python -m tasks.gateways.standing_server", description=__doc__)
    parser.add_argument("--port", type=int, default=4200)
    parser.add_argument(
        "what", choices=("server", "worker", "stop", "run"), help="start or find the server, the worker; stop both; run a command that knows the secret"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args(words)
    processes = {name: Background(name, LOGS) for name in ("worker", "server")}  # the worker is stopped first: it tells the server
    if asked.what == "stop":
        for name, process in processes.items():
            if process.stop():
                sys.stdout.write(f"stopped the {name}\n")
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background, where Prefect's processes could not be ended
    server = StandingServer(port=asked.port, secret=own_secret(SECRET))
    if asked.what == "server":
        ensure_server(server, processes["server"])
    elif asked.what == "worker":
        ensure_worker(server, processes["worker"])
    elif (answer := server.answer()) is not Answer.OURS:
        sys.exit(server.fault(answer))
    else:
        os.execvpe(asked.command[0], asked.command, {**os.environ, **server.environment()})


if __name__ == "__main__":
    main(sys.argv[1:])
