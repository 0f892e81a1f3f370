"""A teacher in this process, so that calls are counted by the server and not by the pipeline; a student that has been to school."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.gateways.simulated_knowledge import Said
from tasks.gateways.simulated_teacher import SimulatedServer, serve_simulated
from tests.flows.pipeline import Pipeline

KEY, THOUGHT = "sk-canary-of-the-tests", "canary-of-a-thought"


class Slip(Said):
    """A reply whose thoughts were let slip, and the key in them."""

    def content(self, body: dict[str, Any]) -> str:
        return f"<think>\n{THOUGHT}, {KEY}\n</think>\n{super().content(body)}"


class SlippingServer(SimulatedServer):
    """A teacher that lets its thoughts slip."""

    def says(self, body: dict[str, Any]) -> Said | None:
        said = super().says(body)
        return said and Slip(**vars(said))


@pytest.fixture(scope="module")
def teacher() -> Iterator[tuple[SimulatedServer, str]]:
    server = SlippingServer(error_rate=0.3, no_bias=0.8)
    with serve_simulated(server) as url:
        yield server, url


@pytest.fixture(scope="module")
def pipeline(prefect_server: None, schooled_student: Path, teacher: tuple[SimulatedServer, str], tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    from prefect.settings import PREFECT_API_URL

    environment = {
        "PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "OPENAI_BASE_URL": teacher[1], "OPENAI_API_KEY": KEY,
    }  # fmt: skip
    price = {"input": 1.0, "cached_input": None, "output": 2.0}
    asked_over_http = {
        "recipe.teacher.kind": "openai", "recipe.teacher.model": "gpt-4",
        "recipe.teacher.error_rate": None, "recipe.teacher.no_bias": None, "execution.teacher.price": price,
    }  # fmt: skip
    return Pipeline(root=tmp_path_factory.mktemp("root"), student=schooled_student, environment=environment, changes=asked_over_http)
