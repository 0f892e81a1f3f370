"""Every guard, tripped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from tasks.contracts.failures import GuardError, StudentError
from tasks.contracts.recipes import Lora
from tasks.contracts.rows import Arm
from tasks.training import guards
from tasks.training.packing import Bundle
from tasks.training.sft import run_sft
from tasks.training.student import Student, add_new_adapter, load_student
from tasks.training.tokens import Tokens, tokenize_example
from tests.logic.rows_of import BENCHMARK, curated, questions
from tests.tiny_student import make_tiny_phi
from tests.training.jobs import examples, sft_step, silent, stock, weights

LORA = Lora(rank=4, alpha=8, dropout=0.0, targets="all-linear")


FOR_LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # the original project's list, given to Phi-3.5
NONE = guards.Allowed(())


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_phi(tmp_path_factory.mktemp("phi"))


def adapted(folder: Path, targets: str | tuple[str, ...]) -> torch.nn.Module:
    student = load_student(weights(folder), folder=folder, device="cpu", trainable=True)
    return add_new_adapter(student.model, LORA.model_copy(update={"targets": targets}))


@pytest.fixture
def nf4(tiny: Path) -> Student:
    student = load_student(weights(tiny, quantization="nf4", dtype="bfloat16"), folder=tiny, device="cpu", trainable=True)
    return Student(add_new_adapter(student.model, LORA), student.tokenizer)


def probe(student: Student) -> list[Bundle]:
    return [Bundle.of(tokenize_example(student.tokenizer, prompt="Is it heavy?", completion="Answer: Yes"))]


def test_a_name_list_made_for_llama_misses_the_fused_layers_of_phi(phi):
    found = r"misses gate_up_proj \(4 layers\), qkv_proj \(4 layers\); it covers only down_proj, o_proj\. .* name lora_coverage in recipe.guards.allow"
    with pytest.raises(GuardError, match=found):
        guards.lora_coverage(adapted(phi, FOR_LLAMA), allowed=NONE)


def test_all_linear_covers_the_fused_layers_of_phi(phi):
    assert guards.lora_coverage(adapted(phi, "all-linear"), allowed=NONE) == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


def test_an_adapter_with_holes_is_trained_where_the_recipe_allows_it_and_its_record_names_them(phi, tmp_path):
    step = sft_step(tmp_path, phi, examples(16))
    holes = step.recipe.model_copy(update={"lora": LORA.model_copy(update={"targets": FOR_LLAMA})})
    step = step.model_copy(update={"recipe": holes})
    with pytest.raises(GuardError, match="misses gate_up_proj"):
        run_sft(step, tmp_path, silent)
    summary = run_sft(step.model_copy(update={"allow": ("lora_coverage", "verdict_fits")}), tmp_path, silent)
    assert summary["allowed"] == {"lora_coverage": "The LoRA adapter misses gate_up_proj (4 layers), qkv_proj (4 layers); it covers only down_proj, o_proj"}
    assert summary["guards"]["lora_families"] == ["down_proj", "o_proj"]
    assert summary["history"][-1]["loss"] < summary["history"][0]["loss"]


def test_names_that_no_layer_has_are_refused(phi):
    with pytest.raises(StudentError, match=r"recipe.sft.lora.targets does not fit this student .* set it to all-linear"):
        adapted(phi, ("q_proj", "k_proj"))


def test_an_adapter_on_nothing_is_refused_whatever_is_allowed(tiny):
    student = load_student(weights(tiny), folder=tiny, device="cpu", trainable=True)
    with pytest.raises(GuardError, match="carries no LoRA adapter"):
        guards.lora_coverage(student.model, allowed=guards.Allowed(("lora_coverage",)))


def test_four_bit_layers_count_as_covered(nf4):
    assert len(guards.lora_coverage(nf4.model, allowed=NONE)) == 7


def test_a_full_precision_model_is_not_four_bit(phi):
    with pytest.raises(GuardError, match="no layer is 4-bit"):
        guards.four_bit(adapted(phi, "all-linear"))


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
    guards.verdicts_fit({"reasoning": 60}, ["reasoning", "direct"], max_new_tokens=60, allowed=NONE)
    with pytest.raises(GuardError, match="reasoning up to 60"):
        guards.verdicts_fit({"reasoning": 60}, ["reasoning", "direct"], max_new_tokens=35, allowed=NONE)
    allowed = guards.Allowed(("verdict_fits",))
    guards.verdicts_fit({"reasoning": 60}, ["reasoning", "direct"], max_new_tokens=35, allowed=allowed)
    assert "max_new_tokens = 35" in allowed.found["verdict_fits"]


def test_a_label_in_a_training_prompt_is_found_and_the_prompts_of_the_arms_have_none():
    row = curated(questions(1)[0])
    prompts = [BENCHMARK.prompt(arm, row) for arm in (Arm.DIRECT, Arm.REASONING, Arm.REWRITE, Arm.COUNTERFACTUAL)]
    guards.no_label_in_prompt(prompts, ["yes"] * len(prompts), allowed=NONE)
    given = BENCHMARK.given_prompt(row.question, "Reasoning: it is so.\nFinal answer: No")
    guards.no_label_in_prompt([given], [""], allowed=NONE)  # plain text has no verdict to give away
    with pytest.raises(GuardError, match="1 of 2 training prompts hold the verdict"):
        guards.no_label_in_prompt([prompts[0], given], ["yes", "no"], allowed=NONE)


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


@pytest.fixture
def neighbours(nf4: Student) -> list[Bundle]:
    said = {"Is it heavy?": "Answer: Yes", "Did he die before 1876?": "He did. Answer: No"}
    return [Bundle.of(tokenize_example(nf4.tokenizer, prompt=prompt, completion=completion)) for prompt, completion in said.items()]


def test_rows_that_keep_to_themselves_pass(nf4, neighbours):
    assert guards.packing_is_exact(nf4.model, neighbours) < 0.5


def test_rounding_that_moves_a_verdict_but_not_a_text_passes(nf4):
    """Products of another shape round differently: on a GPU in bf16 a completion of two tokens came out 0.6 nats off, and the student was refused."""
    said = {f"Did number {number} weigh more than {number + 40} other numbers of its kind?": " Yes" for number in range(6)}
    rows = [Bundle.of(tokenize_example(nf4.tokenizer, prompt=prompt, completion=completion)) for prompt, completion in said.items()]

    def rounded(module: Any, given: Any, found: torch.Tensor) -> torch.Tensor:
        chance = torch.Generator().manual_seed(found.shape[1])
        return found + 0.2 * found.std() * torch.randn(found.shape, generator=chance).to(found.dtype)

    nf4.model.get_base_model().model.norm.register_forward_hook(rounded)
    assert guards.packing_is_exact(nf4.model, rows) > 0.5


def test_a_neighbour_that_is_seen_however_little_is_noticed(nf4, neighbours):
    layer = nf4.model.get_base_model().model.layers[0]
    layer.register_forward_hook(lambda module, given, found: found + 0.02 * found.mean(dim=1, keepdim=True))
    with pytest.raises(GuardError, match=r"beside one row and .* beside another: this architecture cannot be packed"):
        guards.packing_is_exact(nf4.model, neighbours)


def test_a_head_that_does_more_than_the_packed_forward_knows_of_is_noticed(nf4, neighbours):
    def sharper(module, given, found):
        found.logits = found.logits * 3
        return found

    nf4.model.get_base_model().register_forward_hook(sharper)
    with pytest.raises(GuardError, match=r"in a packed batch and .* alone"):
        guards.packing_is_exact(nf4.model, neighbours)
