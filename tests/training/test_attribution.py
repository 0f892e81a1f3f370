"""Attributions of verdicts: exact where they can be known, adding up where they cannot, and nothing on the template."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.artifacts import read_rows, write_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.jobs import TEXTS, TOKENS, AttributeStep
from tasks.contracts.recipes import Attribute
from tasks.contracts.rows import Attributable, Attributed, TokenShare
from tasks.logic.attribution import CONTENT, attributables
from tasks.training.attribution import attribute, integrate, log_odds, read_tokens, run_attribute
from tasks.training.sft import run_sft
from tasks.training.student import Student, load_student
from tasks.training.tokens import prompt_ids, render_prompt, text_ids
from tests.logic.rows_of import BENCHMARK, completion, drafted, questions
from tests.training.jobs import MACHINE, examples, sft_step, silent, weights

RECIPE = Attribute(questions=2, points=16, most_points=512, tolerance=0.05)
DRAFT = "Questions: When did he die?\nAnswer: Yes"
CHAIN = "Clarifying questions:\nWhen was it?\nReasoning: 44 BC is before 1876.\nFinal answer: Yes"


def texts(count: int) -> list[Attributable]:
    rows = [drafted(row, draft=DRAFT, asked=("When did he die?",)) for row in questions(count)]
    return attributables(rows, [completion(row, CHAIN) for row in rows], model="aligned", draft="own", benchmark=BENCHMARK)


def attribute_step(folder: Path, model: Path, rows: list[Attributable], **changes: object) -> AttributeStep:
    write_rows(folder / "texts.parquet", rows, Attributable)
    step = AttributeStep(name="why", weights=weights(model), requests="texts.parquet", recipe=RECIPE, machine=MACHINE, out="attributed")
    return step.model_copy(update=changes)


@pytest.fixture(scope="module")
def student(tiny: Path) -> Student:
    return load_student(weights(tiny), folder=tiny, device="cpu", trainable=False)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), points=st.integers(1, 9), rows=st.integers(1, 5))
def test_a_linear_function_is_attributed_exactly(seed: int, points: int, rows: int) -> None:
    bare, whole, slope = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(seed))
    found = integrate(lambda x: (x * slope).sum(dim=(1, 2)), bare, whole, recipe=RECIPE.model_copy(update={"points": points}), rows=rows)
    torch.testing.assert_close(found.attributions, ((whole - bare) * slope).sum(dim=1), rtol=1e-4, atol=1e-4)
    assert found.points == points + 1
    assert found.error < 1e-3


def test_points_are_doubled_and_none_is_computed_twice_until_the_sum_is_right() -> None:
    seen: list[float] = []

    def wave(x: torch.Tensor) -> torch.Tensor:  # swings sixteen times on its way from 0 to 1
        if x.requires_grad:
            seen.extend(x[:, 0, 0].tolist())
        return x[:, 0, 0] + torch.sin(2 * torch.pi * 16 * x[:, 0, 0])

    found = integrate(wave, torch.zeros(1, 1), torch.ones(1, 1), recipe=RECIPE.model_copy(update={"points": 2}), rows=3)
    assert found.points == len(seen) == len({round(place, 6) for place in seen})
    assert sorted(seen) == pytest.approx([place / (found.points - 1) for place in range(found.points)], abs=1e-6)
    assert found.change == pytest.approx(1.0, abs=1e-4)
    assert found.error <= 0.05
    assert found.points > 16


def test_a_sum_that_never_comes_right_is_given_up_at_the_limit() -> None:
    found = integrate(lambda x: (x[:, 0, 0] > 0.5).float() + 0 * x[:, 0, 0], torch.zeros(1, 1), torch.ones(1, 1), recipe=RECIPE, rows=8)
    assert found.error == pytest.approx(1.0)
    assert found.points == 513


def test_attributions_add_up_to_the_change_and_neither_template_nor_chain_has_any(student: Student) -> None:
    for text, tokens in attribute(student, texts(2), recipe=RECIPE, batch_tokens=512, report=silent):
        assert text.complete
        assert abs(sum(token.attribution for token in tokens) - text.change) <= 0.05 * max(abs(text.change), 0.5)
        assert {token.role for token in tokens} == {"template", "chain", *CONTENT}
        assert all((token.attribution != 0.0) == (token.role in CONTENT) for token in tokens)


def test_the_figure_is_that_of_the_answer_it_gave_after_the_ids_that_it_reads(student: Student) -> None:
    (text,) = texts(1)
    ((found, _),) = attribute(student, [text], recipe=RECIPE, batch_tokens=512, report=silent)
    tokens = read_tokens(student, text)
    ids = [*prompt_ids(student.tokenizer, "".join(text.prompt)), *text_ids(student.tokenizer, "".join(text.prefix))]
    assert [token.id for token in tokens] == ids

    def figure(ids: list[int]) -> float:
        chances = student.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(dim=0)
        return float(sum(sign * chances[[text_ids(student.tokenizer, word)[0] for word in words]].logsumexp(0) for sign, words in sides))

    sides = ((1, [" Yes"]), (-1, [" No"]))  # their lower-case forms are several tokens for the tiny student
    whole = figure(ids)
    sign = 1 if whole > 0 else -1
    assert found.said == ("yes" if whole > 0 else "no")
    pad = student.tokenizer.pad_token_id
    assert found.change == pytest.approx(sign * (whole - figure([pad if token.role in CONTENT else token.id for token in tokens])), abs=1e-3)
    assert found.masked == pytest.approx(sign * (whole - figure([pad if token.role.startswith("draft") else token.id for token in tokens])), abs=1e-3)


@settings(deadline=None, max_examples=30)
@given(draft=st.text(max_size=60), chain=st.text(max_size=60))
def test_tokens_are_the_whole_text_and_roles_cover_it(student: Student, draft: str, chain: str) -> None:
    row = drafted(questions(1)[0], draft=draft, verdict="unparsed")
    (text,) = attributables([row], [completion(row, chain)], model="m", draft="own", benchmark=BENCHMARK)
    tokens = read_tokens(student, text)
    assert "".join(token.text for token in tokens) == render_prompt(student.tokenizer, BENCHMARK.prompt("rewrite", row)) + "".join(text.prefix)  # type: ignore[arg-type]
    asked = "".join(token.text for token in tokens if token.role == "question")
    assert asked.strip() == row.question


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_step_reads_adapters_on_plain_and_on_4_bit_weights(tiny: Path, tmp_path: Path, quantization: str) -> None:
    run_sft(sft_step(tmp_path, tiny, examples(8), weights=weights(tiny, quantization=quantization), steps=2), tmp_path, silent)
    step = attribute_step(tmp_path, tiny, texts(2), weights=weights(tiny, adapter="adapter", quantization=quantization))
    summary = run_attribute(step, tmp_path, silent)
    found, tokens = read_rows(tmp_path / "attributed" / TEXTS, Attributed), read_rows(tmp_path / "attributed" / TOKENS, TokenShare)
    assert summary["texts"] == summary["complete"] == 2
    assert summary["gradients"] == sum(text.points for text in found)
    assert summary["weights"] == "float32, adapters merged"
    assert {(token.qid, token.role) for token in tokens} >= {(text.qid, "draft_verdict") for text in found}


def test_without_room_for_float32_a_4_bit_student_is_read_as_it_is(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sft(sft_step(tmp_path, tiny, examples(8), weights=weights(tiny, quantization="nf4"), steps=2), tmp_path, silent)
    step = attribute_step(tmp_path, tiny, texts(1), weights=weights(tiny, adapter="adapter", quantization="nf4"))
    run_attribute(step, tmp_path, silent)
    expanded = {token.place: token.attribution for token in read_rows(tmp_path / "attributed" / TOKENS, TokenShare)}
    monkeypatch.setattr("tasks.training.attribution.expand", lambda _: False)
    assert run_attribute(step, tmp_path, silent)["weights"].startswith("nf4")
    (text,) = read_rows(tmp_path / "attributed" / TEXTS, Attributed)
    assert text.complete
    # The same network computed in two ways: were gradients lost on the way through 4-bit layers, nothing would add up.
    for token in read_rows(tmp_path / "attributed" / TOKENS, TokenShare):
        assert token.attribution == pytest.approx(expanded[token.place], abs=0.05)


def test_choices_of_several_tokens_alone_are_refused(student: Student) -> None:
    (text,) = texts(1)
    changed = Attributable(**{**vars(text), "yes_choices": (" certainly and without doubt",)})
    with pytest.raises(GuardError, match="is one token"):
        log_odds(student, changed)
