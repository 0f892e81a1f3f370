"""summary.json and the words and tables made from it."""

from __future__ import annotations

import json
import math

import pytest

from tasks.contracts.failures import DataError
from tasks.logic.report import words
from tasks.logic.report.summary import ModelScores, TestRead, summary_json
from tasks.logic.report.tables import render_markdown_tables
from tasks.logic.scores import Comparison, Finding, score
from tests.logic.report.sample_experiments import full_summary
from tests.logic.report.sample_run import predictions, sample_summary

KEYS = [
    "profile",
    "overrides",
    "benchmark",
    "student",
    "teacher",
    "split",
    "splits",
    "majority_accuracy",
    "models",
    "controls",
    "comparisons",
    "unparsed",
    "accepted",
    "same_as",
    "remarks",
    "draft",
    "attribution",
    "judge",
    "calibration",
    "costs",
    "curation",
    "teacher_usage",
    "stages",
    "test_reads",
]
CELL = ["accuracy", "ci_low", "ci_high", "n", "yes_rate", "unparsed", "balanced_accuracy"]
COMPARISON = ["name", "n", "right", "claim", "difference", "ci_low", "ci_high", "p_value", "p_holm", "minimal_detectable", "verdict"]
USAGE = ["calls", "cached", "retries", "reasks", "failed", "tokens_in", "tokens_out", "usd"]


@pytest.fixture(scope="module")
def made():
    return sample_summary()


def comparison(name: str, verdict: Finding, *, difference: float, p_holm: float) -> Comparison:
    return Comparison(
        right=0.6,
        name=name,
        n=240,
        difference=difference,
        ci_low=difference - 0.05,
        ci_high=difference + 0.05,
        p_value=p_holm,
        p_holm=p_holm,
        minimal_detectable=0.081,
        claim=0.0,
        verdict=verdict,
    )


def test_the_keys_are_the_published_ones(made):
    assert list(made) == KEYS
    assert list(made["models"]) == ["zero_shot", "track_a", "track_a_matched", "track_b", "aligned"]
    for model in [*made["models"].values(), *made["controls"].values()]:
        assert list(model) == ["headline", "arms"]
        assert all(list(cell) == CELL for cell in model["arms"].values())
    assert [list(each) for each in made["comparisons"]] == [COMPARISON] * 3
    assert list(made["teacher_usage"]) == USAGE
    assert [list(line) for line in made["stages"]] == [["stage", "seconds", "cached", "artifact"]] * 4


def test_it_is_strict_json_and_reads_back_as_itself(made):
    assert json.loads(summary_json(made), parse_constant=pytest.fail) == made
    with pytest.raises(DataError, match="finite"):
        sample_summary(majority_accuracy=math.nan)
    with pytest.raises(DataError, match="JSON"):
        sample_summary(curation={"rows": object()})


def test_curation_keeps_its_counts_beside_the_steps(made):
    assert made["curation"]["rationalised"] == 50
    assert made["curation"]["steps"][2] == {"step": "teacher agrees with gold", "yes": 112, "no": 150, "yes_share": 112 / 262}


def test_a_headline_arm_that_was_not_scored_is_refused():
    cell = score(predictions("track_b", "direct", 0.5))
    with pytest.raises(DataError, match=r"recipe\.grade\.headline"):
        sample_summary(models={"track_b": ModelScores(headline="reasoning", scores=(cell,))})
    with pytest.raises(DataError, match="scored twice"):
        sample_summary(models={"track_b": ModelScores(headline="direct", scores=(cell, cell))})


@pytest.mark.parametrize(
    ("verdict", "difference", "p_holm", "claim"),
    [
        (Finding.PASS, 0.2, 0.001, "Track B beats Track A"),
        (Finding.PASS, -0.01, 0.9, "Track B is not worse than Track A by more than was allowed"),
        (Finding.FAIL, -0.2, 0.001, "Track B is worse than Track A"),
        (Finding.FAIL, 0.01, 0.9, "Track B stays below the promised gain over Track A"),
        (Finding.UNDERPOWERED, 0.01, 0.9, "No clear difference between Track B and Track A"),
    ],
)
def test_a_verdict_in_words(verdict, difference, p_holm, claim):
    (statement,) = words.statements(sample_summary(comparisons=[comparison("track_b_vs_track_a", verdict, difference=difference, p_holm=p_holm)]))
    assert (statement.verdict, statement.claim) == (verdict.value, claim)
    assert words.points(difference) in statement.evidence
    assert ("8.1 points or more" in statement.evidence) == (verdict is Finding.UNDERPOWERED)


