"""The shared forward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.training.completions import completion_log_probs, pad_right, score_completions
from tasks.training.student import Student, load_student
from tasks.training.tokens import Tokens, tokenize_example
from tests.training.jobs import weights


@pytest.fixture(scope="module")
def student(tiny: Path) -> Student:
    return load_student(weights(tiny), folder=tiny, device="cpu", trainable=False)


@pytest.fixture(scope="module")
def rows(student: Student) -> list[Tokens]:
    texts = ["Answer: Yes", "A horse weighs about 500 kg, so no. Final answer: No", "Yes"]
    return [tokenize_example(student.tokenizer, prompt="Is it heavy? " * (index + 1), completion=text) for index, text in enumerate(texts)]


def test_a_padded_batch_gives_every_row_what_it_gets_alone_from_the_full_softmax(student, rows):
    scored = completion_log_probs(student.model, pad_right(rows, pad=0))
    for index, row in enumerate(rows):
        logits = student.model(input_ids=torch.tensor([row.ids])).logits[0, :-1].double()
        each = logits.log_softmax(dim=1)[range(len(row.ids) - 1), list(row.ids[1:])][row.prompt - 1 :]
        assert scored.tokens[index] == row.completion
        assert torch.allclose(scored.per_token[index][scored.mask[index]].double(), each, atol=1e-4)
        assert scored.total[index].item() == pytest.approx(each.sum().item(), abs=1e-3)


def test_scoring_in_any_batch_size_reaches_every_row_once_and_restores_the_mode(student, rows):
    student.model.train()
    found = {}
    for picked, totals in score_completions(student.model, rows, pad=0, batch_size=2):
        found.update(zip(picked, totals.tolist(), strict=True))
    whole = completion_log_probs(student.model, pad_right(rows, pad=0)).total
    assert [found[index] for index in range(3)] == pytest.approx(whole.tolist(), abs=1e-3)
    assert student.model.training
    student.model.eval()
