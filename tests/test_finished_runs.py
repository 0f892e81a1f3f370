"""Finished runs as a person names them: in a list, by a short name, as the last one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from tasks.contracts.failures import DataError
from tasks.runs import find_run
from tests.logic.report.sample_run import sample_summary


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80", "NO_COLOR": "1"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("demo-20250101T101500000000Z", "demo-20250301T101500000000Z", "pocketqa-20250201T080000000000Z"):
        folder = tmp_path / "data" / "runs" / name
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({**sample_summary(), "profile": name.split("-")[0]}), encoding="utf-8")
    (tmp_path / "data" / "runs" / "demo-20260101T000000000000Z").mkdir()  # one that did not finish
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("last", "demo-20250301T101500000000Z"),
        ("demo", "demo-20250301T101500000000Z"),
        ("demo-202501", "demo-20250101T101500000000Z"),
        ("pocketqa", "pocketqa-20250201T080000000000Z"),
        ("pocketqa-20250201T080000000000Z", "pocketqa-20250201T080000000000Z"),
    ],
)
def test_a_run_goes_by_a_short_name(name: str, found: str, root: Path) -> None:
    assert find_run(name, root=root) == root / "data" / "runs" / found
    assert find_run(str(root / "data" / "runs" / found), root=Path("elsewhere")).name == found


def test_a_run_that_is_not_there_is_told_with_those_that_are(root: Path) -> None:
    with pytest.raises(DataError, match="known ones: demo-20250301T101500000000Z, pocketqa"):
        find_run("nobody", root=root)
    assert "there is none yet: socratune run demo makes one" in " ".join(invoke("show", "last", "--root", str(root / "data")).output.split())


def test_runs_are_listed_newest_first_and_shown_by_name(root: Path) -> None:
    said = invoke("runs", "--root", str(root)).output
    names = [line.split()[0] for line in said.splitlines() if not line.startswith(" ")]
    assert names == ["demo-20250301T101500000000Z", "pocketqa-20250201T080000000000Z", "demo-20250101T101500000000Z"]
    assert "2025-03-01 10:15 UTC" in said
    assert "Track B 87.5 %" in said
    assert "Track B, reasons first" in invoke("show", "pocketqa", "--root", str(root)).output


def test_profiles_and_the_version_are_told() -> None:
    said = invoke("profiles").output
    assert next(line for line in said.splitlines() if line.startswith("demo ")).split(None, 1)[1].startswith("The demo")
    assert invoke("--version").output.split()[0] == "socratune"
