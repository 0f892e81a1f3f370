"""What people use instead: TRL, PEFT and bitsandbytes.

`seeds` is plain TRL as the projects that this one grew from set it: two rows at a time, sixteen times, gradient checkpointing, and
`prepare_model_for_kbit_training`. `best` is the best of TRL's public settings that was found: `BEST` says which, by reading.
"""

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model, prepare_model_for_kbit_training
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainerCallback
from transformers.utils import is_liger_kernel_available
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from tests.bench.engine.measure import Generated, Trained, now, timed
from tests.bench.engine.shapes import VARLEN, lora, random_student, register_varlen
from tests.bench.engine.work import LONGEST, Job, as_text


@dataclass(frozen=True)
class Plan:
    """Settings of TRL that matter for speed and memory."""

    micro: int  # rows or pairs that are on the device at once
    checkpointing: bool = True
    kbit: bool = False  # prepare_model_for_kbit_training: head and embeddings in fp32
    padding_free: bool = False  # rows end to end, with torch's variable-length attention
    compiled: bool = False  # torch.compile of each layer
    liger: bool = False
    precompute: bool = False  # the reference's log probabilities once, ahead

    def changed(self, changes: str) -> "Plan":
        """This plan with changes such as `micro=8,precompute=1`."""
        pairs = [change.split("=") for change in changes.split(",") if change]
        return replace(self, **{key: type(getattr(self, key))(int(value)) for key, value in pairs})

    def __str__(self) -> str:
        flags = ("kbit", "padding_free", "compiled", "liger", "precompute")
        return " ".join([f"micro-batch {self.micro}", "GC" if self.checkpointing else "no GC", *(flag for flag in flags if getattr(self, flag))])


SEEDS = Plan(micro=2, kbit=True)
BEST = {
    "sft_direct": Plan(micro=32, checkpointing=False, padding_free=True, compiled=True),
    "sft_cot": Plan(micro=32, checkpointing=False, padding_free=True, compiled=True),
    "sft_direct_8gb": Plan(micro=32, padding_free=True),
    "sft_cot_8gb": Plan(micro=32, padding_free=True, liger=True),
    "sft_2x2048_8gb": Plan(micro=2),
    "dpo": Plan(micro=32, checkpointing=False, liger=True, precompute=True),
    "dpo_8gb": Plan(micro=8, precompute=True),
}


def plan_of(job: Job, side: str, changes: str) -> Plan:
    """The plan of a side for a training reading; the changes are for `best` alone. Without liger-kernel, or on a CPU, its kernels are left out."""
    plan = SEEDS if side == "seeds" else BEST[job.reading].changed(changes)
    return replace(plan, micro=min(plan.micro, job.batch), liger=plan.liger and not job.cpu and is_liger_kernel_available())


def steps_of(job: Job, plan: Plan) -> tuple[int, int]:
    """Optimiser steps to warm up and to measure: few where one takes seconds, for a step of many small ones is steady."""
    if job.batch // plan.micro >= 8:
        return 1, 1 if job.quick else 2
    return 3 if plan.compiled else 2, 2 if job.quick else 5


def sft_seconds(job: Job, plan: Plan) -> Trained:
    """TRL's SFTTrainer on token ids, loss on the full row."""
    warm, steps = steps_of(job, plan)
    varlen = plan.padding_free and not job.cpu
    if varlen:
        register_varlen()
    model, tokenizer = _student(job, plan, attention=VARLEN if varlen else "sdpa")
    rows = Dataset.from_list([{"input_ids": row} for row in job.rows(warm + steps)])
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            max_length=None if plan.padding_free else LONGEST, padding_free=plan.padding_free, learning_rate=2e-4, **_settings(job, plan, folder)
        )
        trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=lora())
        return Trained(steps=_train(trainer, job, plan))


