from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.contracts.failures import ProfileError
from tasks.contracts.profiles import load_profile

PROJECT = Path(__file__).resolve().parents[2]
PROFILES = PROJECT / "deployments" / "profiles"
LORA = {"rank": 16, "alpha": 32, "dropout": 0.0}
STRATEGYQA = {"recipe.sample.path": "someone/strategyqa", "recipe.teacher.recordings": []}


def load(name: str = "demo", **overrides: Any):
    return load_profile(name, folder=PROFILES, overrides={path.replace("__", "."): value for path, value in overrides.items()})


def faults(overrides: dict[str, Any], name: str = "demo") -> tuple[str, ...]:
    with pytest.raises(ProfileError) as caught:
        load_profile(name, folder=PROFILES, overrides=overrides)
    return caught.value.faults


@pytest.mark.parametrize("name", ["demo", "pocketqa", "validate"])
def test_built_in_profiles_load_as_they_are(name: str) -> None:
    assert load(name).name == name


def test_strategyqa_profiles_say_what_they_need_from_the_user(tmp_path: Path) -> None:
    assert ["recipe.sample.path" in fault or "recordings" in fault for fault in faults({}, "strategyqa-recorded")] == [True, True]
    recording = tmp_path / "replies.jsonl"
    recording.write_text("", encoding="utf-8")
    given = {"recipe.sample.path": "someone/strategyqa", "recipe.teacher.recordings": [str(recording)]}
    assert load_profile("strategyqa-recorded", folder=PROFILES, overrides=given).recipe.teacher.kind == "recorded"
    eight = load_profile("strategyqa-8gb", folder=PROFILES, overrides={"recipe.sample.path": "someone/strategyqa"})
    assert eight.recipe.student.model == "microsoft/Phi-3.5-mini-instruct"


