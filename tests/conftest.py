"""One Prefect server for the whole session, and a place for artifacts of every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A real Prefect server with its own database, gone after the session."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def schooled_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student whose answers have verdicts."""
    from tests.schooled_student import make_schooled_student

    return make_schooled_student(tmp_path_factory.mktemp("schooled"))
