"""Supervised fine-tuning against TRL's own, and against itself when interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl.trainer.sft_trainer import SFTTrainer

from tasks.contracts.failures import GuardError, StudentError
from tasks.training import sft
from tasks.training.engine import prepare
from tasks.training.order import WindowOrder
from tasks.training.packing import split
from tasks.training.sft import SftRow, WeightedSftTrainer, run_sft
from tasks.training.student import Student, add_new_adapter, load_student
from tests.training.jobs import MACHINE, examples, sft_step, silent, stock, weights


def test_trl_is_the_version_whose_public_surface_these_trainers_override():
    # A new TRL may rename compute_loss, scale losses otherwise or cast adapters elsewhere: read its trainers, run the oracle tests, then move this.
    assert version("trl").split(".")[:2] == ["1", "16"]


def fresh(model: Path, step) -> Student:
    torch.manual_seed(step.seed)
    student = load_student(step.weights, folder=model, device="cpu", trainable=True)
    return Student(add_new_adapter(student.model, step.recipe.lora), student.tokenizer)


def losses(trainer) -> list[float]:
    return [log["raw_loss"] for log in trainer.state.log_history if "raw_loss" in log]


def train(step, student: Student, rows: list[SftRow], work: Path, *, steps: int) -> list[float]:
    order = WindowOrder([row.bundle.size for row in rows], window=step.recipe.effective_batch, seed=step.seed)
    engine, fit = prepare(student, step.machine, steps=steps, order=order, bundles=[row.bundle for row in rows], dropout=False)
    args = sft._arguments(step, work, steps)
    trainer = WeightedSftTrainer(engine=engine, student=student, rows=rows, order=order, fit=fit, args=args, callbacks=[])
    trainer.train()
    return losses(trainer)


class StockLosses(SFTTrainer):
    """TRL's trainer, only listened to: the unrounded loss of each optimiser step."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.parts = [*getattr(self, "parts", []), float(loss.detach())]
        return loss


@pytest.fixture
def step(tiny, tmp_path):
    built = sft_step(tmp_path, tiny, examples(160))
    return built.model_copy(update={"recipe": built.recipe.model_copy(update={"lora": built.recipe.lora.model_copy(update={"dropout": 0.0})})})


def rows_of(student: Student, weight: float = 1.0) -> list[SftRow]:
    return [sft._row(student, replace(row, weight=weight), verdict_weight=1.0, key=key) for key, row in enumerate(examples(160))]


def test_with_equal_weights_every_loss_is_that_of_stock_trl(tiny, tmp_path, step):
    student = fresh(tiny, step)
    rows = rows_of(student)
    ours = train(step, student, rows, tmp_path / "ours", steps=20)
    order = [index for window in WindowOrder([1] * len(rows), window=8, seed=step.seed) for index in window]
    plain = [
        {"input_ids": row.tokens.ids, "labels": [-100] * row.tokens.prompt + list(row.tokens.ids[row.tokens.prompt :])} for row in (rows[i] for i in order)
    ]
    args = sft._arguments(step, tmp_path / "stock", 20)
    args.train_sampling_strategy, args.per_device_train_batch_size, args.gradient_accumulation_steps = "sequential", 4, 2
    twin = fresh(tiny, step)
    listened = StockLosses(model=stock(twin.model), args=args, train_dataset=Dataset.from_list(plain), processing_class=twin.tokenizer)
    listened.train()
    theirs = [sum(listened.parts[start : start + 2]) for start in range(0, 40, 2)]  # two micro-batches a step
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert ours[0] - ours[-1] > 0.1  # it learns, so equality is not that of two standing still


def test_a_step_of_32_rows_in_16_parts_or_more_is_the_same_as_in_one(tiny, tmp_path, step):
    step = step.model_copy(update={"recipe": step.recipe.model_copy(update={"effective_batch": 32})})
    curves = []
    for budget in (70, 50_000):
        cut = step.model_copy(update={"machine": MACHINE.model_copy(update={"batch_tokens": budget})})
        student = fresh(tiny, cut)
        rows = rows_of(student)
        sizes = [row.bundle.size for row in rows[:32]]
        assert (len(split(sizes, budget=budget)) >= 16) == (budget == 70)
        curves.append(train(cut, student, rows, tmp_path / str(budget), steps=4))
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_recomputing_activations_changes_nothing(tiny, tmp_path, step):
    student = fresh(tiny, step)
    plain = train(step, student, rows_of(student), tmp_path / "plain", steps=3)
    saving = step.model_copy(update={"machine": MACHINE.model_copy(update={"recompute": "always"})})
    student = fresh(tiny, step)
    assert train(saving, student, rows_of(student), tmp_path / "saving", steps=3) == pytest.approx(plain, abs=1e-5)


