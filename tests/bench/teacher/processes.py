"""Processes of the bench: the server, the clients, and curator's own environment. Everything stays on this machine's loopback."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[3]
PLACE = PROJECT / "data" / ".bench"
CURATOR = "bespokelabs-curator==0.1.31"
_ENVIRONMENT = PLACE / "curator" / ".venv"
_HERE = Path(__file__).resolve().parent


@dataclass
class Server:
    """A simulated server in a process of its own."""

    url: str

    def stats(self) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url.removesuffix("/v1") + "/stats") as reply:
            return json.loads(reply.read())


@contextmanager
def serving(**settings: object) -> Iterator[Server]:
    """An echo server with these settings, by the names of its options; gone after the block."""
    options = [part for name, value in settings.items() if value is not None for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "tasks.gateways.simulated_server", "--port", "0", "--echo", *options]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(url=process.stdout.readline().strip())
        finally:
            process.kill()


def run_client(
    name: str, spec: dict[str, Any], *, server: Server, limit: float, cached: bool = False, kill_when: Callable[[], bool] | None = None
) -> dict[str, Any]:
    """Run one client to its end, or kill it with -9 when `kill_when` says so or `limit` seconds have passed. Returns what it reported."""
    work = Path(spec["work"])
    work.mkdir(parents=True, exist_ok=True)
    result, request = work / "result.json", work / "spec.json"
    result.unlink(missing_ok=True)
    request.write_text(json.dumps({**spec, "base_url": server.url, "result": str(result)}))
    with (work / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [*_command(name), str(request)],
            cwd=_HERE if name == "curator" else PROJECT,
            env=_environment(name, server, work, cached=cached),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        ended = _wait(process, limit=limit, kill_when=kill_when)
    if result.is_file():
        return json.loads(result.read_text())
    last = re.sub(r"\x1b\[[\d;]*m", "", (work / "log.txt").read_text(errors="replace")).strip().splitlines()[-1:]
    return {"lost": None, "error": "killed" if ended == "killed" else f"{ended}{''.join(f'; last line: {line[:150]}' for line in last)}"}


def _wait(process: subprocess.Popen[bytes], *, limit: float, kill_when: Callable[[], bool] | None) -> str:
    until = time.monotonic() + limit
    why = "ended without a result"
    while process.poll() is None:
        killed = kill_when is not None and kill_when()
        if killed or time.monotonic() > until:
            why = "killed" if killed else f"still running after {limit:.0f} s"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(0.02)
    return why


def _command(name: str) -> list[str]:
    if name == "curator":
        return [str(_ENVIRONMENT / "bin" / "python"), str(_HERE / "curator_client.py")]
    return [sys.executable, "-m", "tests.bench.teacher.ours"] if name == "ours" else [sys.executable, "-m", "tests.bench.teacher.rivals", name]


def _environment(name: str, server: Server, work: Path, *, cached: bool) -> dict[str, str]:
    environment = {**os.environ, "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-of-the-bench", "NO_PROXY": "127.0.0.1"}
    if name == "curator":
        environment |= {
            "HOME": str(PLACE / "curator"),  # it writes an id for its telemetry there, even with telemetry off
            "CURATOR_CACHE_DIR": str(work / "cache"),
            "CURATOR_DISABLE_CACHE": "0" if cached else "1",
            "CURATOR_DISABLE_RICH_DISPLAY": "1",
            "TELEMETRY_ENABLED": "false",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "TIKTOKEN_CACHE_DIR": str(next(_ENVIRONMENT.glob("lib/*/site-packages/litellm/litellm_core_utils/tokenizers"), "")),
            "HF_HUB_OFFLINE": "1",
        }
    return environment


def install_curator() -> str:
    """Make curator's environment where there is none; returns "" or why it cannot be had."""
    ready = _ENVIRONMENT / "installed"
    if ready.is_file():
        return ""
    sys.stderr.write(f"installing {CURATOR} under {_ENVIRONMENT.parent} ...\n")
    shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(_ENVIRONMENT)],
        [str(_ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", CURATOR],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{CURATOR} does not install here: {(done.stderr.strip().splitlines() or ['no reason given'])[-1][:200]}"
    ready.touch()
    return ""
