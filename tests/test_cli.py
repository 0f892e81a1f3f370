"""The command line as a person meets it: help that teaches, errors that say what to do, nothing half-written."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.progress import finished
from flows.terminal import BUDGET_REACHED
from tasks.contracts.profiles import load_profile
from tasks.estimate import missing_key
from tasks.gateways.ledger import Ledger
from tasks.gateways.simulated_server import SimulatedServer, serve_simulated
from tasks.gateways.teacher import Reply

pytestmark = pytest.mark.usefixtures("prefect_server")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_help_shows_where_to_start() -> None:
    said = invoke("--help").output
    assert "socratune run demo" in said
    assert {"run", "audit", "ask", "fetch", "score", "pool"} <= set(said.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "known ones: demo, original"),
        (["demo", "--set", "recipe.sed=1"], "did you mean recipe.seed?"),
        (["demo", "--set", "recipe.seed"], "write it as path=value"),
        (["demo", "--set", "recipe.seed=[1"], "the value is not YAML"),
        (["demo", "--until", "lunch"], "is not one of teach, train, evaluate, report"),
        (["strategyqa-recorded"], "recipe.teacher.recordings"),
    ],
)
def test_a_wrong_call_is_one_clear_error_and_writes_nothing(arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("run", *arguments)
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def _paid(tmp_path: Path, **changes: object) -> list[str]:
    """Arguments that make the tiny profile ask a paid teacher."""
    both = {"execution.root": tmp_path / "root", "recipe.teacher.kind": "openai", "recipe.teacher.model": "gpt-4o", **changes}
    return [str(Path(__file__).parent / "profiles" / "tiny.yaml"), *(part for path, value in both.items() for part in ("--set", f"{path}={value}"))]


@pytest.mark.parametrize(
    ("environment", "changes", "words"),
    [
        ({"OPENAI_API_KEY": ""}, {}, "set OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "“sk-canary”"}, {}, "a character that no key has (LEFT DOUBLE QUOTATION MARK"),
        ({"OPENAI_API_KEY": "sk-ca\nnary"}, {}, "a character that no key has (U+000A"),
        ({"OPENAI_API_KEY": "sk-canary", "OPENAI_BASE_URL": "localhost:9/v1"}, {}, "has no scheme: write http://localhost:9/v1"),
        ({"OPENAI_API_KEY": "sk-canary"}, {"recipe.teacher.model": "simulated-gpt-4"}, "kind=openai needs the name of a model"),
        ({"OPENAI_API_KEY": ""}, {"recipe.teacher.kind": "simulated", "recipe.judge.kind": "openai", "recipe.judge.model": "gpt-4o"}, "set OPENAI_API_KEY"),
    ],
)
def test_what_keeps_a_teacher_from_answering_is_one_line_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], changes: dict[str, object], words: str
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = invoke("run", *_paid(tmp_path, **changes))
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())
    told = [line for line in done.output.strip().splitlines() if not line.startswith("Starting ")]
    assert len(told) <= 3, "one line, folded by the terminal"
    assert "canary" not in done.output
    assert not list(tmp_path.iterdir())


def test_a_plan_says_that_a_key_is_missing_and_forecasts_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = invoke("plan", *_paid(tmp_path))
    assert done.exit_code == 0, done.output
    assert "A run would stop before it begins: no API key: set OPENAI_API_KEY" in " ".join(done.output.split())
    monkeypatch.setenv("OPENAI_API_KEY", "‘sk-canary’")
    refused = invoke("plan", *_paid(tmp_path))
    assert refused.exit_code == 1
    assert "LEFT SINGLE QUOTATION MARK" in " ".join(refused.output.split())
    assert "canary" not in refused.output


def test_a_ledger_with_replies_of_the_model_may_be_all_that_a_run_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    profile = load_profile(str(Path(__file__).parent / "profiles" / "tiny.yaml"), folder=tmp_path, overrides={
        "execution.root": str(tmp_path), "recipe.teacher.kind": "openai", "recipe.teacher.model": "gpt-4",
    })  # fmt: skip
    assert "OPENAI_API_KEY" in str(missing_key(profile))
    reply = Reply(text="a", finish_reason="stop", model="gpt-4o-2024-08-06", tokens_in=3, tokens_out=4, request_id="r")
    with Ledger(tmp_path / profile.execution.ledger, budget_usd=None) as ledger:
        ledger.record("k", reply, source="/v1", usd=0.5)
    assert "OPENAI_API_KEY" in str(missing_key(profile)), "replies of another model are none of this one"
    with Ledger(tmp_path / profile.execution.ledger, budget_usd=None) as ledger:
        ledger.record("l", replace(reply, model="gpt-4-0613"), source="/v1", usd=0.5)
    assert missing_key(profile) is None


def test_score_prints_json(tmp_path: Path) -> None:
    gold = [{"qid": "a", "question": "Is it?", "answer": True, "facts": []}, {"qid": "b", "question": "Was it?", "answer": False, "facts": []}]
    (tmp_path / "gold.json").write_text(json.dumps(gold), encoding="utf-8")
    (tmp_path / "pred.json").write_text(json.dumps({"a": {"answer": True}, "b": {"answer": True}}), encoding="utf-8")
    done = invoke("score", "strategyqa", "--pred", str(tmp_path / "pred.json"), "--gold", str(tmp_path / "gold.json"))
    assert json.loads(done.stdout)["accuracy"] == 0.5


@pytest.mark.parametrize("pred", [{"a": {"answer": True}, "b": {"answer": True}}, [{"qid": "a", "answer": "yes"}, {"qid": "b", "answer": "yes"}]])
def test_score_reads_files_with_a_byte_order_mark(tmp_path: Path, pred: object) -> None:
    gold = [{"qid": "a", "question": "Is it?", "answer": True, "facts": []}, {"qid": "b", "question": "Was it?", "answer": False, "facts": []}]
    for name, content in {"gold.json": gold, "pred.json": pred}.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8-sig")
    done = invoke("score", "strategyqa", "--pred", str(tmp_path / "pred.json"), "--gold", str(tmp_path / "gold.json"))
    assert json.loads(done.stdout)["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("pred", "gold", "words"),
    [
        ('{"a": "yes", "a": "no"}', '[{"qid": "a", "question": "Is it?", "answer": true}]', "'a' occurs twice in one object"),
        ('{"a": {"answer": true, "answer": false}}', '[{"qid": "a", "question": "Is it?", "answer": true}]', "'answer' occurs twice in one object"),
        ("[" * 100_000, "[]", "is not JSON"),
        ("{", "[]", "is not JSON"),
        ("{}", '[{"qid": "a", "question": "Is it?"}]', "answer"),
        ("{}", '[{"qid": "a", "question": "Q?", "answer": true}, {"qid": "a", "question": "R?", "answer": true}]', "a"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, pred: str, gold: str, words: str) -> None:
    (tmp_path / "pred.json").write_text(pred, encoding="utf-8")
    (tmp_path / "gold.json").write_text(gold, encoding="utf-8")
    done = invoke("score", "strategyqa", "--pred", str(tmp_path / "pred.json"), "--gold", str(tmp_path / "gold.json"))
    assert done.exit_code == 1
    assert words in done.output


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = invoke("score", "strategyqa", "--pred", str(tmp_path / "none.json"), "--gold", str(tmp_path / "none.json"))
    assert done.exit_code == 1
    assert "none.json does not exist" in " ".join(done.output.split())


def test_a_wrong_call_is_answered_before_anything_that_takes_seconds_is_imported() -> None:
    program = "import sys; from flows.cli import app\ntry: app(sys.argv[1:])\nexcept SystemExit: pass\nprint({'prefect', 'torch', 'openai'} & set(sys.modules))"
    said = {"run dmeo": "did you mean demo?", "plan demo --set seed=1": "did you mean recipe.seed?", "promote demo nowhere": "nowhere is neither a run folder"}
    for line, words in said.items():
        command = [sys.executable, "-c", program, *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True)
        assert (line, done.stdout.strip()) == (line, "set()")
        assert words in " ".join(done.stderr.split())


def test_a_terminal_that_cannot_write_a_character_gets_a_question_mark(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", "flows.cli", "show", str(tmp_path / "von \u2192 nach")]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert "nach" in done.stderr.decode("cp1252")


def test_a_name_in_brackets_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=200).print(finished("teach", "demo[lr=1e-4]"))
    assert "demo[lr=1e-4]" in capsys.readouterr().out


def test_pooling_wants_finished_runs(tmp_path: Path) -> None:
    done = invoke("pool", str(tmp_path))
    assert done.exit_code == 1
    assert "is not a finished run" in " ".join(done.output.split())


def test_the_ledger_is_counted_verified_exported_and_imported(tmp_path: Path) -> None:
    reply = Reply(text="a", finish_reason="stop", model="m", tokens_in=3, tokens_out=4, request_id="r")
    with Ledger(tmp_path / "one.sqlite", budget_usd=None) as ledger:
        for number in range(3):
            ledger.record(f"k{number}", reply, source="/v1", usd=0.5)
    one, two, export = (str(tmp_path / name) for name in ("one.sqlite", "two.sqlite", "replies.parquet"))
    counted = json.loads(invoke("ledger", "stats", "--ledger", one).stdout)
    assert (counted["rows"], counted["usd_kept"], counted["replies"]) == (3, 1.5, [{"source": "/v1", "model": "m", "mode": "online", "count": 3}])
    assert json.loads(invoke("ledger", "export", export, "--ledger", one).stdout)["rows"] == 3
    assert json.loads(invoke("ledger", "import", export, "--ledger", two).stdout)["new_rows"] == 3
    assert invoke("ledger", "verify", "--ledger", two).exit_code == 0
    db = sqlite3.connect(two)
    db.execute("UPDATE replies SET body = replace(body, '\"a\"', '\"b\"') WHERE key = 'k1'")
    db.commit()
    db.close()
    broken = invoke("ledger", "verify", "--ledger", two)
    assert broken.exit_code == 1
    assert "k1" in json.loads(broken.stdout)["faults"][0]
    missing = invoke("ledger", "stats", "--ledger", str(tmp_path / "none.sqlite"))
    assert missing.exit_code == 1
    assert "does not exist" in missing.output


@pytest.mark.prefect
def test_a_budget_that_is_used_up_has_an_exit_code_of_its_own(tmp_path: Path, schooled_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_simulated(SimulatedServer(error_rate=0.0, no_bias=0.0)) as url:
        for name, value in {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-test", "NO_PROXY": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
        changes = {
            "execution.root": tmp_path, "recipe.student.model": schooled_student, "recipe.teacher.kind": "openai", "recipe.teacher.model": "gpt-4",
            "recipe.sample.train": 6, "recipe.sample.dev": 4, "execution.teacher.budget_usd": 0.06,
        }  # fmt: skip
        sets = [part for path, value in changes.items() for part in ("--set", f"{path}={value}")]
        done = invoke("run", str(Path(__file__).parent / "profiles" / "tiny.yaml"), "--until", "teach", *sets)
    assert done.exit_code == BUDGET_REACHED == 3
    assert "raise the cap and run again" in " ".join(done.output.split())


@pytest.mark.parametrize("asked", ["teacher", "judge"])
def test_a_paid_model_without_a_price_is_refused_before_anything_runs(tmp_path: Path, asked: str) -> None:
    changes = {"execution.root": tmp_path, f"recipe.{asked}.kind": "openai", f"recipe.{asked}.model": "my-own-model"}
    sets = [part for path, value in changes.items() for part in ("--set", f"{path}={value}")]
    done = invoke("run", str(Path(__file__).parent / "profiles" / "tiny.yaml"), *sets)
    assert done.exit_code == 1
    assert "execution.teacher.price" in done.output
    assert f"recipe.{asked}.model" in done.output
    assert not list(tmp_path.iterdir())
