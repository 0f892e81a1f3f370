from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contracts.artifacts import RECORD, TABLE, Address, ArtifactRoot, TableRef, content_digest, read_rows, write_rows
from tasks.contracts.failures import ArtifactError
from tasks.contracts.rows import Drafted, Question

ADDRESS = Address(stage="sample", version=1, recipe={"n": 2}, inputs={})


def question(qid: str, **changes: object) -> Question:
    values: dict[str, object] = {
        "qid": qid, "split": "train", "kind": "height", "term": "K2", "description": "", "question": "Is K2 tall?", "answer": "yes",
        "facts": ("K2 is 8,611 m tall.", "é, \u2028 and 'quotes'"), "decomposition": (), "entities": ("K2",),
    }  # fmt: skip
    return Question(**{**values, **changes})  # type: ignore[arg-type]


def save(root: ArtifactRoot) -> TableRef[Question]:
    return root.save_table(ADDRESS, [question("a"), question("b")], Question, summary={"rows": 2}, seconds=0.1)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    root = ArtifactRoot(tmp_path)
    ref = save(root)
    assert root.read(ref, Question) == [question("a"), question("b")]
    assert (ref.rows, root.record(ref)["summary"]) == (2, {"rows": 2})


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    write_rows(tmp_path / TABLE, [], Question)
    assert read_rows(tmp_path / TABLE, Question) == []


def test_the_same_rows_have_the_same_digest_wherever_they_lie(tmp_path: Path) -> None:
    assert save(ArtifactRoot(tmp_path / "one")).digest == save(ArtifactRoot(tmp_path / "two")).digest


def test_no_record_no_artifact(tmp_path: Path) -> None:
    root = ArtifactRoot(tmp_path)
    (root.absolute(save(root)) / RECORD).unlink()
    assert root.find_table(ADDRESS) is None


@pytest.mark.parametrize("damage", ["delete", "flip", "truncate", "record"])
def test_a_damaged_artifact_is_not_found(tmp_path: Path, damage: str) -> None:
    root = ArtifactRoot(tmp_path)
    folder = root.absolute(save(root))
    table = folder / TABLE
    content = bytearray(table.read_bytes())
    match damage:
        case "delete":
            table.unlink()
        case "flip":
            content[len(content) // 2] ^= 1
            table.write_bytes(content)
        case "truncate":
            table.write_bytes(content[:-7])
        case "record":
            (folder / RECORD).write_text("{", encoding="utf-8")
    assert root.find_table(ADDRESS) is None


def test_a_corrupt_parquet_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_bytes(b"not parquet")
    with pytest.raises(ArtifactError, match="delete its folder and run again"):
        read_rows(tmp_path / TABLE, Question)


def test_another_row_class_names_the_column_that_differs(tmp_path: Path) -> None:
    write_rows(tmp_path / TABLE, [question("a")], Question)
    with pytest.raises(ArtifactError, match="column 'draft' is missing"):
        read_rows(tmp_path / TABLE, Drafted)
    pq.write_table(pa.table({"qid": [1]}), tmp_path / TABLE)
    with pytest.raises(ArtifactError, match="column 'qid' is int64"):
        read_rows(tmp_path / TABLE, Question)


def test_an_address_depends_on_stage_version_recipe_and_inputs_only() -> None:
    others = [
        Address(stage="draft", version=1, recipe={"n": 2}, inputs={}),
        Address(stage="sample", version=2, recipe={"n": 2}, inputs={}),
        Address(stage="sample", version=1, recipe={"n": 3}, inputs={}),
        Address(stage="sample", version=1, recipe={"n": 2}, inputs={"rows": "abc"}),
    ]
    assert len({each.fingerprint for each in [ADDRESS, *others]}) == 5


def test_files_count_by_content_not_by_path(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    assert content_digest(tmp_path / "one" / "rows.jsonl") == content_digest(tmp_path / "two" / "rows.jsonl")
    assert content_digest(tmp_path / "one") == content_digest(tmp_path / "two")


def test_the_register_of_test_reads_only_grows(tmp_path: Path) -> None:
    root = ArtifactRoot(tmp_path)
    root.register_test_read({"model": "track_b"})
    root.register_test_read({"model": "aligned"})
    assert [entry["model"] for entry in root.test_reads()] == ["track_b", "aligned"]


def test_the_record_names_what_made_the_artifact(tmp_path: Path) -> None:
    root = ArtifactRoot(tmp_path)
    record = json.loads((root.absolute(save(root)) / RECORD).read_text(encoding="utf-8"))
    assert {"stage", "version", "recipe", "inputs", "digest", "files", "summary", "seconds", "created_at", "packages", "commit", "schema"} <= record.keys()
