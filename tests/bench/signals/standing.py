"""A Prefect server that outlives the runs, as `make up` starts one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STARTS_WITHIN = 120.0  # seconds


@contextmanager
def standing_server(home: Path) -> Iterator[str]:
    """Serve on a free port with a database of its own; yields the address of its API."""
    home.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    api = f"http://127.0.0.1:{port}/api"
    with (home / "server.log").open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as process:
        try:
            limit = time.monotonic() + STARTS_WITHIN
            while not _healthy(api):
                assert process.poll() is None, (home / "server.log").read_text()
                assert time.monotonic() < limit, "the server does not start"
                time.sleep(0.5)
            yield api
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _healthy(api: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{api}/health") as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
