"""The server of `make up` in front of a hostile web page, in a real browser whose user is logged in to the UI; its secret; who else may answer on its port."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from tasks.gateways.standing_server import SECRET, Answer, StandingServer, own_secret
from tests.flows.pipeline import PROJECT, wait_for

# What a page can send: it returns what it could read. Every request that would make a flow bears the name of its dress.
ATTACK = """async ({api, flow, deployment, run}) => {
  const dresses = {
    json: body => ({headers: {"Content-Type": "application/json"}, body}),
    guess: body => ({headers: {"Content-Type": "application/json", "Authorization": "Basic " + btoa("admin:pass")}, body}),
    plain: body => ({headers: {"Content-Type": "text/plain"}, body}),
    untyped: body => ({body: new Blob([body])}),
    opaque: body => ({mode: "no-cors", credentials: "include", body: new Blob([body])}),
    opaque_plain: body => ({mode: "no-cors", credentials: "include", body}),
  };
  const read = [];
  const ask = async (path, options) => {
    try {
      let answer;
      do answer = await fetch(api + path, options); while (answer.status === 503);  // its database is busy
      if (answer.ok) read.push(path + " " + await answer.text());
    } catch {}
  };
  const write = (dress, path, body) => ask(path, {method: "POST", ...dresses[dress](JSON.stringify(body))});
  await ask("/health");
  await ask("/admin/version");
  for (const dress in dresses) {
    await write(dress, "/flow_runs/filter", {});
    await write(dress, "/flows/", {name: dress});
    await write(dress, "/deployments/", {name: dress, flow_id: flow, pull_steps: [{"prefect.deployments.steps.run_shell_script": {script: "id"}}]});
    await write(dress, `/deployments/${deployment}/create_flow_run`, {name: dress});
    await write(dress, `/flow_runs/${run}/set_state`, {state: {type: "CANCELLED", name: dress}, force: true});
  }
  await ask(`/flow_runs/${run}`, {method: "PATCH", ...dresses.json(JSON.stringify({name: "renamed"}))});

  const form = document.createElement("form"), frame = document.createElement("iframe"), field = document.createElement("input");
  frame.name = form.target = "hidden";
  Object.assign(form, {method: "POST", action: api + "/flows/", enctype: "text/plain"});
  Object.assign(field, {name: '{"name": "form", "labels": {"a": "', value: '"}}'});
  form.append(field);
  document.body.append(frame, form);
  await new Promise(done => { frame.onload = done; form.submit(); });

  const event = kind => JSON.stringify(
    {id: crypto.randomUUID(), occurred: new Date().toISOString(), event: "evil." + kind, resource: {"prefect.resource.id": "evil"}, payload: {}, related: []});
  const knock = (path, protocols, first, then) => new Promise(done => {
    const door = new WebSocket(api.replace("http", "ws") + path, protocols);
    door.onclose = done;
    door.onopen = () => { door.send(first); if (!then) door.close(); };
    door.onmessage = message => { read.push(path + " " + message.data); door.send(then); door.close(); };
  });
  await knock("/events/in", [], event("legacy"));
  for (const token of [null, "admin:pass"]) {
    const shown = JSON.stringify({type: "auth", token});
    await knock("/events/in", ["prefect"], shown, event("shown"));
    for (const path of ["/events/out", "/logs/out"]) await knock(path, ["prefect"], shown, JSON.stringify({type: "filter", filter: {}}));
  }
  return read;
}"""


@dataclass(frozen=True)
class Api:
    """A Prefect API, asked by somebody who may."""

    port: int
    secret: str | None = None

    def __call__(self, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.secret:
            headers["Authorization"] = f"Basic {b64encode(self.secret.encode()).decode()}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api{path}", data, headers)
        for _ in range(50):
            try:
                with urllib.request.urlopen(request) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code != 503:  # its database is busy
                        raise
        raise AssertionError("its database is busy for ever")

    def everything(self) -> dict[str, set[str]]:
        """All that a page could have made or changed."""
        runs = self("/flow_runs/filter", {})
        events = self("/events/filter", {"filter": {"event": {"prefix": ["evil."]}, "order": "ASC"}})["events"]
        return {
            "deployments": {each["name"] for each in self("/deployments/filter", {})},
            "flows": {each["name"] for each in self("/flows/filter", {})},
            "runs": {f"{each['id']} {each['name']} {each['state_type']}" for each in runs},
            "events": {each["event"] for each in events},
        }


def standing(folder: Path, port: int, *words: str) -> subprocess.Popen[str]:
    """What the Makefile calls, in a folder of its own."""
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
    command = [sys.executable, "-m", "tasks.gateways.standing_server", "--port", str(port), *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(folder: Path, port: int, *words: str) -> tuple[int, str, str]:
    """Its exit code and what it said, each as one line."""
    process = standing(folder, port, *words)
    said, complained = process.communicate()
    return process.returncode, said.strip(), complained.strip()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def home(folder: Path) -> Path:
    """A folder as `make up` finds the project's."""
    (folder / "data").mkdir()
    shutil.copy(PROJECT / "prefect.toml", folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return home(tmp_path_factory.mktemp("standing"))


@pytest.fixture(scope="module")
def servers(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Api, Api]]:
    """The server of `make up`, and beside it Prefect's own settings: open to all."""
    port = free_port()
    starting = standing(folder, port, "server")
    request.getfixturevalue("prefect_server")
    from prefect.settings import PREFECT_API_URL

    said = starting.communicate()
    try:
        assert (starting.returncode, *said) == (0, "", "")
        yield Api(port, (folder / SECRET).read_text()), Api(int(re.findall(r":(\d+)", PREFECT_API_URL.value())[0]))
    finally:
        assert finished(folder, port, "stop") == (0, "stopped the server", "")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of a web site that has nothing to do with us."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>cats</title><body>")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield site.server_address[1]
        site.shutdown()
        thread.join()


