"""Reference pass and preference training against TRL's own, and against itself when interrupted."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl.trainer.dpo_trainer import DPOTrainer

from tasks.contracts.artifacts import read_rows, write_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.recipes import Align, Phase
from tasks.contracts.rows import Exam, Pair
from tasks.training import align
from tasks.training.align import run_align
from tasks.training.engine import prepare
from tasks.training.generation import answer
from tasks.training.order import WindowOrder
from tasks.training.preference_trainer import PreferenceTrainer
from tasks.training.reference import run_reference
from tasks.training.selection import Candidate
from tasks.training.sft import run_sft
from tasks.training.student import load_student
from tasks.training.windows import LogWhenDue
from tests.training.jobs import PLAIN, align_recipe, align_step, examples, pairs, reference_step, requests, sft_step, silent, stock, weights

FULL = (
    PLAIN.model_copy(update={"beta": 0.05}),
    Phase(epochs=2, beta=0.1, cal="batch_mean", dr="none", drop_quantile=0.0),
    Phase(epochs=1, beta=0.1, cal="batch_mean", dr="paper", drop_quantile=0.25),
)
CENTRED_ONCE = Phase(epochs=1, beta=0.1, cal="batch_mean", dr="none", drop_quantile=0.2)


@pytest.fixture(scope="module")
def start(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained adapter and pairs that carry its reference log-probabilities."""
    folder = tmp_path_factory.mktemp("start")
    run_sft(sft_step(folder, tiny, examples(16)), folder, silent)
    run_reference(reference_step(folder, tiny, pairs(20)), folder, silent)
    return folder


@pytest.fixture
def folder(start: Path, tmp_path: Path) -> Path:
    for name in ("adapter", "referenced.parquet"):
        (tmp_path / name).symlink_to(start / name)
    return tmp_path


def exams(folder: Path, tiny: Path, count: int) -> list[Exam]:
    """Yes/no questions that the start answers rightly, every one."""
    student = load_student(weights(tiny, adapter="adapter"), folder=folder, device="cpu", trainable=False)
    asked = [replace(row, prefix="Final answer:", yes_choices=(" Yes",), no_choices=(" No",)) for row in requests(count)]
    replies = answer(student, asked, max_new_tokens=1, temperature=0.0, seed=0, batch_size=4, report=silent)
    return [Exam(**asdict(row), answer="yes" if reply.margin > 0 else "no") for row, reply in zip(asked, replies, strict=True)]


def trainer_for(tiny: Path, folder: Path, recipe: Align) -> PreferenceTrainer:
    step = align_step(folder, tiny, [], recipe)
    student = load_student(step.weights, folder=folder, device="cpu", trainable=True)
    rows = align._rows(student, read_rows(folder / step.pairs, Pair))
    order = WindowOrder([row.bundle.size for row in rows], window=recipe.effective_batch, seed=step.seed)
    steps = order.steps_for(epochs=sum(phase.epochs for phase in recipe.phases), steps=None, tokens=None)
    engine, fit = prepare(student, step.machine, steps=steps, order=order, bundles=[row.bundle for row in rows], dropout=False)
    args = align._arguments(step, folder / "work", steps)
    return PreferenceTrainer(engine=engine, student=student, rows=rows, order=order, fit=fit, recipe=recipe, args=args, callbacks=[])


def logged(trainer: PreferenceTrainer, name: str) -> list[float]:
    return [log[name] for log in trainer.state.log_history if name in log]


