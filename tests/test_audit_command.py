"""`socratune audit` as a person meets it: recordings alone, no run, no network, no key."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app

STORED = json.loads(files("tasks.logic.benchmarks").joinpath("strategyqa_splits.json").read_text(encoding="utf-8"))
HUB = {"r": "train", "d": "dev", "e": "test"}
IDS = [(row.split()[0], HUB[row.split()[2][0]]) for row in STORED["questions"]]
PICKED = [(qid, next(number for number, each in enumerate(IDS) if each[0] == qid)) for split in HUB.values() for qid, home in IDS if home == split][::12]


def invoke(root: Path, **changes: Any) -> Result:
    settings = {"execution.root": root, **{path.replace("__", "."): value for path, value in changes.items()}}
    sets = [part for path, value in settings.items() for part in ("--set", f"{path}={value}")]
    return CliRunner().invoke(app, ["audit", "strategyqa-recorded", *sets], env={"NO_COLOR": "1"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A question file and a teacher that says No to nearly everything; made-up texts under public ids."""
    rows = [{"qid": qid, "question": f"Would {qid[:9]} and {qid[9:]} meet?", "answer": number % 2 == 0, "facts": ["f"]} for qid, number in PICKED]
    said = [{"qid": row["qid"], "reasoning": "So it is.", "answer": "yes" if row["answer"] and index % 5 == 0 else "no"} for index, row in enumerate(rows)]
    (tmp_path / "questions.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "nano.jsonl").write_text("\n".join(map(json.dumps, said)), encoding="utf-8")
    return tmp_path


def test_recordings_are_judged_without_a_run(data: Path) -> None:
    done = invoke(data, recipe__sample__path=data / "questions.json", recipe__teacher__recordings=f"[{data / 'nano.jsonl'}]")
    assert done.exit_code == 0, done.output
    assert "biased" in done.output
    (folder,) = (data / "data" / "audit").iterdir()
    assert str(folder / "audit.html") in "".join(done.output.split("\n"))
    read = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    (teacher,) = read["teachers"]
    assert (teacher["name"], teacher["finding"], teacher["true_no"], teacher["unstated"]) == ("nano", "biased", 1.0, teacher["answered"])
    assert {split: each["questions"] > 0 for split, each in read["splits"].items()} == {"train": True, "dev": True, "test": True}
    assert "nano is biased towards no" in (folder / "audit.html").read_text(encoding="utf-8")
    assert [path.name for path in data.rglob("artifact.json")] == []  # looking computes no stage

    again = invoke(data, recipe__sample__path=data / "questions.json", recipe__teacher__recordings=f"[{data / 'nano.jsonl'}]")
    assert again.exit_code == 0
    assert list((data / "data" / "audit").iterdir()) == [folder]


def test_two_files_of_one_name_are_told_apart_by_their_folders(data: Path) -> None:
    (data / "other").mkdir()
    twin = data / "other" / "nano.jsonl"
    twin.write_bytes((data / "nano.jsonl").read_bytes())
    done = invoke(data, recipe__sample__path=data / "questions.json", recipe__teacher__recordings=f"[{data / 'nano.jsonl'},{twin}]")
    assert done.exit_code == 0, done.output
    (page,) = data.rglob("audit.json")
    read = json.loads(page.read_text(encoding="utf-8"))
    assert [each["name"] for each in read["teachers"]] == [f"{data.name}/nano", "other/nano"]
    assert read["kappas"][0]["kappa"] == 1.0


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        ("", "holds no reply"),
        ('{"qid": "nobody", "reasoning": "r", "answer": "yes"}', "check recipe.sample.path"),
        ("{", "not JSON"),
    ],
)
def test_a_recording_that_cannot_be_judged_is_one_clear_error(data: Path, recording: str, words: str) -> None:
    (data / "bad.jsonl").write_text(recording, encoding="utf-8")
    done = invoke(data, recipe__sample__path=data / "questions.json", recipe__teacher__recordings=f"[{data / 'bad.jsonl'}]")
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert not list(data.rglob("audit.html"))
