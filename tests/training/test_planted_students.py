"""Students planted to ignore their draft, to copy its verdict, or to use its questions: trained for real, read for real, and told apart."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from tasks.contracts.artifacts import read_rows
from tasks.contracts.profiles import load_profile
from tasks.contracts.readings import TWIN, readings
from tasks.contracts.rows import Arm, Completion, Drafted, Prediction
from tasks.logic.asking import greedy_requests, predictions
from tasks.logic.draft_experiment import DraftExperiment, draft_experiment
from tasks.training.generation import run_answer
from tests.contracts.test_profiles import PROFILES
from tests.logic.rows_of import BENCHMARK, drafted, questions
from tests.schooled_student import school
from tests.training.jobs import MACHINE, answer_step, silent

pytestmark = pytest.mark.slow
ASKED, LESSONS, STEPS = 160, 300, 40  # 120 equal answers cannot tell no difference from one of 3 points
CLUES = {"yes": "whale", "no": "horse"}
VALIDATE = load_profile("validate", folder=PROFILES, overrides={"recipe.ablate.shuffles": 3}).recipe
(ONE,) = questions(1, split="dev")
Kind = Literal["ignores", "copies", "asks"]


def rows(kind: Kind, count: int, *, seed: int) -> list[Drafted]:
    """Questions whose answer can be told from the question itself, from the draft's verdict (right in 17 of 20), or from the draft's question alone."""
    rng, made = random.Random(f"{kind}{seed}"), []
    for number in range(count):
        gold, chance = (rng.choice(["yes", "no"]) for _ in range(2))
        verdict = (gold if rng.random() < 0.85 else chance) if kind == "copies" else chance
        asked = f"Is it a {CLUES[gold] if kind == 'asks' else 'telephone'}?"
        question = f"Is a {CLUES[gold] if kind == 'ignores' else 'student'} older than {rng.randint(10, 99)}?"
        row = drafted(replace(ONE, qid=f"q{number}", question=question, answer=gold), verdict=verdict, asked=(asked,))
        made.append(replace(row, draft=f"Questions: {asked} Answer: {verdict.title()}"))
    return made


def trained(kind: Kind, arm: Arm, folder: Path) -> Path:
    """A student that learned gold from the prompts of one arm, and so whatever tells gold in them."""
    lessons = [(BENCHMARK.prompt(arm, row), f"Final answer: {row.answer.title()}<|stop|>") for row in rows(kind, LESSONS, seed=1)]
    return school(folder, lessons, steps=STEPS, batch=16)


def read(kind: Kind, model: str, student: Path, folder: Path) -> list[Prediction]:
    """The answers of one model under every arm that the validate profile reads of it, through the step that a run takes."""
    (reading,) = [each for each in readings(VALIDATE.grade, VALIDATE.ablate) if each.model == model]
    asked = [replace(row, split="dev") for row in rows(kind, ASKED, seed=2)]
    arms = [arm for arm in reading.asked if arm not in (Arm.DIRECT, Arm.REASONING)]
    requests = [request for arm in arms for request in greedy_requests(asked, arm=arm, benchmark=BENCHMARK, seed=0)[0]]
    step = answer_step(folder, student, requests, max_new_tokens=12, machine=MACHINE.model_copy(update={"generate_batch": ASKED}))
    run_answer(step, folder, silent)
    return predictions(asked, read_rows(folder / step.out, Completion), model=model, benchmark=BENCHMARK)


def experiment(kind: Kind, folder: Path) -> DraftExperiment:
    made: list[Prediction] = []
    for model, arm in (("aligned", Arm.REWRITE), (TWIN, Arm.NO_DRAFT)):
        place = folder / model
        place.mkdir()
        made += read(kind, model, trained(kind, arm, place / "student"), place)
    found = draft_experiment(made, split="dev", resamples=1000, seed=0, unmatched={}, rewrite_pairs=LESSONS)
    assert found is not None
    assert len(found.comparisons) == 6
    return found


def verdicts(found: DraftExperiment) -> dict[str, str]:
    return {each.name: each.verdict.value for each in found.comparisons}


def test_a_student_that_ignores_its_draft_does_not_learn_by_asking(tmp_path: Path) -> None:
    found = experiment("ignores", tmp_path)
    said = verdicts(found)
    assert "pass" not in {said[f"full_draft_vs_{other}"] for other in ("no_draft", "shuffled_draft", "neutral_draft", "aligned_no_draft")}
    assert found.verdict == "fail"


def test_a_student_that_copies_the_drafts_verdict_is_found_out(tmp_path: Path) -> None:
    found = experiment("copies", tmp_path)
    family = {each.name: each for each in found.comparisons}
    assert family["full_draft_vs_no_draft"].verdict == family["full_draft_vs_aligned_no_draft"].verdict == "pass"
    assert abs(family["full_draft_vs_shuffled_draft"].difference) < 0.05  # shuffles keep the verdict, and that is all it reads
    assert family["draft_questions_vs_draft_verdict"].verdict == "fail"
    assert family["draft_questions_vs_draft_verdict"].difference < -0.2
    assert found.verdict == "fail"


def test_a_student_that_uses_the_drafts_questions_learns_by_asking(tmp_path: Path) -> None:
    found = experiment("asks", tmp_path)
    said = verdicts(found)
    assert said["full_draft_vs_shuffled_draft"] == said["draft_questions_vs_draft_verdict"] == said["full_draft_vs_aligned_no_draft"] == "pass"
    assert (found.verdict, found.confounded) == ("pass", False)