def attack(context: BrowserContext, api: Api, elsewhere: int) -> tuple[dict[str, set[str]], dict[str, set[str]], list[str]]:
    """What the server held before and after, and what pages could read: a foreign port, a foreign name, and a name that now leads here (DNS rebinding)."""
    flow = api("/flows/", {"name": "ours"})["id"]
    deployment = api("/deployments/", {"name": "ours", "flow_id": flow})["id"]
    run = api(f"/deployments/{deployment}/create_flow_run", {"name": "ours"})["id"]
    before, read = api.everything(), list[str]()
    for address, target in (
        (f"http://127.0.0.1:{elsewhere}/", "127.0.0.1"),
        (f"http://localhost:{elsewhere}/", "127.0.0.1"),
        (f"http://localhost:{api.port}/api/health", "localhost"),
    ):
        page = context.new_page()
        page.goto(address)
        read += page.evaluate(ATTACK, {"api": f"http://{target}:{api.port}/api", "flow": flow, "deployment": deployment, "run": run})
    return before, api.everything(), read


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.prefect
def test_a_web_page_can_neither_read_nor_start_nor_change_a_run(chromium: Browser, servers: tuple[Api, Api], elsewhere: int) -> None:
    closed, unlocked = servers
    context = chromium.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{closed.port}")
    page.locator("input[type=password]").fill(closed.secret or "")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("dashboard$"), timeout=60_000)
    before, after, read = attack(context, closed, elsewhere)
    assert read == ["/health true"]  # by the page whose name leads here, that is of the same origin; health is no secret
    assert after == before

    before, after, read = attack(context, unlocked, elsewhere)
    assert {each.split()[0] for each in read} >= {"/admin/version", "/flow_runs/filter", "/flows/", "/events/out", "/logs/out"}
    works = {"json", "guess", "untyped", "opaque"}
    new = {what: after[what] - before[what] for what in after}
    assert new["flows"] >= works
    assert new["deployments"] >= works
    assert {each.split()[1] for each in new["runs"]} >= works
    assert any(each.endswith("renamed CANCELLED") for each in new["runs"])
    wait_for(lambda: unlocked.everything()["events"] >= {"evil.legacy", "evil.shown"})  # they are stored by the way
    assert closed.everything()["events"] == set()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.prefect
def test_what_answers_on_a_port_is_used_only_where_it_is_ours(servers: tuple[Api, Api], elsewhere: int, folder: Path) -> None:
    closed, unlocked = servers
    assert closed.secret is not None
    for port, secret, answer in (
        (closed.port, closed.secret, Answer.OURS),
        (closed.port, "of another folder", Answer.FOREIGN),
        (unlocked.port, closed.secret, Answer.OPEN),
        (elsewhere, closed.secret, Answer.STRANGER),
        (free_port(), closed.secret, Answer.NOBODY),
    ):
        assert StandingServer(port=port, secret=secret).answer() is answer
    for port, told in ((unlocked.port, "asks for no secret"), (elsewhere, "no Prefect server"), (free_port(), "`make down`")):
        code, said, complained = finished(folder, port, "server")
        assert (code, said, len(complained.splitlines())) == (1, "", 1)
        assert told in complained
    assert finished(folder, closed.port, "server") == (0, "", "")


@pytest.mark.slow
@pytest.mark.prefect
def test_a_command_learns_the_secret_and_the_lists_of_processes_and_logs_do_not(servers: tuple[Api, Api], folder: Path) -> None:
    closed, _ = servers
    assert closed.secret is not None
    asked = "from prefect.settings import PREFECT_API_AUTH_STRING as s, PREFECT_API_URL as u; print(s.value(), u.value())"
    assert finished(folder, closed.port, "run", sys.executable, "-c", asked) == (0, f"{closed.secret} http://127.0.0.1:{closed.port}/api", "")
    assert not [each for each in psutil.process_iter(["cmdline"]) if closed.secret in " ".join(each.info["cmdline"] or [])]
    logs = [path for path in folder.rglob("*") if path.is_file() and path.name != SECRET.name]
    assert folder / "data/logs/server.log" in logs
    assert not [path for path in logs if closed.secret.encode() in path.read_bytes()]


def test_a_worker_that_was_started_with_another_secret_is_replaced(tmp_path: Path) -> None:
    folder, port = home(tmp_path), free_port()
    note = folder / "data/logs/worker.pid"
    started = []
    for secret in ("the first of the secrets", "the first of the secrets", "the second of the secrets"):
        (folder / SECRET).unlink(missing_ok=True)
        (folder / SECRET).touch(mode=0o600)
        (folder / SECRET).write_text(secret)
        assert finished(folder, port, "worker") == (0, "", "")
        started.append(int(note.read_text().split()[0]))
    assert started[0] == started[1] != started[2]
    assert not psutil.pid_exists(started[0]) or psutil.Process(started[0]).status() == psutil.STATUS_ZOMBIE
    assert finished(folder, port, "stop") == (0, "stopped the worker", "")
    assert not note.exists()


def test_a_secret_is_its_owners_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = own_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(secret) >= 32
    assert own_secret(path) == secret != own_secret(tmp_path / "another")


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("a secret that is long enough", 0o640, "others than you"),
        ("a secret that is long enough", 0o602, "others"),
        ("", 0o600, "shorter"),
        ("x" * 15, 0o600, "shorter"),
    ],
)
def test_a_secret_that_is_none_is_not_used(tmp_path: Path, text: str, mode: int, told: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(SystemExit, match=f"{told}.*delete it"):
        own_secret(path)
