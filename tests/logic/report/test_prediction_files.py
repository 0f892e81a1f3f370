"""Prediction files: the official form, and the same accuracy when they are scored."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.logic.benchmarks.strategyqa import score as score_file
from tasks.logic.benchmarks.yes_no import skeleton
from tasks.logic.report.prediction_files import prediction_files
from tasks.logic.scores import score
from tests.logic.report.sample_run import HEADLINE, RIGHT, predictions, sample_summary

CHAIN = skeleton(asked=["Who was Caesar?", "When was the telephone invented?"], answered=["A Roman.", "In 1876."], reasoning="", answer="no")


def test_the_files_of_a_run_score_as_its_summary_says():
    rows = [row for (model, arm), share in RIGHT.items() for row in predictions(model, arm, share)]
    summary = sample_summary()
    cells = {**summary["models"], **summary["controls"]}
    files = prediction_files(rows, headlines={name: model["headline"] for name, model in cells.items()}, split="dev")
    gold = [{"qid": row.qid, "answer": row.answer == "yes"} for row in rows[:240]]
    assert files.keys() == cells.keys()
    for name, model in cells.items():
        cell = model["arms"][model["headline"]]
        assert score_file(files[name], gold) == {"accuracy": cell["accuracy"], "n": cell["n"], "missing": 0}


def test_a_prediction_has_the_answer_and_the_questions_that_the_model_asked():
    row = replace(predictions("track_b", "reasoning", 1.0)[0], text=CHAIN, verdict="no")
    said = prediction_files([row], headlines=HEADLINE, split="dev")
    assert said == {"track_b": {"q0": {"answer": False, "decomposition": ["Who was Caesar?", "When was the telephone invented?"], "paragraphs": []}}}


def test_other_arms_and_splits_stay_out():
    rows = [*predictions("track_b", "direct", 0.5), *(replace(row, split="test") for row in predictions("track_b", "reasoning", 0.5))]
    assert prediction_files(rows, headlines=HEADLINE, split="dev") == {}


@given(st.lists(st.tuples(st.sampled_from(["yes", "no"]), st.sampled_from(["yes", "no", "unparsed"])), min_size=1, max_size=40))
def test_no_verdict_is_null_and_wrong_in_both_scores(pairs):
    template = predictions("track_b", "reasoning", 1.0)[0]
    rows = [replace(template, qid=f"q{number}", answer=gold, verdict=said) for number, (gold, said) in enumerate(pairs)]
    file = prediction_files(rows, headlines=HEADLINE, split="dev")["track_b"]
    assert [file[row.qid]["answer"] is None for row in rows] == [row.verdict == "unparsed" for row in rows]
    gold = [{"qid": row.qid, "answer": row.answer == "yes"} for row in rows]
    assert score_file(file, gold)["accuracy"] == pytest.approx(score(rows).accuracy)
