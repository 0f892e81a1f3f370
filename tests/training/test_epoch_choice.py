"""The best epoch by exams: chosen, kept, and the same after an interruption."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tasks.contracts.artifacts import write_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.jobs import SftStep
from tasks.contracts.rows import Exam
from tasks.training import sft
from tasks.training.selection import Candidate, Selection
from tasks.training.sft import run_sft
from tests.training.jobs import align_recipe, align_step, examples, requests, sft_step, silent

EPOCHS, AN_EPOCH = 5, 2


def selection(folder: Path, exams: list[Exam], *, patience: int | None) -> Selection:
    made: Any = {"student": None, "engine": None}
    return Selection(align_step(folder, folder, exams, align_recipe()), exams, work=folder, report=silent, epoch_steps=1, patience=patience, **made)


def exam(count: int, *, arm: str = "direct", choices: bool = True) -> list[Exam]:
    """Questions that are right with "no", the class that the examples of this file teach."""
    scored: dict[str, Any] = {"prefix": "Final answer:", "yes_choices": (" Yes",), "no_choices": (" No",)} if choices else {}
    return [Exam(**asdict(replace(row, arm=arm, **scored)), answer="no") for row in requests(count)]


def chosen_step(folder: Path, tiny: Path, exams: list[Exam], **changes: object) -> SftStep:
    """Fine-tuning that makes "no" of everything within an epoch, so that no later epoch is better."""
    taught = [replace(row, completion=f"{row.completion.rpartition(' ')[0]} No", answer="no") for row in examples(16)]
    write_rows(folder / "exams.parquet", exams, Exam)
    step = sft_step(folder, tiny, taught, exams="exams.parquet")
    recipe = step.recipe.model_copy(update={"epochs": EPOCHS, "learning_rate": 2e-2, "warmup": 0.0})
    return step.model_copy(update={"recipe": recipe, **changes})


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_training_ends_after_two_epochs_without_a_better_one_and_keeps_the_first_of_the_best(tmp_path_factory, counts):
    seen = selection(tmp_path_factory.getbasetemp(), exam(4), patience=2)
    for epoch, correct in enumerate(counts, start=1):
        seen.candidates.append(Candidate(epoch, correct, 0, 0, 4))
        if seen.finished:
            break
    reached = counts[: len(seen.candidates)]
    assert seen.best() == reached.index(max(reached)) + 1
    without = len(reached) - seen.best()
    assert seen.finished == (without == 2)
    assert without == 2 or reached == counts


def test_without_exams_the_last_epoch_is_the_best_and_nothing_ends_early(tmp_path):
    seen = selection(tmp_path, [], patience=2)
    for epoch in range(1, 6):
        seen.examine(epoch)
    assert seen.best() == 5
    assert not seen.finished


@pytest.fixture
def best_epoch(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The adapter of the first epoch as it was saved while training ran."""
    kept: dict[str, Any] = {}
    save = sft.save_trained

    def listened(model: Any, out: Path, **rest: Any) -> None:
        kept.update(load_file(out.with_name(f".{out.name}.work") / "epoch-1" / "adapter_model.safetensors"))
        save(model, out, **rest)

    monkeypatch.setattr(sft, "save_trained", listened)
    return kept


def test_fine_tuning_stops_early_and_leaves_the_adapter_of_its_best_epoch(tiny, tmp_path, best_epoch):
    summary = run_sft(chosen_step(tmp_path, tiny, exam(3)), tmp_path, silent)
    assert summary["selection"] == [{"epoch": epoch, "correct": 3, "yes": 0, "unparsed": 0, "n": 3} for epoch in (1, 2, 3)]
    assert summary["kept_epoch"] == 1
    assert summary["steps"] == len(summary["history"]) == 3 * AN_EPOCH
    left = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert left.keys() == best_epoch.keys()
    assert all((left[name] == best_epoch[name]).all() for name in left)
    assert not list(tmp_path.glob(".adapter*"))


def test_a_run_as_long_as_another_goes_on_to_its_end_and_keeps_its_best_epoch(tiny, tmp_path):
    summary = run_sft(chosen_step(tmp_path, tiny, exam(3), steps=4 * AN_EPOCH + 1), tmp_path, silent)
    assert summary["steps"] == 9
    assert [each["epoch"] for each in summary["selection"]] == [1, 2, 3, 4, 5]  # the last one in part
    assert summary["kept_epoch"] == 1


class Stop(Exception):
    """The power goes."""


@pytest.mark.parametrize("changes", [{}, {"steps": 4 * AN_EPOCH + 1}], ids=["stopped early", "ends inside an epoch"])
def test_a_run_killed_after_its_last_checkpoint_trains_and_examines_no_more(tiny, tmp_path, monkeypatch, changes):
    straight = run_sft(chosen_step(tmp_path, tiny, exam(3), **changes), tmp_path, silent)
    broken = chosen_step(tmp_path, tiny, exam(3), out="broken", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(sft, "save_trained", lambda *_, **__: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            run_sft(broken, tmp_path, silent)
    resumed = run_sft(broken, tmp_path, silent)
    assert resumed["resumed_from_step"] == straight["steps"]
    for name in ("steps", "tokens", "history", "selection", "kept_epoch"):
        assert resumed[name] == straight[name]
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("adapter", "broken"))
    assert all((one[name] == other[name]).all() for name in one)


def test_exams_that_would_be_cut_are_found_before_training_unless_the_recipe_allows_it(tiny, tmp_path):
    written = exam(2, arm="reasoning", choices=False)
    with pytest.raises(GuardError, match="max_new_tokens = 3 cuts answers before their verdict"):
        run_sft(chosen_step(tmp_path, tiny, written, exam_max_new_tokens=3), tmp_path, silent)
    summary = run_sft(chosen_step(tmp_path, tiny, written, exam_max_new_tokens=3, allow=("verdict_fits",)), tmp_path, silent)
    assert "training completions have reasoning up to" in summary["allowed"]["verdict_fits"]
    assert summary["selection"][0]["n"] == 2
