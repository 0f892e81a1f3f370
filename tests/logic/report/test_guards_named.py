"""A report names every guard that its recipe switches off, and what it would have stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.contracts.profiles import load_profile
from tasks.logic.report.facts import Made, RunFacts
from tasks.logic.report.notes import notes, switched_off

PROFILES = Path(__file__).resolve().parents[3] / "deployments" / "profiles"


def made(name: str, summary: dict[str, Any]) -> Made:
    return Made(name=name, path="", cached=False, record={"summary": summary, "stage": name.split()[0]})


def facts(*artifacts: Made, allow: list[str]) -> RunFacts:
    profile = load_profile("demo", folder=PROFILES, overrides={"recipe.guards.allow": allow})
    return RunFacts(
        profile=profile,
        overrides={},
        artifacts=artifacts,
        scores=(),
        graded=(),
        taught=(),
        predictions=(),
        attributed=(),
        judged=(),
        test_reads=(),
        accepted="",
        generated_at="",
    )


def test_every_switched_off_guard_is_named_with_what_it_found_and_where() -> None:
    cut = {"allowed": {"verdict_fits": "35 tokens cut answers."}}
    artifacts = (
        made("curate", {"allowed": {"class_balance": "45 % yes became 28 %."}}),
        made("finetune track_b", {"steps": 15, "allowed": {}}),
        made("predict track_b on dev", {"cost": {}, "steps": {"greedy": cut, "chains": cut}}),
        made("align", cut),
    )
    told = switched_off(facts(*artifacts, allow=["class_balance", "lora_coverage", "verdict_fits"]))
    assert [line.split()[2] for line in told] == ["class_balance", "lora_coverage", "verdict_fits"]
    assert "45 % yes became 28 % (curate)." in told[0]
    assert "found nothing" in told[1]
    assert told[2].endswith("35 tokens cut answers (predict track_b on dev, align).")


def test_pairs_that_were_left_out_are_told_with_what_to_change() -> None:
    artifacts = (
        made("pair", {"turned_away": {"too long to train on": 3}}),
        made("align", {"alarms": [], "allowed": {}, "kept_epoch": 1}),
        made("predict aligned on dev", {"allowed": {}, "steps": {}}),
    )
    (told,) = [line for line in notes(facts(*artifacts, allow=[])) if "left out" in line]
    assert told.startswith("3 preference pairs were too long to train on")
    assert "raise recipe.align.max_length" in told


def test_the_day_that_every_prompt_names_is_told() -> None:
    record = {"pinned": True, "commit": "", "prompt_date": "2024-07-26"}
    model = load_profile("demo", folder=PROFILES, overrides={}).recipe.student.model
    artifacts = (
        made(f"student {model}", record),
        made("pair", {"turned_away": {}}),
        made("align", {"alarms": [], "allowed": {}, "kept_epoch": 1}),
        made("predict aligned on dev", {"allowed": {}, "steps": {}}),
    )
    (told,) = [line for line in notes(facts(*artifacts, allow=[])) if "today's date" in line]
    assert told.endswith("says 2024-07-26.")


def test_where_nothing_is_switched_off_nothing_is_said() -> None:
    assert switched_off(facts(made("curate", {"allowed": {}}), allow=[])) == []