def test_a_profile_may_say_only_what_differs_from_another(tmp_path: Path) -> None:
    shorter = tmp_path / "shorter.yaml"
    shorter.write_text("extends: demo\nrecipe:\n  sft: {epochs: 1, lora: {rank: 2}}\n  align:\n    phases: []\n", encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        load_profile(str(shorter), folder=PROFILES, overrides={})
    assert len(caught.value.faults) == 1  # a list is replaced, not merged
    shorter.write_text("extends: demo\nrecipe:\n  sft: {epochs: 1, lora: {rank: 2}}\n", encoding="utf-8")
    made, demo = load_profile(str(shorter), folder=PROFILES, overrides={"recipe.seed": 7}), load()
    assert (made.name, made.recipe.seed, made.recipe.sft.epochs, made.recipe.sft.lora.rank) == ("shorter", 7, 1, 2)
    assert made.recipe.sft.lora.alpha == demo.recipe.sft.lora.alpha
    assert made.recipe.teacher == demo.recipe.teacher


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: nowhere", "no such profile"),
        ("extends: {folder}/circle.yaml", "extends itself"),
        ("extends: demo\nrecipe: {sft: {epoch: 1}}", "recipe.sft.epoch: unknown key"),
    ],
)
def test_what_cannot_be_extended_is_explained(text: str, words: str, tmp_path: Path) -> None:
    circle = tmp_path / "circle.yaml"
    circle.write_text(text.replace("{folder}", str(tmp_path)), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        load_profile(str(circle), folder=PROFILES, overrides={})
    assert any(words in fault for fault in caught.value.faults)


def test_every_profile_has_a_deployment() -> None:
    deployed = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    full = {each["name"] for each in deployed if each["entrypoint"].startswith("flows/full_pipeline.py")}
    assert full == {path.stem for path in PROFILES.glob("*.yaml")}
    assert {each["name"] for each in deployed} - full == {"teach", "train", "evaluate", "cross-validate"}


def test_all_faults_are_told_at_once() -> None:
    told = faults({"recipe.sed": 1, "recipe.sft.epochs": "many", "recipe.draft.model": 3})
    assert len(told) == 3
    assert told[0] == "override recipe.sed: no such key; did you mean recipe.seed?"
    assert any(fault.startswith("recipe.sft.epochs:") and "'many'" in fault for fault in told)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"execution.train.processes": 99}, "is less than execution.train.processes 99"),
        ({"execution.train.report_to": ["trackio"]}, "trackio is not installed; pip install trackio"),
        ({"recipe.align.select_questions": 999}, "is more than recipe.sample.dev"),
        ({"recipe.sft.select_questions": 999}, "recipe.sft.select_questions 999 is more than recipe.sample.dev"),
        ({"recipe.sft.reasoning": "prompt"}, "the label stands there too"),
        ({"recipe.sft.reasoning": "prompt", "recipe.sft.counterfactual_weight": 0.5}, "writes no reasoning"),
        ({"recipe.guards.allow": ["everything"]}, "recipe.guards.allow"),
        ({"recipe.teacher.kind": "recorded"}, "needs a JSONL file or a ledger export"),
        ({"recipe.teacher.recordings": ["nowhere.jsonl"]}, "no such file nowhere.jsonl"),
        ({"recipe.teacher.error_rate": None}, "needs error_rate and no_bias"),
        ({"recipe.sample.path": "x.json"}, "pocketqa is built in"),
        ({"recipe.sample.dev": 0}, "give train, dev and test a size"),
        ({"recipe.align.phases": []}, "recipe.align.phases"),
        ({"recipe.benchmark": "strategyqa"}, "recipe.sample.split"),
        ({"execution.train.device": "tpu"}, "execution.train.device"),
        ({"recipe.teacher.select_share": 0.5}, "select=all asks about every one"),
        ({"recipe.teacher.select": "uncertain", "recipe.teacher.select_share": 0.0}, "0 asks about nothing"),
        ({"recipe.curate.disagreement": "resample"}, "needs at least 1"),
        ({"recipe.teacher.kind": "recorded", "recipe.curate.validate_with": "teacher"}, "cannot be asked to check reasoning"),
        ({"recipe.judge.kind": "simulated"}, "must not pass for gpt-4o; call it simulated-judge"),
        ({"recipe.judge.kind": "openai", "recipe.judge.labels": "nowhere.jsonl"}, "recipe.judge.labels: no such file nowhere.jsonl"),
        (
            {"recipe.judge.kind": "openai", "recipe.grade.headline": {"zero_shot": "direct", "track_a": "direct", "track_b": "direct", "aligned": "rewrite"}},
            "share no arm that asks questions",
        ),
        ({"recipe.attribute.questions": 1}, "ask for at least 2, or 0"),
        ({"recipe.ablate.matched": True}, "recipe.ablate.matched: no preference pair shows a draft"),
        ({"recipe.ablate.arms": ["no_draft", "draft_questions"]}, "draft_questions is compared with draft_verdict alone"),
        ({"recipe.ablate.arms": ["draft_verdict"]}, "draft_verdict is compared with draft_questions alone"),
        ({"recipe.sample.split": "cv5-0"}, "has no folds"),
        ({"recipe.benchmark": "strategyqa", "recipe.sample.split": "cv5-5"}, "'cv5-5' is not one of"),
        ({"recipe.benchmark": "strategyqa", "recipe.sample.split": "cv11-0"}, "'cv11-0' is not one of"),
    ],
)
def test_contradictions_are_explained(overrides: dict[str, Any], words: str) -> None:
    assert any(words in fault for fault in faults(overrides))


def test_folds_and_a_last_fit_are_named_splits_of_strategyqa() -> None:
    for split in ("cv2-1", "cv5-4", "cv10-9", "hub_refit"):
        assert load_profile("strategyqa-8gb", folder=PROFILES, overrides={**STRATEGYQA, "recipe.sample.split": split}).recipe.sample.split == split


def test_a_ledger_export_may_hold_checks_and_recorded_lines_may_not(tmp_path: Path) -> None:
    checked = {"recipe.teacher.kind": "recorded", "recipe.curate.validate_with": "teacher"}
    export, lines = tmp_path / "ledger.parquet", tmp_path / "replies.jsonl"
    export.touch()
    lines.touch()
    assert load_profile("demo", folder=PROFILES, overrides={**checked, "recipe.teacher.recordings": [str(export)]}).recipe.teacher.kind == "recorded"
    (fault,) = faults({**checked, "recipe.teacher.recordings": [str(export), str(lines)]})
    assert "recipe.curate.validate_with" in fault