class _Preferring(DPOTrainer):
    """TRL's DPOTrainer that keeps the time of each batch of a reference pass made ahead."""

    reference: list[tuple[float, int]]  # seconds, pairs

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        if not self.precompute_ref_logps:
            return super().compute_ref_log_probs(model, inputs)
        started = now()
        found = super().compute_ref_log_probs(model, inputs)
        self.__dict__.setdefault("reference", []).append((now() - started, inputs["input_ids"].shape[0] // 2))
        return found


def dpo_seconds(job: Job, plan: Plan) -> Trained:
    """TRL's DPOTrainer. Without `precompute` each step holds a reference pass of its own, which is then in the steps' seconds."""
    warm, steps = steps_of(job, plan)
    model, tokenizer = _student(job, plan)
    parts = ("prompt", "chosen", "rejected")
    pairs = Dataset.from_list([{part: f"{' ' * (part != 'prompt')}{as_text(getattr(pair, part))}" for part in parts} for pair in job.pairs(warm + steps)])
    with tempfile.TemporaryDirectory() as folder:
        ahead = {"precompute_ref_log_probs": plan.precompute, "precompute_ref_batch_size": min(16, job.batch)}
        config = DPOConfig(beta=0.1, max_length=LONGEST, learning_rate=5e-6, **ahead, **_settings(job, plan, folder))
        trainer = _Preferring(model=model, args=config, train_dataset=pairs, processing_class=tokenizer, peft_config=lora())
        taken = _train(trainer, job, plan)
    return Trained(steps=taken, reference=_each(trainer.reference[1:]) if plan.precompute else 0.0)  # the first batch warms up


def _each(batches: Iterable[tuple[float, int]]) -> float:
    seconds, pairs = zip(*batches, strict=True)
    return sum(seconds) / sum(pairs)


def generate_seconds(job: Job, side: str) -> Generated:
    """`model.generate` for all prompts at once: `seeds` on NF4 with the adapter beside it, `best` on bf16 with the adapter merged (so no more than weights)."""
    model, _ = random_student(job.model, quant="nf4" if side == "seeds" else "bf16", cpu=job.cpu)
    if side == "seeds":
        model = get_peft_model(model, lora()).eval()
    prompts = torch.tensor(job.prompts(), device=model.device)

    def generate(count: int) -> None:
        length = {"max_new_tokens": count, "min_new_tokens": count}
        with torch.no_grad():
            made = model.generate(input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=False, pad_token_id=0, **length)
        assert made.shape[1] == prompts.shape[1] + count

    generate(3)
    totals = [timed(lambda: generate(job.new_tokens)) for _ in range(1 if side == "seeds" or job.quick else 2)]
    return Generated(total=min(totals), prefill=timed(lambda: generate(1)))


def _student(job: Job, plan: Plan, *, attention: str = "sdpa") -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    model, tokenizer = random_student(job.model, cpu=job.cpu, attention=attention)
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=plan.checkpointing) if plan.kbit else model, tokenizer


def _settings(job: Job, plan: Plan, folder: str) -> dict[str, Any]:
    """What SFT and DPO share; anything else is as TRL has it."""
    warm, steps = steps_of(job, plan)
    batches = {"per_device_train_batch_size": plan.micro, "gradient_accumulation_steps": job.batch // plan.micro, "max_steps": warm + steps}
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "output_dir": os.path.join(folder, "out")}
    device = {"use_cpu": True, "dataloader_pin_memory": False} if job.cpu else {}
    return {**batches, **quiet, **device, "bf16": True, "gradient_checkpointing": plan.checkpointing, "use_liger_kernel": plan.liger}


class Clock(TrainerCallback):
    """When the device began the first step and ended each; the host is not made to wait for it, which would be a part of what is measured."""

    def __init__(self) -> None:
        self.marks: list[Any] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if not self.marks:
            self._mark()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._mark()

    def _mark(self) -> None:
        if not torch.cuda.is_available():
            self.marks.append(time.perf_counter())
            return
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        self.marks.append(mark)

    def seconds(self) -> list[float]:
        """Of each step."""
        if not torch.cuda.is_available():
            return [end - start for start, end in pairwise(self.marks)]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in pairwise(self.marks)]


def _train(trainer: Trainer, job: Job, plan: Plan) -> list[float]:
    """Seconds of each step after the warm-up."""
    warm, steps = steps_of(job, plan)
    if plan.compiled:
        for layer in trainer.model.get_base_model().model.layers:
            layer.compile(dynamic=True, backend="eager" if job.cpu else "inductor")
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    taken = clock.seconds()
    assert len(taken) == warm + steps
    return taken[warm:]