def test_the_main_question_comes_first_whatever_the_order(made):
    turned = {**made, "comparisons": made["comparisons"][::-1]}
    assert words.statements(turned) == words.statements(made)
    assert words.statements(made)[0].claim == "Track B beats Track A"


def test_warnings_name_bias_lost_verdicts_the_majority_line_and_repeated_reads():
    always_yes = predictions("track_b", "reasoning", 0.5, yes_only=True)
    mute = [type(row)(**{**vars(row), "verdict": "unparsed"}) for row in predictions("zero_shot", "direct", 0.5)]
    models = {name: ModelScores(headline=rows[0].arm, scores=(score(rows),)) for name, rows in (("zero_shot", mute), ("track_b", always_yes))}
    found = words.warnings(sample_summary(models=models, controls={}, comparisons=[], test_reads=[TestRead(recipe="4be1c07a", split="test", times=3)]))
    assert any("Track B, reasons first (reasoning) answers yes 100.0 % of the time" in line for line in found)
    assert any(line == "Not clearly above the majority line of 50.0 %: Track B." for line in found)
    assert any("Untrained student (direct) gave no readable verdict on 240 of 240" in line for line in found)
    assert any("Test has been read 3 times under recipe 4be1c07a" in line for line in found)


def test_a_good_model_is_not_warned_about(made):
    assert not any("Track B" in line or "Aligned" in line for line in words.warnings({**made, "controls": {}}))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (words.points(0.036), "+3.6"),
        (words.points(-0.012), "−1.2"),
        (words.points(-0.0001), "0.0"),
        (words.points(0.0004), "0.0"),
        (words.points(-0.004), "−0.4"),
        (words.points(0.0812, signed=False), "8.1"),
        (words.p_text(0.0357), "0.036"),
        (words.p_text(0.00001, name="p"), "p < 0.001"),
        (words.p_text(0.5, name="p"), "p = 0.50"),
        (words.duration(0.42), "0.4 s"),
        (words.duration(59.7), "1 min 0 s"),
        (words.duration(7325), "2 h 2 min"),
        (words.label("entity_disjoint_track_b"), "Unseen entities: Track B, reasons first"),
        (words.label("something_new"), "Something new"),
        (words.comparison_label("aligned_vs_track_b"), "The aligned model against Track B"),
    ],
)
def test_figures_in_words(shown, expected):
    assert shown == expected


def test_markdown_tables_hold_every_row_and_stay_tables(made):
    nasty = {**made, "stages": [{**made["stages"][0], "stage": "a | b\nc"}]}
    tables = render_markdown_tables(nasty)
    assert list(tables) == ["results", "comparisons", "class-shares", "stages"]
    for text in tables.values():
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert tables["results"].count("\n|") == 2 + 14
    assert "| Track B, reasons first | soft self-consistency |" in tables["results"]
    assert "| 842 | 281 |" in tables["results"]
    assert "| **Track B, reasons first** | reasoning |" in tables["results"]
    assert "| teacher agrees with gold | 112 | 150 | 42.7 % |" in tables["class-shares"]
    assert "Track B beats Track A." in tables["comparisons"]
    assert "a \\| b c" in tables["stages"]


def test_experiments_have_tables_of_their_own_where_they_were_done():
    tables = render_markdown_tables(full_summary())
    assert list(tables) == ["results", "comparisons", "class-shares", "stages", "draft", "attribution", "judge"]
    for name in ("draft", "attribution", "judge"):
        for block in tables[name].split("\n\n"):
            assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1
    assert tables["draft"].startswith("The student gains by asking (pass).")
    assert "| The full draft against a twin trained without drafts | " in tables["draft"]
    assert "| full draft | " in tables["draft"]
    assert "| Aligned, after preferences | 196 | 50.9 % | 38.0 % |" in tables["attribution"]
    assert "| 240 | 92 | 80 | 68 | 3 | +10.0 | −0.2 to +20.0 | 21.0 % | +2.40 |" in tables["judge"]
