"""Log-probabilities of single texts: those of the reference pass, and those of transformers' own forward."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.contracts.artifacts import read_rows
from tasks.contracts.jobs import Job
from tasks.contracts.rounds import Likelihood
from tasks.contracts.rows import Pair
from tasks.training.launch import run_job
from tasks.training.reference import run_reference, run_score
from tasks.training.sft import run_sft
from tasks.training.tokens import end_ids, prompt_ids, text_ids
from tests.training.jobs import SIDES, examples, pairs, reference_step, score_step, sft_step, silent, spoken, weights


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    run_sft(sft_step(folder, tiny, examples(16)), folder, silent)
    return folder


def test_texts_are_as_likely_as_the_reference_pass_says(tiny: Path, folder: Path) -> None:
    run_reference(reference_step(folder, tiny, pairs(9)), folder, silent)
    summary = run_score(score_step(folder, tiny, spoken(pairs(9))), folder, silent)
    filled, found = read_rows(folder / "referenced.parquet", Pair), read_rows(folder / "likelihoods.parquet", Likelihood)
    assert [(row.qid, row.role) for row in found] == [(pair.qid, side) for pair in filled for side in SIDES]
    assert [row.nats for row in found] == pytest.approx([nats for pair in filled for nats in (pair.reference_chosen, pair.reference_rejected)], abs=1e-4)
    assert summary["texts"] == 18


def test_texts_are_as_likely_as_transformers_says(tiny: Path, folder: Path) -> None:
    texts = [*spoken(pairs(3)), replace(spoken(pairs(1))[0], completion="")]
    run_score(score_step(folder, tiny, texts, weights=weights(tiny)), folder, silent)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny), AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
    for text, row in zip(texts, read_rows(folder / "likelihoods.parquet", Likelihood), strict=True):
        prompt, said = prompt_ids(tokenizer, text.prompt), [*text_ids(tokenizer, text.completion), end_ids(tokenizer)[0]]
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([prompt + said])).logits[0].double().log_softmax(dim=1)
        want = sum(log_probs[len(prompt) - 1 + place, token].item() for place, token in enumerate(said))
        assert row.tokens == len(said)
        assert row.nats == pytest.approx(want, abs=1e-3)


def test_pairs_too_long_to_train_on_are_left_out_and_counted(tiny: Path, folder: Path) -> None:
    long = [replace(pair, rejected=f"{pair.rejected} {'so ' * 150}") if place % 3 == 1 else pair for place, pair in enumerate(pairs(9))]
    summary = run_reference(reference_step(folder, tiny, long, max_length=120), folder, silent)
    kept = read_rows(folder / "referenced.parquet", Pair)
    assert [pair.rejected for pair in kept] == [pair.rejected for place, pair in enumerate(long) if place % 3 != 1]
    assert summary["too_long"] == 3
    assert summary["longest_row"] <= 120
    alone = {pair.qid: pair.reference_rejected for pair in kept}
    run_reference(reference_step(folder, tiny, [pair for pair in long if pair.qid in alone], max_length=120), folder, silent)
    again = {pair.qid: pair.reference_rejected for pair in read_rows(folder / "referenced.parquet", Pair)}
    assert again == pytest.approx(alone, abs=1e-3)
    assert run_reference(reference_step(folder, tiny, long, max_length=20), folder, silent)["too_long"] == 9
    assert read_rows(folder / "referenced.parquet", Pair) == []


def test_a_job_reads_what_there_is_even_nothing(tiny: Path, tmp_path: Path) -> None:
    (done,) = run_job(Job(steps=(score_step(tmp_path, tiny, [], weights=weights(tiny)),)), tmp_path, on_progress=lambda progress: None)
    assert done.summary["texts"] == 0
    assert read_rows(tmp_path / done.out, Likelihood) == []
