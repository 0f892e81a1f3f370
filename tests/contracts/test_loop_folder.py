"""The loop's folder: rounds, and a pointer that remembers where it stood."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.artifacts import ArtifactRoot, ModelRef
from tasks.contracts.failures import ArtifactError, DataError
from tasks.contracts.loops import LoopFolder
from tasks.contracts.rounds import Round


def ref(name: str) -> ModelRef:
    return ModelRef(stage="align", key=name, digest=f"{name}-digest", path=f"models/align/{name}", base="models/student/s")


def a_round(number: int) -> Round:
    plain = {"str": "", "int": 0, "float": 0.0, "tuple[str, ...]": ()}
    return Round(**{**{field.name: plain[str(field.type)] for field in fields(Round)}, "number": number})


@pytest.fixture
def folder(tmp_path: Path) -> LoopFolder:
    return LoopFolder(ArtifactRoot(tmp_path), "demo", ref("start"))


def test_a_loop_that_never_fired_points_at_its_start_and_leaves_no_file(folder: LoopFolder) -> None:
    assert folder.accepted.adapter == ref("start")
    assert folder.rounds == []
    assert not folder.path.exists()


def test_another_start_is_another_loop(folder: LoopFolder) -> None:
    folder.move(label="round 1", adapter=ref("one"), why="promote", at="t")
    assert folder.accepted.adapter == ref("one")
    other = LoopFolder(folder.root, "demo", ref("other"))
    assert other.accepted.adapter == ref("other")


def test_rounds_come_back_as_they_were(folder: LoopFolder) -> None:
    folder.keep([a_round(0)])
    folder.keep([a_round(0), a_round(1)])
    assert folder.rounds == [a_round(0), a_round(1)]
    assert [path.name for path in folder.path.iterdir()] == ["rounds.parquet"]


def test_a_move_remembers_how_many_rounds_had_ended(folder: LoopFolder) -> None:
    folder.keep([a_round(0), a_round(1), a_round(2)])
    assert folder.move(label="round 1", adapter=ref("one"), why="promote", at="t").rounds == 2


def test_a_kill_between_the_gates_move_and_its_row_leaves_the_pointer_where_it_was(folder: LoopFolder) -> None:
    folder.keep([a_round(0)])
    folder.move(label="round 1", adapter=ref("cut off"), why="gate", at="t")
    assert folder.accepted.adapter == ref("start")
    folder.move(label="round 1", adapter=ref("one"), why="gate", at="t")
    folder.keep([a_round(0), a_round(1)])
    assert folder.accepted.adapter == ref("one")
    assert folder.roll_back(at="t").adapter == ref("start")


def test_the_start_cannot_be_rolled_back(folder: LoopFolder) -> None:
    with pytest.raises(DataError, match="promote a round"):
        folder.roll_back(at="t")
    assert folder.moves == []


def test_a_damaged_pointer_says_what_to_do(folder: LoopFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "moves.json").write_text("[{", encoding="utf-8")
    with pytest.raises(ArtifactError, match="delete it"):
        _ = folder.accepted


@given(st.lists(st.sampled_from(["move", "back"]), max_size=12))
def test_rolling_back_is_undoing(tmp_path_factory: pytest.TempPathFactory, actions: list[str]) -> None:
    folder = LoopFolder(ArtifactRoot(tmp_path_factory.mktemp("root")), "demo", ref("start"))
    held = ["start"]
    for number, action in enumerate(actions):
        if action == "move":
            folder.move(label=f"round {number}", adapter=ref(str(number)), why="promote", at="t")
            held.append(f"round {number}")
        elif len(held) > 1:
            folder.roll_back(at="t")
            held.pop()
        assert folder.accepted.label == held[-1]