def test_the_original_projects_recipe_is_accepted_where_its_faults_are_named() -> None:
    named = ["label_in_prompt", "lora_coverage", "verdict_fits"]
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    recipe = load(recipe__sft__reasoning="prompt", recipe__guards__allow=named, recipe__sft__lora={**LORA, "targets": targets}).recipe
    assert (recipe.sft.reasoning, recipe.sft.lora.targets, recipe.guards.allow) == ("prompt", tuple(targets), tuple(named))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipe: [", "cannot be read as YAML"),
        ("just text", "must hold two sections"),
        ("name: x\nrecipe: {}\nexecution: {}", "remove it"),
        ("recipe: {}", "missing"),
    ],
)
def test_a_broken_file_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=words):
        load_profile(str(path), folder=PROFILES, overrides={})


def test_an_unknown_profile_names_the_known_ones() -> None:
    assert "known ones: demo, " in faults({}, "nonsense")[0]


def test_nothing_in_a_profile_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(f"recipe: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\nexecution: {{}}", encoding="utf-8")
    with pytest.raises(ProfileError):
        load_profile(str(path), folder=PROFILES, overrides={})
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("seed", "recipe.seed"),
        ("recipe.sed", "recipe.seed"),
        ("sed", "recipe.seed"),
        ("teacher.model", "recipe.teacher.model"),
        ("budget_usd", "execution.teacher.budget_usd"),
        ("execution.teachr.budget_us", "execution.teacher.budget_usd"),
        ("recipe.execution.root", "execution.root"),
    ],
)
def test_a_key_that_is_not_there_names_the_one_that_was_meant(key: str, meant: str) -> None:
    with pytest.raises(ProfileError, match=rf"did you mean {re.escape(meant)}\?"):
        load_profile("demo", folder=PROFILES, overrides={key: 1})


@pytest.mark.parametrize(("source", "meant"), [("dmeo", "demo"), ("strategyqa_8gb", "strategyqa-8gb"), ("deployments/demo.yml", "demo")])
def test_a_profile_that_is_not_there_names_the_one_that_was_meant(source: str, meant: str) -> None:
    with pytest.raises(ProfileError, match=rf"no such profile.* did you mean {meant}\?"):
        load_profile(source, folder=PROFILES, overrides={})


def test_a_path_of_a_profile_that_is_not_there_names_its_neighbour_and_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: demo", encoding="utf-8")
    with pytest.raises(ProfileError, match=rf"no such profile in {re.escape(str(tmp_path))}; did you mean {re.escape(str(tmp_path / 'mine.yaml'))}\?"):
        load_profile(str(tmp_path / "mien.yaml"), folder=PROFILES, overrides={})


@pytest.mark.parametrize("path", ["none.json", "data/none.jsonl", "/nowhere/at/all", "./owner/name", "~/none.json"])
def test_a_question_file_that_is_not_there_is_told_when_the_profile_is_opened(path: str) -> None:
    with pytest.raises(ProfileError, match=r"recipe\.sample\.path: nothing is at .*looked in"):
        load_profile("strategyqa-8gb", folder=PROFILES, overrides={"recipe.sample.path": path})


@pytest.mark.parametrize("model", ["./student", "/nowhere/student", "~/student", "a/b/c"])
def test_a_student_folder_that_is_not_there_is_told_when_the_profile_is_opened(model: str) -> None:
    with pytest.raises(ProfileError, match=r"recipe\.student\.model: nothing is at"):
        load_profile("demo", folder=PROFILES, overrides={"recipe.student.model": model})


def test_what_may_be_on_the_hub_is_not_looked_for_here() -> None:
    assert load_profile("strategyqa-8gb", folder=PROFILES, overrides={"recipe.sample.path": "owner/strategy-qa"}).recipe.sample.path == "owner/strategy-qa"


def test_the_home_folder_may_be_written_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_profile("demo", folder=PROFILES, overrides={"execution.root": "~/elsewhere"}).execution.root == str(tmp_path / "elsewhere")


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProfileError, match=r"execution\.root: .* is a file"):
        load_profile("demo", folder=PROFILES, overrides={"execution.root": str(tmp_path / "file")})
