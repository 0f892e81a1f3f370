"""A Prefect server that is named is looked at before anything is done: what cannot be used is one error that says what to do."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from tasks.contracts.failures import ServerError
from tasks.orchestrator import find_server


@contextmanager
def answering(statuses: dict[str, int]) -> Iterator[str]:
    """A web server that answers each path with a status, 404 for any other; "secret" in `statuses` where it wants Basic c2VjcmV0 for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == "Basic c2VjcmV0"
            status = statuses.get(self.path, 404)
            self.send_response(200 if status == 401 and known else status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ({}, "404"),
        ({"/api/health": 503}, "503"),
        ({"/api/health": 200, "/api/admin/version": 401}, "PREFECT_API_AUTH_STRING"),
    ],
    ids=["no Prefect", "not ready", "wants a secret"],
)
def test_a_server_that_cannot_be_used_is_told(statuses: dict[str, int], words: str) -> None:
    with answering(statuses) as api, temporary_settings({PREFECT_API_URL: api}), pytest.raises(ServerError, match=words) as told:
        find_server()
    assert api in str(told.value)
    assert "make up" in str(told.value)


def test_a_server_that_is_not_there_is_told() -> None:
    with answering({}) as api:
        pass
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(ServerError, match=r"refused.*make up.*unset PREFECT_API_URL"):
        find_server()


@pytest.mark.parametrize("secret", [None, "secret"])
def test_a_server_that_answers_is_used(secret: str | None) -> None:
    before = os.environ.get("PREFECT_API_URL")
    statuses = {"/api/health": 200, "/api/admin/version": 401 if secret else 200}
    with answering(statuses) as api, temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: secret}):
        find_server()()
    assert os.environ.get("PREFECT_API_URL") == before, "a temporary one took its place"
