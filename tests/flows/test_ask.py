"""A person asks the aligned student; the judge as a part of the evaluate flow. One tiny run serves all, in the order in which the tests stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from tasks.contracts.artifacts import read_rows
from tasks.contracts.rows import Drafted, Judgement, Prediction, Question
from tasks.gateways.simulated_server import SimulatedServer
from tests.flows.pipeline import PROFILE, Pipeline

pytestmark = [pytest.mark.prefect, pytest.mark.slow]
CHANGES: dict[str, Any] = {
    "recipe.judge.kind": "simulated",
    "recipe.judge.questions": 3,
    "recipe.grade.controls": [],
    "recipe.grade.side_arms": ["direct", "rewrite"],
    "recipe.curate.max_shift": 0.5,
}


def invoke(pipeline: Pipeline, command: str, *arguments: str) -> Result:
    words = pipeline.command(until="report", changes=CHANGES)
    sets = words[words.index("--set") :]
    environment = {**pipeline.whole_environment(), "COLUMNS": "120", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [command, str(PROFILE), *arguments, *sets], env=environment)


def said(result: Result) -> str:
    return " ".join(result.output.split())


def table(pipeline: Pipeline, stage: str, row_type: type) -> list[Any]:
    return [row for path in pipeline.root.glob(f"data/{stage}/*/part-0.parquet") for row in read_rows(path, row_type)]


def test_before_a_run_it_says_what_to_run_and_makes_nothing(pipeline: Pipeline) -> None:
    done = invoke(pipeline, "ask", "Is it so?")
    assert done.exit_code == 1
    assert f"run socratune run {PROFILE} first" in said(done).replace("- ", "-")
    assert not list(pipeline.root.rglob("*"))


def test_a_plan_says_how_often_the_judge_would_be_asked(pipeline: Pipeline) -> None:
    assert "The judge (simulated-judge): at most 6 calls" in said(invoke(pipeline, "plan"))


def test_evaluation_has_the_questions_judged_where_the_recipe_says_so(pipeline: Pipeline) -> None:
    pipeline.run(until="evaluate", changes=CHANGES)
    (path,) = pipeline.root.glob("data/judge/*/artifact.json")
    summary = json.loads(path.read_text(encoding="utf-8"))["summary"]
    assert summary["evidence"]["n"] == len(table(pipeline, "judge", Judgement)) == sum(summary["pairs"].values()) == 3
    assert summary["evidence"]["verdict"] == "underpowered"
    assert (pipeline.root / summary["labelling"]).is_file()
    assert "The judge: everything is asked and stored." in said(invoke(pipeline, "plan"))


def test_its_answers_are_those_of_the_run_and_cost_neither_training_nor_a_call(pipeline: Pipeline, teacher: tuple[SimulatedServer, str]) -> None:
    before, calls = pipeline.artifacts(), teacher[0].calls
    read = [row for row in table(pipeline, "predict", Prediction) if row.model == "aligned" and row.split == "dev"]
    asked = next(row for row in read if row.arm == "rewrite")
    (drafted,) = (row for row in table(pipeline, "draft", Drafted) if row.qid == asked.qid)
    done = invoke(pipeline, "ask", f"  {asked.question}\n", "--json")
    answered = json.loads(done.stdout)
    assert answered["question"] == asked.question
    assert (answered["draft"], answered["draft_verdict"]) == (drafted.draft, drafted.draft_verdict)
    texts = {row.arm: row for row in read if row.qid == asked.qid}
    assert {chain["arm"]: (chain["text"], chain["verdict"]) for chain in answered["chains"]} == {
        arm: (texts[arm].text, texts[arm].verdict) for arm in ("rewrite", "reasoning")
    }
    assert answered["direct_margin"] == pytest.approx(texts["direct"].margin, abs=1e-3)
    assert answered["direct_verdict"] == texts["direct"].verdict
    assert (pipeline.artifacts(), teacher[0].calls) == (before, calls)
    assert not list(pipeline.root.glob("data/.work/ask-*"))


def test_several_questions_are_answered_by_one_student_loaded_once(pipeline: Pipeline) -> None:
    asked = [row.question for row in table(pipeline, "sample", Question) if row.split == "train"][:1]
    far = "Would the quartermaster of Zanzibar embroider seventeen umbrellas?"
    done = invoke(pipeline, "ask", *asked, far, "--json")
    first, second = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [first["question"], second["question"]] == [*asked, far]
    assert first["warning"] == ""
    assert "quartermaster" in second["warning"]
    alone = json.loads(invoke(pipeline, "ask", far, "--json").stdout)
    assert alone["draft"] == second["draft"]
    assert [chain["text"] for chain in alone["chains"]] == [chain["text"] for chain in second["chains"]]
    assert f"Careful: {second['warning'][:30]}" in said(invoke(pipeline, "ask", far))


def test_questions_come_from_standard_input_and_settings_from_the_last_run(pipeline: Pipeline) -> None:
    pipeline.run(changes=CHANGES)
    command = [app, ["ask", str(PROFILE), "--json", "--set", f"execution.root={pipeline.root}"]]
    environment = {**pipeline.whole_environment(), "COLUMNS": "120", "NO_COLOR": "1"}
    done = CliRunner().invoke(*command, env=environment, input="Is it so?\n\nIs it not?\n")
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["question"] for line in done.stdout.splitlines() if line.startswith("{")] == ["Is it so?", "Is it not?"]
    assert "--set recipe.judge.kind=simulated" in done.stderr
    empty = CliRunner().invoke(*command, env=environment, input="\n")
    assert empty.exit_code == 1
    assert "no question: give one" in said(empty)


def test_a_person_sees_every_part_labelled(pipeline: Pipeline) -> None:
    done = invoke(pipeline, "ask", "Есть ли 🦄 在這裡؟ [bold]<|end|>")
    assert done.exit_code == 0, done.output
    lines = done.output
    assert "Есть ли 🦄 在這裡؟ [bold]<|end|>" in lines
    for title in ("The draft", "The aligned student, rewriting the draft", "The aligned student, without the draft", "at once, without reasoning"):
        assert title in lines
    assert [lines.count(label) >= count for label, count in (("Draft", 1), ("Questions", 3), ("Answers", 2), ("Verdict", 4), ("Margin", 1))] == [True] * 5


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("", "the question is empty"),
        (" \n\t ", "the question is empty"),
        ("\udcff", "not valid UTF-8"),
        ("Is it older? " * 500, "the question is too long"),
    ],
    ids=["empty", "blank", "broken", "long"],
)
def test_what_cannot_be_asked_is_one_clear_error(pipeline: Pipeline, question: str, words: str) -> None:
    done = invoke(pipeline, "ask", question)
    assert done.exit_code == 1
    assert words in said(done)
    assert "Traceback" not in done.output
    assert not list(pipeline.root.glob("data/.work/ask-*"))


def test_another_recipe_has_no_student_yet(pipeline: Pipeline) -> None:
    done = invoke(pipeline, "ask", "Is it so?", "--set", "recipe.align.learning_rate=0.5")
    assert done.exit_code == 1
    assert "has no finished student for these settings" in said(done)


def test_without_pairs_stored_the_student_before_alignment_does_not_pass_for_the_aligned_one(pipeline: Pipeline) -> None:
    (record,) = pipeline.root.glob("data/pair/*/artifact.json")
    Path(record).unlink()
    assert "has no finished student for these settings" in said(invoke(pipeline, "ask", "Is it so?"))
