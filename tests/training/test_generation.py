"""Answers."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tasks.contracts.artifacts import read_rows
from tasks.contracts.failures import GuardError, StudentError
from tasks.contracts.rows import Arm, Completion, Request
from tasks.logic.arms import soft, soft_requests
from tasks.logic.asking import arm_requests
from tasks.training.generation import answer, run_answer
from tasks.training.student import Student, load_student
from tasks.training.tokens import end_ids, prompt_ids
from tests.logic.rows_of import BENCHMARK, drafted, questions
from tests.training.jobs import answer_step, requests, silent, weights


@pytest.fixture(scope="module")
def student(tiny: Path) -> Student:
    return load_student(weights(tiny), folder=tiny, device="cpu", trainable=False)


def ask(student: Student, rows: list[Request], *, temperature: float = 0.0, batch_size: int = 4, seed: int = 1) -> list[Completion]:
    return answer(student, rows, max_new_tokens=12, temperature=temperature, seed=seed, batch_size=batch_size, report=silent)


def test_greedy_answers_are_those_of_generate_row_by_row(student):
    rows = requests(7)
    for row, got in zip(rows, ask(student, rows), strict=True):
        ids = torch.tensor([prompt_ids(student.tokenizer, row.prompt)])
        out = student.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
        stops = [place for place, token in enumerate(out) if token in end_ids(student.tokenizer)]
        assert got.qid == row.qid
        assert got.text == student.tokenizer.decode(out[: stops[0]] if stops else out, skip_special_tokens=True)
        assert got.cut == (not stops)
        assert got.tokens == (stops[0] + 1 if stops else 12)
        assert math.isnan(got.margin)


def test_samples_depend_on_seed_and_sample_number_and_not_on_the_batch(student):
    rows = [replace(row, sample=sample) for row in requests(3) for sample in range(2)]
    texts = [each.text for each in ask(student, rows, temperature=1.0)]
    assert texts == [each.text for each in ask(student, rows, temperature=1.0, batch_size=1)]
    assert texts != [each.text for each in ask(student, rows, temperature=1.0, seed=2)]
    assert texts[0] != texts[1]


def test_sampling_draws_from_the_softmax(student):
    # 400 first tokens at temperature 1: the share of the likeliest text lies within four standard errors of its probability.
    rows = [replace(requests(1)[0], sample=sample) for sample in range(400)]
    first = answer(student, rows, max_new_tokens=1, temperature=1.0, seed=5, batch_size=100, report=silent)
    logits = student.model(input_ids=torch.tensor([prompt_ids(student.tokenizer, rows[0].prompt)])).logits[0, -1]
    chances: dict[str, float] = defaultdict(float)  # tokens of half a character share a text
    for token, chance in enumerate(logits.softmax(dim=0).tolist()):
        chances[student.tokenizer.decode([token], skip_special_tokens=True)] += chance
    text, chance = max(chances.items(), key=lambda item: item[1])
    share = sum(each.text == text for each in first) / 400
    assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / 400)


@pytest.mark.parametrize(("yes", "no"), [((" Yes",), (" No",)), ((" Yes", " definitely so"), (" No", " by no means at all"))])
def test_a_margin_is_the_log_odds_of_the_choices_after_prompt_and_prefix(student, yes, no):
    row = replace(requests(1)[0], prefix="Answer:", yes_choices=yes, no_choices=no)
    tokenizer = student.tokenizer
    context = [*prompt_ids(tokenizer, row.prompt), *tokenizer("Answer:", add_special_tokens=False)["input_ids"]]

    def chance(choice: str) -> float:
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
        logits = student.model(input_ids=torch.tensor([[*context, *ids]])).logits[0].double().log_softmax(dim=1)
        return math.exp(sum(logits[len(context) - 1 + place, token].item() for place, token in enumerate(ids)))

    want = math.log(sum(map(chance, yes))) - math.log(sum(map(chance, no)))
    (got,) = ask(student, [row])
    assert got.margin == pytest.approx(want, abs=1e-3)
    assert got.text == ("Answer:" + (yes if want > 0 else no)[0])
    assert not got.cut


def test_a_prefix_opens_the_text_and_mixed_requests_come_back_in_order(student):
    open_ended, chosen = requests(2)
    rows = [replace(chosen, prefix="Answer:", yes_choices=(" Yes",), no_choices=(" No",)), replace(open_ended, prefix="Reasoning:")]
    got = ask(student, rows)
    assert [each.qid for each in got] == ["q1", "q0"]
    assert got[1].text.startswith("Reasoning:")


def test_verdicts_are_read_after_the_students_own_chains_whatever_it_wrote_and_both_are_timed(student):
    rows = [drafted(row) for row in questions(3)]
    seconds: dict[str, float] = {}
    settings = {"max_new_tokens": 12, "temperature": 1.0, "seed": 1, "batch_size": 4, "report": silent, "seconds": seconds}
    chains = answer(student, arm_requests(rows, arm=Arm.REASONING, benchmark=BENCHMARK, samples=3), **settings)
    asked = soft_requests(rows, chains, benchmark=BENCHMARK)
    judged = answer(student, asked, **settings)
    made = soft(rows, chains, judged, model="m", benchmark=BENCHMARK)
    assert [row.qid for row in made] == [row.qid for row in rows]
    for row in made:
        chances = [1 / (1 + math.exp(-each.margin)) for each in judged if each.qid == row.qid]
        assert 1 / (1 + math.exp(-row.margin)) == pytest.approx(sum(chances) / 3)
        assert row.text.endswith("Final answer: Yes" if row.verdict == "yes" else "Final answer: No")
        assert row.tokens == sum(each.tokens for each in chains if each.qid == row.qid)
    assert seconds.keys() == {"reasoning", "soft"}
    assert min(seconds.values()) > 0


def test_a_choice_that_eats_into_the_prefix_is_refused(student):
    row = replace(requests(1)[0], prefix="Answer: ", yes_choices=("Yes",), no_choices=("No",))
    with pytest.raises(GuardError, match="move the space"):
        ask(student, [row])


def test_a_step_writes_the_table_and_refuses_too_few_tokens_for_what_the_arm_was_trained_on(tiny, tmp_path):
    step = answer_step(tmp_path, tiny, requests(3), max_new_tokens=5)
    summary = run_answer(step, tmp_path, silent)
    assert [each.qid for each in read_rows(tmp_path / "completions.parquet", Completion)] == ["q0", "q1", "q2"]
    assert summary["requests"] == 3
    assert summary["seconds"].keys() == {"direct"}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "history.json").write_text(json.dumps({"history": [], "completion_tokens": {"direct": 6}}))
    with pytest.raises(GuardError, match="direct up to 6"):
        run_answer(step.model_copy(update={"weights": weights(tiny, adapter="adapter")}), tmp_path, silent)


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(StudentError, match="nowhere"):
        load_student(weights(tmp_path / "nowhere"), folder=tmp_path, device="cpu", trainable=False)


def test_answers_do_not_go_through_what_training_compiled_and_leave_it_in_place(tiny):
    student = load_student(weights(tiny), folder=tiny, device="cpu", trainable=False)
    before = ask(student, requests(3))

    def compiled(*_, **__):
        raise AssertionError("compiled for training")

    for layer in student.model.get_decoder().layers:
        layer.forward = compiled
    assert [row.text for row in ask(student, requests(3))] == [row.text for row in before]
    assert all(layer.forward is compiled for layer in student.model.get_decoder().layers)
