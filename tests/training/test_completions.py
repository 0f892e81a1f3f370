"""The shared forward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.training.completions import HeadLogProbs, packed_log_probs, per_completion, score_completions
from tasks.training.packing import Bundle, pack
from tasks.training.student import Student, load_student
from tasks.training.tokens import prompt_ids, text_ids
from tests.training.jobs import weights


@pytest.fixture(scope="module")
def student(tiny: Path) -> Student:
    return load_student(weights(tiny), folder=tiny, device="cpu", trainable=False)


@pytest.fixture(scope="module")
def bundles(student: Student) -> list[Bundle]:
    texts = [("Answer: Yes", "Answer: No"), ("A horse weighs about 500 kg, so no. Final answer: No",), ("Y", "N", "Maybe not"), ("Just a text.",)]
    prompts = [tuple(prompt_ids(student.tokenizer, "Is it heavy? " * (index + 1))) for index in range(3)] + [()]
    return [
        Bundle(prompt=prompt, completions=tuple(tuple(text_ids(student.tokenizer, text)) for text in own)) for prompt, own in zip(prompts, texts, strict=True)
    ]


def alone(student: Student, bundle: Bundle) -> list[float]:
    """Each completion by the model's own forward, the full softmax, in float64."""
    found = []
    for completion in bundle.completions:
        ids = bundle.prompt + completion
        logits = student.model(input_ids=torch.tensor([ids])).logits[0, :-1].double().log_softmax(dim=1)
        found.append(logits[range(len(ids) - 1), list(ids[1:])][max(len(bundle.prompt) - 1, 0) :].sum().item())
    return found


def test_a_packed_batch_gives_every_completion_what_it_gets_alone_from_the_full_softmax(student, bundles):
    packed = pack(bundles)
    want = [total for bundle in bundles for total in alone(student, bundle)]
    assert per_completion(packed_log_probs(student.model, packed), packed).tolist() == pytest.approx(want, abs=1e-3)


def test_a_planted_neighbour_changes_nothing(student, bundles):
    packed = pack(bundles[:2])
    before = packed_log_probs(student.model, packed)
    planted = Bundle(prompt=tuple(reversed(bundles[0].prompt)), completions=(bundles[2].completions[2], bundles[0].completions[0]))
    between = pack([bundles[0], planted, bundles[1]])
    after = packed_log_probs(student.model, between)
    first, last = len(bundles[0].completions[0]) + len(bundles[0].completions[1]), len(bundles[1].completions[0])
    assert torch.allclose(torch.cat([after[:first], after[-last:]]), before, atol=1e-5)
    assert not torch.allclose(after[first : first + 3], before[first : first + 3], atol=1e-2)  # the neighbour itself is read, so equality means something


def test_a_sibling_completion_is_not_seen_but_the_prompt_is(student, bundles):
    bundle = bundles[0]
    swapped = Bundle(prompt=bundle.prompt, completions=(bundles[1].completions[0], bundle.completions[1]))
    kept = [per_completion(packed_log_probs(student.model, packed), packed)[1].item() for packed in (pack([bundle]), pack([swapped]))]
    assert kept[0] == pytest.approx(kept[1], abs=1e-5)
    other = Bundle(prompt=bundle.prompt[:-2] + bundle.prompt[:2], completions=bundle.completions)
    packed = pack([other])
    assert per_completion(packed_log_probs(student.model, packed), packed)[1].item() != pytest.approx(kept[0], abs=1e-2)


def test_scoring_under_any_budget_reaches_every_bundle_once_and_restores_the_mode(student, bundles):
    student.model.train()
    found = {index: totals for picked, scored in score_completions(student.model, bundles, budget=30) for index, totals in zip(picked, scored, strict=True)}
    assert sorted(found) == [0, 1, 2, 3]
    for index, bundle in enumerate(bundles):
        assert found[index] == pytest.approx(alone(student, bundle), abs=1e-3)
    assert student.model.training
    student.model.eval()


def test_the_head_in_pieces_is_log_softmax_with_its_gradient(monkeypatch):
    monkeypatch.setattr("tasks.training.completions.HEAD_TOKENS", 4)
    hidden, weight = torch.randn(11, 8, dtype=torch.float64, requires_grad=True), torch.randn(20, 8, dtype=torch.float64)
    target = torch.randint(0, 20, (11,))
    assert torch.autograd.gradcheck(lambda h: HeadLogProbs.apply(h, weight, target), (hidden,))
    want = (hidden @ weight.t()).log_softmax(dim=1)[range(11), target]
    assert torch.allclose(HeadLogProbs.apply(hidden, weight, target), want)
