"""Two processes on one machine do what one does: the same losses, the same answers, one set of files."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tasks.contracts.artifacts import read_rows
from tasks.contracts.jobs import Job
from tasks.contracts.recipes import Phase
from tasks.contracts.rounds import Likelihood
from tasks.contracts.rows import Completion, Exam, Pair
from tasks.training.launch import run_job
from tests.training.jobs import MACHINE, PLAIN, align_recipe, align_step, answer_step, examples, pairs, reference_step, requests, score_step, sft_step, spoken

TWO = MACHINE.model_copy(update={"processes": 2})
CENTRED = Phase(epochs=1, beta=0.1, cal="batch_mean", dr="paper", drop_quantile=0.25)


def chain(folder: Path, tiny: Path, machine: object) -> Job:
    """Fine-tune, answer, reference, align; dropout on, an odd number of rows and exams, every phase variant that sees other rows' figures."""
    folder.mkdir()
    exams = [Exam(**asdict(replace(row, prefix="Final answer:", yes_choices=(" Yes",), no_choices=(" No",))), answer="yes") for row in requests(3)]
    steps = (
        sft_step(folder, tiny, examples(21), exams="exams.parquet", machine=machine),
        answer_step(folder, tiny, requests(7), machine=machine),
        reference_step(folder, tiny, pairs(13), machine=machine),
        align_step(folder, tiny, exams, align_recipe(PLAIN, CENTRED, nll_weight=0.2, learning_rate=5e-3), machine=machine),
        score_step(folder, tiny, spoken(pairs(13))[:-1], machine=machine),
    )
    return Job(steps=steps)


@pytest.mark.slow
def test_two_processes_train_and_answer_as_one(tiny, tmp_path):
    told = []
    one = run_job(chain(tmp_path / "one", tiny, MACHINE), tmp_path / "one", on_progress=lambda progress: None)
    two = run_job(chain(tmp_path / "two", tiny, TWO), tmp_path / "two", on_progress=told.append)
    assert two[0].summary["machine"]["processes"] == two[3].summary["machine"]["processes"] == 2
    for index in (0, 3):
        curves = [[point["loss"] for point in results[index].summary["history"]] for results in (one, two)]
        assert curves[0] == pytest.approx(curves[1], abs=1e-4)
        assert curves[0][0] != pytest.approx(curves[0][-1], abs=1e-3)
        assert one[index].summary["selection"] == two[index].summary["selection"]
    answers = [[(row.qid, row.text) for row in read_rows(tmp_path / name / "completions.parquet", Completion)] for name in ("one", "two")]
    assert answers[0] == answers[1]
    references = [[row.reference_chosen for row in read_rows(tmp_path / name / "referenced.parquet", Pair)] for name in ("one", "two")]
    assert references[0] == pytest.approx(references[1], abs=1e-2)
    likelihoods = [read_rows(tmp_path / name / "likelihoods.parquet", Likelihood) for name in ("one", "two")]
    assert [(row.qid, row.role, row.tokens) for row in likelihoods[0]] == [(row.qid, row.role, row.tokens) for row in likelihoods[1]]
    assert [row.nats for row in likelihoods[0]] == pytest.approx([row.nats for row in likelihoods[1]], abs=1e-2)
    kept = [load_file(tmp_path / name / "aligned" / "adapter_model.safetensors") for name in ("one", "two")]
    assert all(kept[0][name].allclose(kept[1][name], atol=1e-3) for name in kept[0])
    assert [progress.done for progress in told if progress.step == 0 and progress.note.startswith("loss")] == list(range(1, 7))  # one process tells