def test_weights_are_relative_and_a_row_of_weight_zero_teaches_nothing(tiny, tmp_path, step):
    student = fresh(tiny, step)
    rows = rows_of(student)
    base = train(step, student, rows, tmp_path / "a", steps=2)
    assert train(step, fresh(tiny, step), [replace(row, weight=3.0) for row in rows], tmp_path / "b", steps=2) == pytest.approx(base, abs=1e-5)
    silenced = [replace(row, weight=float(index % 2)) for index, row in enumerate(rows)]
    assert train(step, fresh(tiny, step), silenced, tmp_path / "c", steps=2)[0] != pytest.approx(base[0], abs=1e-3)


def test_reasoning_that_is_only_read_leaves_the_loss_of_the_verdict(tiny, tmp_path, step):
    student = fresh(tiny, step)
    rows = [replace(row, reasoning_factor=0.0) for row in rows_of(student)[:8]]
    said = []
    for row in rows:
        logits = student.model(input_ids=torch.tensor([row.tokens.ids])).logits[0, :-1].double().log_softmax(dim=1)
        said += logits[range(len(row.tokens.ids) - 1), list(row.tokens.ids[1:])][-2:].tolist()  # the verdict and the end token
    assert train(step, fresh(tiny, step), rows, tmp_path / "read", steps=1) == pytest.approx([-sum(said) / len(said)], abs=1e-4)


