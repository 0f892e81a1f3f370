"""What `publish` prepares: folders that load with stock libraries, cards that the Hub reads, and nothing of this machine in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from flows.cli import app
from tasks.contracts.artifacts import Address, ArtifactRoot, ModelRef
from tasks.contracts.failures import DataError, GuardError
from tasks.contracts.recipes import Lora
from tasks.contracts.rows import Curated
from tasks.logic.report.summary import summary_json
from tasks.release import prepare_release
from tasks.training.student import add_new_adapter, save_adapter
from tests.logic.report.sample_run import sample_summary
from tests.logic.rows_of import curated, questions
from tests.tiny_student import make_tiny_student

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")  # peft asks by the old name


def address(stage: str) -> Address:
    numbers = {"model": "m", "quantization": "nf4", "dtype": "float32", "revision": None}
    return Address(stage=stage, version=1, recipe={"numbers": numbers}, inputs={})


def saved(root: ArtifactRoot, stage: str, produced: Path, **summary: Any) -> ModelRef:
    return root.save_model(address(stage), produced, base="", summary=summary, seconds=1.0)


def make_run(root: ArtifactRoot, scratch: Path, *, reply: str = "It is so.") -> Path:
    """A finished run of one small real adapter and ten rows, made where the user's name stands in the path."""
    student = saved(root, "student", make_tiny_student(scratch / "student"), source=None, commit="", pinned=True)
    config = root.absolute(student) / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "name_or_path": str(root.path / "models")}))
    torch.manual_seed(0)
    model = add_new_adapter(AutoModelForCausalLM.from_pretrained(root.absolute(student)), Lora(rank=2, alpha=4, dropout=0.0, targets="all-linear"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()  # else the adapter changes nothing
    save_adapter(model, scratch / "adapter")
    written = json.loads((scratch / "adapter" / "adapter_config.json").read_text())
    (scratch / "adapter" / "adapter_config.json").write_text(json.dumps({**written, "base_model_name_or_path": str(root.absolute(student))}))
    aligned = saved(root, "align", scratch / "adapter")
    rows = [curated(row, reply=reply, request_id="req-of-my-account") for row in questions(10)]
    table = root.save_table(address("curate"), rows, Curated, summary={}, seconds=0.1)
    run = root.path / "data" / "runs" / "demo-1"
    run.mkdir(parents=True)
    for name in ("track_a", "track_b", "pairs"):
        (run / f"{name}.jsonl").write_text('{"qid": "q\u2028"}\n{"qid": "r"}\n', encoding="utf-8")
    lines = {"student m": student.path, "curate": table.path, "align": aligned.path}
    summary = sample_summary(student=str(root.absolute(student)), overrides={"recipe.sample.path": str(scratch / "mine.json"), "recipe.seed": 1})
    stages = [{"stage": stage, "seconds": 1.0, "cached": False, "artifact": path} for stage, path in lines.items()]
    (run / "summary.json").write_text(summary_json({**summary, "stages": stages}), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home-of-ada")
    return make_run(ArtifactRoot(home / "root"), home)


@pytest.fixture(scope="module")
def release(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "release"
    prepare_release(run, model="aligned", out=out)
    return out


def test_the_adapter_loads_from_its_folder_and_answers_as_before(run: Path, release: Path) -> None:
    root = ArtifactRoot(run.parents[2])
    stages = {line["stage"]: line["artifact"] for line in json.loads((run / "summary.json").read_text())["stages"]}
    tokenizer = AutoTokenizer.from_pretrained(release / "model")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Is it?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    base = root.path / stages["student m"]
    plain = AutoModelForCausalLM.from_pretrained(base)(**ids).logits
    logits = [
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), each)(**ids).logits for each in (release / "model", root.path / stages["align"])
    ]
    assert torch.equal(*logits)
    assert not torch.allclose(logits[0], plain)
    assert {path.name for path in (release / "model").iterdir()} >= {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"}


def test_nothing_of_this_machine_is_in_the_release(run: Path, release: Path) -> None:
    content = {path: path.read_bytes() for path in release.rglob("*") if path.is_file()}
    private = [str(run.parents[2]), "home-of-ada", str(Path.home()), "req-of-my-account"]
    assert not [(path.name, word) for path, read in content.items() for word in private if word.encode() in read]
    assert "recipe.sample.path = mine.json" in (release / "model" / "README.md").read_text()


def test_the_hub_reads_the_model_card(release: Path) -> None:
    card = ModelCard.load(release / "model" / "README.md")
    cells = sample_summary()["models"]["aligned"]["arms"]
    assert (card.data.library_name, card.data.license, card.data.base_model) == ("peft", None, None)
    assert [result.metric_value for result in card.data.eval_results] == [round(cell["accuracy"], 4) for cell in cells.values()]
    assert "majority line 50.0" in card.data.eval_results[0].metric_name
    for told in ("**underpowered**: No clear difference between the aligned model and Track B", "always giving", "simulation", "Test: 1 under 4be1c07a"):
        assert told.lower() in card.text.lower()


def test_the_data_folder_holds_what_its_card_says(release: Path) -> None:
    card = DatasetCard.load(release / "data" / "README.md")
    rows = {each["config_name"]: (release / "data" / each["data_files"]).read_text(encoding="utf-8").split("\n")[:-1] for each in card.data.configs}
    assert {name: len(lines) for name, lines in rows.items()} == {"curated": 10, "track_a": 2, "track_b": 2, "pairs": 2}
    assert "| curated.jsonl | 10 |" in card.text
    first = json.loads(rows["curated"][0])
    assert first["reply"] == "It is so."
    assert not {"request_id", "status", "attempts"} & first.keys()
    assert json.loads(rows["track_a"][0])["qid"] == "q\u2028"


def test_a_path_or_a_key_in_a_text_stops_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-of-the-release")
    run = make_run(ArtifactRoot(tmp_path / "root"), tmp_path, reply="My key is sk-canary-of-the-release.")
    with pytest.raises(GuardError, match=r"data/curated.jsonl would publish"):
        prepare_release(run, model="aligned", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_released_is_explained(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its adapters: aligned"):
        prepare_release(run, model="track_c", out=tmp_path / "out")
    with pytest.raises(DataError, match="is not a finished run"):
        prepare_release(tmp_path, model="aligned", out=tmp_path / "out")
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        prepare_release(run, model="aligned", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_the_command_line_says_how_to_upload_and_uploads_nothing(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["publish", str(run), "--out", str(tmp_path / "out")], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert f"hf upload YOUR_NAME/demo-aligned {tmp_path / 'out'}/model ." in done.output
    assert f"hf upload YOUR_NAME/demo-aligned-data {tmp_path / 'out'}/data . --repo-type dataset" in done.output
