"""A run is stopped in teach: by Ctrl-C of a terminal's whole group, where SIGINT is ignored, by SIGTERM, SIGKILL. Its temporary server is closed to others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.flows.pipeline import PROFILE, PROJECT, wait_for

pytestmark = [pytest.mark.slow]
LAST_LINE = "stopped; run the same command again to go on from here"
IGNORED = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.mark.parametrize(
    ("number", "code", "ignored"),
    [(signal.SIGINT, 130, False), (signal.SIGINT, 130, True), (signal.SIGTERM, 143, False), (signal.SIGKILL, -9, False)],
)
def test_nothing_that_a_run_started_outlives_it(tmp_path: Path, schooled_student: Path, number: signal.Signals, code: int, ignored: bool) -> None:
    settings = {"execution.root": str(tmp_path / "root"), "recipe.student.model": str(schooled_student)}
    sets = [part for path, value in settings.items() for part in ("--set", f"{path}={json.dumps(value)}")]
    command = [sys.executable, "-m", "flows.cli", "run", str(PROFILE), *sets]
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {"PREFECT_HOME": str(tmp_path / "prefect")}
    environment |= {"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "said").open("w") as said:
        wrapped = [sys.executable, "-c", IGNORED, *command] if ignored else command
        process = subprocess.Popen(wrapped, cwd=PROJECT, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        wait_for(lambda: process.poll() is not None or any((tmp_path / "root").glob("data/.work/*")))
        assert process.poll() is None, (tmp_path / "said").read_text()
        started = psutil.Process(process.pid).children(recursive=True)
        [server] = [words for words in (each.cmdline() for each in started) if any("create_app" in word for word in words)]
        with pytest.raises(urllib.error.HTTPError, match="401"):  # what a web page could ask, too
            urllib.request.urlopen(f"http://127.0.0.1:{server[server.index('--port') + 1]}/api/admin/version")
        os.killpg(process.pid, number)
        assert process.wait(timeout=10) == code, (tmp_path / "said").read_text()
        assert not psutil.wait_procs(started, timeout=15)[1]
    finally:
        process.kill()
    text = (tmp_path / "said").read_text()
    assert "Traceback" not in text
    if number != signal.SIGKILL:
        assert text.splitlines()[-1] == LAST_LINE