class StockLosses(DPOTrainer):
    """TRL's trainer, only listened to."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.parts = [*getattr(self, "parts", []), float(loss.detach())]
        return loss


def test_the_reference_pass_fills_every_pair_with_what_the_adapter_thinks(tiny, start):
    filled = read_rows(start / "referenced.parquet", Pair)
    assert [replace(pair, reference_chosen=0.0, reference_rejected=0.0, reference="") for pair in filled] == pairs(20)
    assert {pair.reference for pair in filled} == {"adapter-digest"}
    student = load_student(weights(tiny, adapter="adapter"), folder=start, device="cpu", trainable=False)
    row = align._rows(student, filled[:1])[0].rejected
    logits = student.model(input_ids=torch.tensor([row.ids])).logits[0, :-1].double().log_softmax(dim=1)
    want = logits[range(len(row.ids) - 1), list(row.ids[1:])][row.prompt - 1 :].sum().item()
    assert filled[0].reference_rejected == pytest.approx(want, abs=1e-3)


def test_with_all_variants_off_every_loss_is_that_of_stock_trl(tiny, folder):
    recipe = align_recipe(PLAIN.model_copy(update={"epochs": 4}), effective_batch=4, learning_rate=5e-3)
    ours = trainer_for(tiny, folder, recipe)
    ours.train()
    order = [index for epoch in range(4) for window in ours.order.windows(epoch) for index in window]
    table = read_rows(folder / "referenced.parquet", Pair)
    step = align_step(folder, tiny, [], recipe)
    student = load_student(step.weights, folder=folder, device="cpu", trainable=True)
    args = align._arguments(step, folder / "stock", 20)
    args.train_sampling_strategy = "sequential"
    args.beta = 0.1
    end = student.tokenizer.convert_ids_to_tokens([ours.rows[0].chosen.ids[-1]])[0]
    student.tokenizer.eos_token = end
    rows = [
        {
            "prompt": student.tokenizer.decode(ours.rows[index].chosen.ids[: ours.rows[index].chosen.prompt]),
            "chosen": table[index].chosen,
            "rejected": table[index].rejected,
        }
        for index in order
    ]
    listened = StockLosses(model=stock(student.model), args=args, train_dataset=Dataset.from_list(rows), processing_class=student.tokenizer)
    listened.train()
    assert logged(ours, "raw_loss") == pytest.approx(listened.parts, abs=1e-4)
    assert logged(ours, "raw_loss")[-1] < math.log(2) - 0.02  # it learns, so equality is not that of two standing still


def test_the_first_step_costs_the_log_of_two_and_moves_nothing_but_the_adapter(tiny, folder):
    trainer = trainer_for(tiny, folder, align_recipe())
    assert list(trainer.model.peft_config) == ["default"]
    trainer.train()
    assert logged(trainer, "raw_loss")[0] == pytest.approx(math.log(2), abs=1e-4)
    assert logged(trainer, "gap")[0] == pytest.approx(0.0, abs=1e-3)
    assert logged(trainer, "a")[-1] - logged(trainer, "b")[-1] == pytest.approx(logged(trainer, "gap")[-1], abs=1e-5)


@pytest.mark.parametrize("dr", ["none", "paper"])
def test_how_a_step_is_cut_into_micro_batches_changes_nothing_once_the_averages_run(tiny, folder, dr):
    phase = Phase(epochs=2, beta=0.1, cal="batch_mean", dr=dr, drop_quantile=0.2)
    recipe = align_recipe(PLAIN, phase, nll_weight=0.2, learning_rate=3e-3)
    curves = []
    for budget in (90, 5000):
        trainer = trainer_for(tiny, folder, recipe)
        trainer.budget = budget
        trainer.train()
        curves.append(logged(trainer, "raw_loss"))
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def test_phases_change_at_epoch_boundaries_and_centring_sets_in_gradually_between_its_bounds(tiny, folder):
    trainer = trainer_for(tiny, folder, align_recipe(*FULL))
    seen = []
    for step in range(12):
        trainer.state.global_step = step
        seen.append(trainer.epochs[trainer.epoch].beta)
    assert seen == [0.05] * 3 + [0.1] * 9
    trainer.mean_gap.add(4.0)
    trainer.state.global_step = 3
    assert trainer._centre(FULL[1]) == 0.0  # the first step of the first centred epoch
    trainer.state.global_step = 4
    assert trainer._centre(FULL[1]) == pytest.approx(4.0)
    assert trainer._centre(FULL[0]) == 0.0
    trainer.mean_gap.add(1e6)
    assert trainer._centre(FULL[1]) == pytest.approx(10.0)  # 1 / beta
    trainer.mean_gap.add(-1e9)
    assert trainer._centre(FULL[1]) == 0.0


def test_the_moving_average_is_that_of_the_steps_mean_gaps(tiny, folder):
    trainer = trainer_for(tiny, folder, align_recipe(learning_rate=5e-3))
    trainer.train()
    first, second, third = logged(trainer, "gap")
    want = (0.81 * first + 0.9 * second + third) * 0.1 / (1 - 0.9**3)
    assert trainer.mean_gap.value == pytest.approx(want, abs=1e-6)


def test_the_drop_mask_is_made_of_doubt_and_first_sight_margins_and_fixed_for_its_epoch(tiny, folder):
    trainer = trainer_for(tiny, folder, align_recipe(*FULL))
    trainer.state.global_step = 9
    trainer.margins = [[-1.0] if index in (0, 1) else [1.0] for index in range(20)]
    mask = [trainer.row_weight(row) for row in trainer.rows]
    assert sum(mask) == 15
    trainer.margins = [[1.0]] * 20
    assert [trainer.row_weight(row) for row in trainer.rows] == mask
    strata = [row.stratum for row in trainer.rows]
    dropped = [strata[index] for index in range(20) if not mask[index]]
    assert {dropped.count("yes draft_right"), dropped.count("yes draft_wrong")} == {2, 3}


def test_a_dropped_pair_gives_no_gradient(tiny, folder):
    trainer = trainer_for(tiny, folder, align_recipe(nll_weight=0.5))
    trainer.masks = {0: [0.0] * 20}
    trainer.compute_loss(trainer.model, trainer.collate(trainer.rows[:2])).backward()
    assert all(float(parameter.grad.abs().sum()) == 0.0 for parameter in trainer.model.parameters() if parameter.grad is not None)


def test_a_whole_step_keeps_the_start_when_no_epoch_answers_better(tiny, folder):
    asked = exams(folder, tiny, 4)
    summary = run_align(align_step(folder, tiny, asked, align_recipe(*FULL, nll_weight=0.2)), folder, silent)
    assert [each["epoch"] for each in summary["selection"]] == [0, 1, 2, 3, 4]
    assert summary["selection"][0] == {"epoch": 0, "correct": 4, "yes": sum(exam.answer == "yes" for exam in asked), "unparsed": 0, "n": 4}
    assert summary["kept_epoch"] == 0
    kept, first = (load_file(folder / name / "adapter_model.safetensors") for name in ("aligned", "adapter"))
    assert all(torch.equal(kept[name], first[name]) for name in first)
    assert not list(folder.glob(".aligned*"))


def test_without_exams_the_last_epoch_is_kept_and_differs_from_the_start(tiny, folder):
    summary = run_align(align_step(folder, tiny, [], align_recipe(*FULL)), folder, silent)
    assert summary["kept_epoch"] == 4
    kept, first = (load_file(folder / name / "adapter_model.safetensors") for name in ("aligned", "adapter"))
    assert any(not torch.equal(kept[name], first[name]) for name in first)
    assert summary["guards"]["start"]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    student = load_student(weights(tiny, adapter="aligned"), folder=folder, device="cpu", trainable=False)
    assert len(answer(student, requests(2), max_new_tokens=60, temperature=0.0, seed=0, batch_size=2, report=silent)) == 2


class Stop(Exception):
    """The power goes."""


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise Stop


def test_an_interrupted_run_resumes_averages_margins_and_selection_and_ends_the_same(tiny, folder, monkeypatch):
    recipe = align_recipe(*FULL, nll_weight=0.2, learning_rate=5e-3)
    straight = run_align(align_step(folder, tiny, exams(folder, tiny, 2), recipe), folder, silent)
    broken = align_step(folder, tiny, exams(folder, tiny, 2), recipe, out="broken")
    with monkeypatch.context() as patch:
        patch.setattr(align, "TellProgress", lambda report: StopAt(8))
        with pytest.raises(Stop):
            run_align(broken, folder, silent)
    resumed = run_align(broken, folder, silent)
    assert resumed["resumed_from_step"] == 6
    assert [entry["loss"] for entry in resumed["history"]] == pytest.approx([entry["loss"] for entry in straight["history"]], abs=1e-5)
    assert resumed["selection"] == straight["selection"]


def test_faults_are_found_before_training(tiny, folder):
    step = align_step(folder, tiny, [], align_recipe())
    with pytest.raises(GuardError, match="20 of 20 pairs carry reference log-probabilities of adapter-dige"):
        run_align(step.model_copy(update={"reference": "another"}), folder, silent)
    with pytest.raises(GuardError, match="would cut the end off"):
        run_align(step.model_copy(update={"recipe": align_recipe(max_length=25)}), folder, silent)
    rows = read_rows(folder / "referenced.parquet", Pair)
    write_rows(folder / "moved.parquet", [replace(row, reference_chosen=row.reference_chosen - 5.0) for row in rows], Pair)
    with pytest.raises(GuardError, match="Before the first step the preference loss"):
        run_align(step.model_copy(update={"pairs": "moved.parquet"}), folder, silent)
    write_rows(folder / "none.parquet", [], Pair)
    with pytest.raises(GuardError, match="holds no pairs"):
        run_align(step.model_copy(update={"pairs": "none.parquet"}), folder, silent)
    asked = align_step(
        folder, tiny, [Exam(**asdict(replace(row, arm="reasoning")), answer="yes") for row in requests(2)], align_recipe(), exam_max_new_tokens=3
    )
    with pytest.raises(GuardError, match="cuts answers before their verdict"):
        run_align(asked, folder, silent)


def test_an_allowed_fault_is_told_in_the_summary(tiny, folder):
    asked = [Exam(**asdict(replace(row, arm="reasoning")), answer="yes") for row in requests(2)]
    summary = run_align(align_step(folder, tiny, asked, align_recipe(), exam_max_new_tokens=3, allow=("verdict_fits",)), folder, silent)
    assert summary["allowed"].keys() == {"verdict_fits"}


def test_a_window_that_starts_again_for_memory_counts_its_pairs_once(tiny, folder, monkeypatch):
    calm = trainer_for(tiny, folder, align_recipe(PLAIN, CENTRED_ONCE, learning_rate=5e-3))
    calm.train()
    tight = trainer_for(tiny, folder, align_recipe(PLAIN, CENTRED_ONCE, learning_rate=5e-3))
    compute, calls = tight.compute_loss, []

    def short(model, inputs, **rest):
        calls.append(len(inputs.packed.ids))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")  # after a first micro-batch of the window has been counted
        return compute(model, inputs, **rest)

    monkeypatch.setattr(tight, "compute_loss", short)
    tight.train()
    assert tight.halvings == 1
    assert [len(seen) for seen in tight.margins] == [2] * 20
    assert logged(tight, "raw_loss") == pytest.approx(logged(calm, "raw_loss"), abs=1e-4)


@pytest.mark.parametrize("phases", [(PLAIN,), FULL])
def test_figures_that_are_read_off_the_device_now_and_then_are_those_of_every_step(tiny, folder, phases):
    always, seldom = (trainer_for(tiny, folder, align_recipe(*phases, learning_rate=5e-3)) for _ in range(2))
    always.train()
    seldom.pop_callback(LogWhenDue)
    late = SimpleNamespace(engine=SimpleNamespace(fixed=True), order=seldom.order)  # what a GPU's engine says; no time passes, so epochs' ends alone are due
    callback = LogWhenDue(late)
    callback.looked = math.inf
    seldom.add_callback(callback)
    reads = []
    read = seldom.read
    seldom.read = lambda: (reads.append(len(seldom._unread)), read())
    seldom.train()
    assert max(reads) == (len(seldom.order) if phases == (PLAIN,) else 3)
    for name in ("step", "raw_loss", "learning_rate", "gap", "mean_gap", "reward_accuracy"):
        assert logged(seldom, name) == logged(always, name)
    assert seldom.margins == always.margins


def test_a_run_resumed_inside_an_epoch_draws_the_mask_that_the_epoch_began_with(tiny, folder):
    trainer = trainer_for(tiny, folder, align_recipe(*FULL))
    trainer.state.global_step = 9
    trainer.margins = [[-1.0, 0.5, 0.5] if index in (0, 1) else [1.0, 1.0, 1.0] for index in range(20)]
    begun = [trainer.row_weight(row) for row in trainer.rows]
    trainer.masks = {}
    trainer.margins = [[*seen, 99.0 - index] for index, seen in enumerate(trainer.margins)]  # this epoch's own, as a checkpoint inside it has them
    assert [trainer.row_weight(row) for row in trainer.rows] == begun


def test_a_window_whose_pairs_are_all_left_out_raises_no_alarm_and_no_error(tiny, folder):
    trainer = trainer_for(tiny, folder, align_recipe(PLAIN))
    curve = [{"chosen_shift": 0.1, "reward_accuracy": 1.0}, {}, {"chosen_shift": 0.1, "reward_accuracy": 1.0}]
    trainer.margins = [[0.0] for _ in trainer.rows]
    candidates = [Candidate(epoch, 0, 0, 0, 0) for epoch in range(2)]
    assert isinstance(align._alarms(trainer, curve, candidates, examined=False), list)
