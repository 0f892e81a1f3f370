"""One tiny student for all tests of the training room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_student import make_tiny_student


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Peft and TRL use names of gradient checkpointing that the newest transformers calls deprecated; the new ones are unknown to older ones."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny student's weights and tokenizer."""
    return make_tiny_student(tmp_path_factory.mktemp("tiny"))
