"""Every guard, tripped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from transformers import Phi3Config, Phi3ForCausalLM

from tasks.contracts.failures import GuardError
from tasks.contracts.recipes import Lora
from tasks.training import guards
from tasks.training.packing import Bundle
from tasks.training.student import Student, add_new_adapter, load_student
from tasks.training.tokens import Tokens, tokenize_example
from tests.training.jobs import stock, weights

LORA = Lora(rank=4, alpha=8, dropout=0.0, targets="all-linear")


def phi(targets: str | list[str]) -> torch.nn.Module:
    config = Phi3Config(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, pad_token_id=0)
    return get_peft_model(Phi3ForCausalLM(config), LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))


@pytest.fixture
def nf4(tiny: Path) -> Student:
    student = load_student(weights(tiny, quantization="nf4", dtype="bfloat16"), folder=tiny, device="cpu", trainable=True)
    return Student(add_new_adapter(student.model, LORA), student.tokenizer)


def probe(student: Student) -> list[Bundle]:
    return [Bundle.of(tokenize_example(student.tokenizer, prompt="Is it heavy?", completion="Answer: Yes"))]


def test_a_name_list_made_for_llama_misses_the_fused_layers_of_phi():
    model = phi(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    with pytest.raises(GuardError, match=r"misses gate_up_proj \(2 layers\), qkv_proj \(2 layers\); it covers only down_proj, o_proj"):
        guards.lora_coverage(model)


def test_all_linear_covers_the_fused_layers_of_phi():
    assert guards.lora_coverage(phi("all-linear")) == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


def test_four_bit_layers_count_as_covered(nf4):
    assert len(guards.lora_coverage(nf4.model)) == 7


def test_a_full_precision_model_is_not_four_bit():
    with pytest.raises(GuardError, match="no layer is 4-bit"):
        guards.four_bit(phi("all-linear"))


def test_four_bit_layers_are_counted(nf4):
    assert guards.four_bit(nf4.model) == 4 * 7


@pytest.fixture
def unprotected(nf4: Student) -> Student:
    """The student as bitsandbytes leaves it: on a CPU with AVX512-BF16 it repacks its weights at the first evaluation forward."""
    layers = [module for module in nf4.model.modules() if isinstance(module, Linear4bit)]
    fresh = Linear4bit(4, 4)
    if not fresh.support_avx512bf16_for_cpu:
        pytest.skip("this CPU has no AVX512-BF16, so bitsandbytes repacks nothing")
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True
    return nf4


@pytest.mark.filterwarnings("ignore:bitsandbytes.*autograd kernel:UserWarning")
def test_gradients_that_an_evaluation_forward_would_kill_are_found_dead(unprotected):
    with pytest.raises(GuardError, match=r"\d+ of 28 LoRA matrices get no usable gradient"):
        guards.gradients_flow(stock(unprotected.model), probe(unprotected))  # our form of the layers keeps the weights as they were
    with pytest.raises(GuardError, match="repacked"):
        guards.four_bit(unprotected.model)


def test_gradients_of_a_protected_student_flow_after_an_evaluation_forward_and_are_cleared(nf4):
    assert guards.gradients_flow(nf4.model, probe(nf4)) == 28
    assert all(parameter.grad is None for parameter in nf4.model.parameters())


def test_a_frozen_adapter_has_no_gradient(nf4):
    for name, parameter in nf4.model.named_parameters():
        if "layers.2." in name and "lora_B" in name:
            parameter.requires_grad_(False)
    assert guards.gradients_flow(nf4.model, probe(nf4)) == 21
    for parameter in nf4.model.parameters():
        parameter.requires_grad_(False)
    nf4.model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(GuardError, match="none is trainable"):
        guards.gradients_flow(nf4.model, probe(nf4))


def test_rows_that_would_be_cut_are_counted_by_class():
    rows = [Tokens(ids=tuple(range(length)), prompt=1) for length in (5, 9, 12, 20)]
    with pytest.raises(GuardError, match=r"max_length = 10 would cut the end off 2 of 4 rows \(no 1, yes 1\); the longest has 20"):
        guards.labels_survive(rows, ["yes", "no", "yes", "no"], max_length=10, setting="recipe.sft.max_length")
    assert guards.labels_survive(rows, ["yes"] * 4, max_length=20, setting="recipe.sft.max_length") == 20


def test_a_training_prompt_with_one_space_more_is_found(nf4):
    row = tokenize_example(nf4.tokenizer, prompt="Is it heavy? ", completion="Yes")
    guards.same_prompts([row], ["Is it heavy? "], nf4.tokenizer)
    with pytest.raises(GuardError, match="Row 0 is trained after"):
        guards.same_prompts([row], ["Is it heavy?"], nf4.tokenizer)


def test_an_answer_longer_than_its_limit_is_found():
    guards.verdicts_fit({"reasoning": 60}, ["reasoning", "direct"], max_new_tokens=60)
    with pytest.raises(GuardError, match="reasoning up to 60"):
        guards.verdicts_fit({"reasoning": 60}, ["reasoning", "direct"], max_new_tokens=35)


@pytest.mark.parametrize(
    ("gaps", "dtype", "passes"), [(0.0, torch.float32, True), (0.5, torch.float32, False), (0.05, torch.bfloat16, True), (3.0, torch.bfloat16, False)]
)
def test_a_policy_that_is_not_its_reference_is_found_before_the_first_step(gaps, dtype, passes):
    def check() -> dict[str, float]:
        return guards.starts_at_reference(torch.tensor([gaps, -gaps]), torch.tensor([60, 60]), beta=0.05, dtype=dtype)

    if passes:
        assert check()["loss"] == pytest.approx(0.693, abs=0.005)
    else:
        with pytest.raises(GuardError, match="run the pair stage again"):
            check()


def test_pairs_of_another_adapter_are_counted():
    guards.one_reference(["abc", "abc"], expected="abc")
    with pytest.raises(GuardError, match="2 of 3 pairs carry reference log-probabilities of no adapter"):
        guards.one_reference(["abc", "", ""], expected="abc")