def test_a_step_leaves_adapter_and_history_and_nothing_else(tiny, tmp_path):
    summary = run_sft(sft_step(tmp_path, tiny, examples(20)), tmp_path, silent)
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == ["adapter_config.json", "adapter_model.safetensors", "history.json"]
    assert not list(tmp_path.glob(".adapter*"))
    assert summary["steps"] == 6
    assert summary["guards"]["lora_families"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    history = json.loads((tmp_path / "adapter" / "history.json").read_text())
    assert [entry["step"] for entry in history["history"]] == [1, 2, 3, 4, 5, 6]
    assert set(history["completion_tokens"]) == {"direct", "reasoning"}
    assert str(tiny) not in (tmp_path / "adapter" / "adapter_config.json").read_text()


def test_the_same_job_gives_the_same_bytes(tiny, tmp_path):
    step = sft_step(tmp_path, tiny, examples(16))
    run_sft(step, tmp_path, silent)
    run_sft(step.model_copy(update={"out": "again"}), tmp_path, silent)
    for name in ("adapter_model.safetensors", "adapter_config.json", "history.json"):
        assert (tmp_path / "adapter" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


class Stop(Exception):
    """The power goes."""


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise Stop


def interrupt(monkeypatch: pytest.MonkeyPatch, module, *, at: int) -> None:
    """Make the module's next trainer stop in the middle of an epoch."""
    monkeypatch.setattr(module, "TellProgress", lambda report: StopAt(at))


def test_an_interrupted_run_resumes_from_its_newest_complete_checkpoint_and_ends_the_same(tiny, tmp_path, monkeypatch):
    step = sft_step(tmp_path, tiny, examples(20))  # three steps an epoch; dropout on, so the random state must come back too
    step = step.model_copy(update={"recipe": step.recipe.model_copy(update={"epochs": 4})})
    straight = run_sft(step, tmp_path, silent)
    broken = step.model_copy(update={"out": "broken"})
    with monkeypatch.context() as patch:
        interrupt(patch, sft, at=8)
        with pytest.raises(Stop):
            run_sft(broken, tmp_path, silent)
    (tmp_path / ".broken.work" / "checkpoint-6" / "complete.json").unlink()  # torn: killed while it was written
    resumed = run_sft(broken, tmp_path, silent)
    assert resumed["resumed_from_step"] == 3
    assert resumed["final_loss"] == pytest.approx(straight["final_loss"], abs=1e-5)
    assert [entry["loss"] for entry in resumed["history"]] == pytest.approx([entry["loss"] for entry in straight["history"]], abs=1e-5)


def test_a_checkpoint_whose_adapter_changed_is_not_trusted(tiny, tmp_path, monkeypatch):
    step = sft_step(tmp_path, tiny, examples(20))
    with monkeypatch.context() as patch:
        interrupt(patch, sft, at=4)
        with pytest.raises(Stop):
            run_sft(step, tmp_path, silent)
    adapter = tmp_path / ".adapter.work" / "checkpoint-3" / "adapter_model.safetensors"
    blob = bytearray(adapter.read_bytes())
    blob[-1] ^= 1
    adapter.write_bytes(blob)
    assert run_sft(step, tmp_path, silent)["resumed_from_step"] == 0


def test_training_can_be_as_long_as_another_run_in_steps_or_tokens(tiny, tmp_path):
    assert run_sft(sft_step(tmp_path, tiny, examples(16), steps=3), tmp_path, silent)["steps"] == 3
    by_tokens = run_sft(sft_step(tmp_path, tiny, examples(16), tokens=900), tmp_path, silent)
    assert by_tokens["tokens"] >= 900


def test_four_bit_training_keeps_adapters_in_full_precision_and_continues_a_given_one_exactly(tiny, tmp_path):
    nf4 = {"quantization": "nf4", "dtype": "bfloat16"}
    run_sft(sft_step(tmp_path, tiny, examples(16), weights=weights(tiny, **nf4)), tmp_path, silent)
    first = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in first.values()} == {torch.float32}
    assert any((tensor != tensor.bfloat16().float()).any() for tensor in first.values())
    step = sft_step(tmp_path, tiny, examples(16), weights=weights(tiny, adapter="adapter", **nf4), out="more", steps=1)
    still = step.recipe.model_copy(update={"warmup": 1.0})  # the only step has learning rate 0, so nothing may move
    run_sft(step.model_copy(update={"recipe": still}), tmp_path, silent)
    second = load_file(tmp_path / "more" / "adapter_model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_faults_are_found_before_training(tiny, tmp_path):
    with pytest.raises(GuardError, match="no examples"):
        run_sft(sft_step(tmp_path, tiny, []), tmp_path, silent)
    short = sft_step(tmp_path, tiny, examples(8))
    with pytest.raises(GuardError, match=r"recipe.sft.max_length = 20 would cut"):
        run_sft(short.model_copy(update={"recipe": short.recipe.model_copy(update={"max_length": 20})}), tmp_path, silent)
    given = [replace(row, prompt=f"{row.prompt}\nFinal answer: Yes\nReply.") for row in examples(8)]
    with pytest.raises(GuardError, match=r"8 of 8 training prompts hold the verdict .* name label_in_prompt in recipe.guards.allow"):
        run_sft(sft_step(tmp_path, tiny, given), tmp_path, silent)
    (tmp_path / "strange").mkdir()
    with pytest.raises(StudentError, match="cannot be put on this student"):
        run_sft(short.model_copy(update={"weights": weights(tiny, adapter="strange")}), tmp_path, silent)
    assert not list(tmp_path.glob(".adapter*"))


def test_a_label_in_the_prompt_is_trained_on_where_the_recipe_allows_it(tiny, tmp_path):
    given = [replace(row, prompt=f"{row.prompt}\nFinal answer: Yes\nReply.") for row in examples(8)]
    assert run_sft(sft_step(tmp_path, tiny, given, allow=("label_in_prompt",)), tmp_path, silent)["allowed"].keys() == {"label_in_prompt"}


def test_a_run_killed_after_its_last_checkpoint_reports_no_step_too_many(tiny, tmp_path, monkeypatch):
    step = sft_step(tmp_path, tiny, examples(20), steps=7)  # three steps an epoch: the run ends inside one
    straight = run_sft(step, tmp_path, silent)
    broken = step.model_copy(update={"out": "broken"})
    with monkeypatch.context() as patch:
        patch.setattr(sft, "save_trained", lambda *_, **__: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            run_sft(broken, tmp_path, silent)
    told: list[int] = []
    resumed = run_sft(broken, tmp_path, lambda done, total, note: told.append(done))
    assert resumed["resumed_from_step"] == 7
    assert resumed["history"] == straight["history"]
    assert all(done <= 7 for done in told)
