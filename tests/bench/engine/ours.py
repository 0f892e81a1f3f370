"""Our engine: the side that the bars are about, through the trainers that a run uses."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from trl import DPOConfig, SFTConfig

from tasks.contracts.jobs import Machine
from tasks.contracts.recipes import Align, Phase
from tasks.training import engine as engines
from tasks.training import processes
from tasks.training.adapted import lean
from tasks.training.attention import NAME
from tasks.training.completions import score_completions
from tasks.training.decoding import Decoder, decoding_bytes
from tasks.training.memory import GIB
from tasks.training.merging import decoding_weights
from tasks.training.order import WindowOrder
from tasks.training.packing import Bundle
from tasks.training.preference_trainer import PairRow, PreferenceTrainer
from tasks.training.sft import SftRow, WeightedSftTrainer, trainer_settings
from tasks.training.student import Student
from tasks.training.tokens import Tokens
from tests.bench.engine.measure import CAP_GIB, Generated, Trained, timed
from tests.bench.engine.peers import Clock
from tests.bench.engine.shapes import lora, random_student
from tests.bench.engine.work import LONGEST, Job

COMPILES = 10**9  # steps that the engine is told of, so that it compiles: the figure is that of a long run
SCORED, SCORED_8GB = 8192, 2048  # tokens of a reference batch, as the product reads it


def steps_of(job: Job) -> tuple[int, int]:
    """Steps to warm up, in which every batch size is compiled or recorded, and to measure."""
    if not job.law and not job.reading.startswith("dpo"):
        return 1, 2  # all rows have one length: nothing is left to record
    if job.settings:
        return (1, 2) if job.cpu else (4, 2)  # for the peak, which comes early
    return (2, 2) if job.cpu else (8, 4) if job.quick else (24, 12)


def sft_seconds(job: Job) -> Trained:
    """Our SFT trainer, loss on the full row."""
    student = _student(job)
    warm, steps = steps_of(job)
    rows = [
        SftRow(Tokens(ids=tuple(ids), prompt=1), weight=1.0, verdict_weight=1.0, reasoning_factor=1.0, key=key)
        for key, ids in enumerate(job.rows(warm + steps))
    ]
    order = WindowOrder([row.bundle.size for row in rows], window=job.batch, seed=0)
    engine, fit = _prepared(job, student, order, [row.bundle for row in rows])
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, learning_rate=2e-4, **_settings(job, folder))
        trainer = WeightedSftTrainer(engine=engine, student=student, rows=rows, order=order, fit=fit, args=config, callbacks=[])
        return _train(trainer, job, fit)


def dpo_seconds(job: Job) -> Trained:
    """Our preference trainer; the reference is read once, ahead."""
    student = _student(job)
    warm, steps = steps_of(job)
    rows = [
        PairRow(
            index=index,
            chosen=Tokens(ids=(*pair.prompt, *pair.chosen), prompt=len(pair.prompt)),
            rejected=Tokens(ids=(*pair.prompt, *pair.rejected), prompt=len(pair.prompt)),
            reference_chosen=0.0,
            reference_rejected=0.0,
            disagreement=0.0,
            stratum="",
        )
        for index, pair in enumerate(job.pairs(warm + steps))
    ]
    order = WindowOrder([row.bundle.size for row in rows], window=job.batch, seed=0)
    phase = Phase(epochs=1, beta=0.1, cal="none", dr="none", drop_quantile=0.0)
    recipe = Align(
        phases=(phase,),
        learning_rate=5e-6,
        warmup=0.0,
        effective_batch=job.batch,
        max_length=2048,
        cal_weight=0.5,
        dr_beta=1.0,
        nll_weight=0.0,
        select_questions=0,
    )
    engine, fit = _prepared(job, student, order, [row.bundle for row in rows])
    read = [row.bundle for row in rows[: 4 * job.batch]]

    def reference() -> None:
        for _ in score_completions(student.model, read, budget=SCORED_8GB if job.capped else SCORED):
            pass

    reference()
    seconds = timed(reference) / len(read)
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(max_length=None, disable_dropout=True, learning_rate=5e-6, **_settings(job, folder))
        trainer = PreferenceTrainer(engine=engine, student=student, rows=rows, order=order, fit=fit, recipe=recipe, args=config, callbacks=[])
        return replace(_train(trainer, job, fit), reference=seconds)


def generate_seconds(job: Job) -> Generated:
    """Our decoder: expanded weights with the adapter merged, a static cache, recorded steps."""
    student = _student(job)
    prompts = job.prompts()
    longest = len(prompts[0]) + job.new_tokens
    student.model.eval()
    with decoding_weights(student.model, beside=decoding_bytes(student.model, rows=len(prompts), longest=longest)) as model:
        decoder = Decoder(model, rows=len(prompts), longest=longest, stops=[], pad=0, compiled=not job.cpu)
        decoder.run(prompts, max_new_tokens=job.new_tokens)
        total = min(timed(lambda: decoder.run(prompts, max_new_tokens=job.new_tokens)) for _ in range(3))
        return Generated(total=total, prefill=min(timed(lambda: decoder.run(prompts, max_new_tokens=1)) for _ in range(2)))


def _student(job: Job) -> Student:
    processes.connect(cpu=job.cpu)
    if not job.cpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    model, tokenizer = random_student(job.model, cpu=job.cpu, attention=NAME)
    adapted = get_peft_model(model, lora())
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    lean(adapted)
    return Student(adapted, tokenizer)


def _machine(job: Job) -> Machine:
    settings: dict[str, Any] = {"recompute": "auto", "compile": "auto", **dict(job.settings)}
    return Machine(
        device="cpu" if job.cpu else "cuda",
        processes=job.processes,
        batch_tokens=None if job.law or job.reading.startswith("dpo") else 2 * LONGEST,  # two of the longest rows at once
        gpu_memory_gib=CAP_GIB if job.capped else None,
        generate_batch=job.prompts_at_once,
        report_to=(),
        **settings,
    )


def _prepared(job: Job, student: Student, order: WindowOrder, bundles: list[Bundle]) -> Any:
    return engines.prepare(student, _machine(job), steps=COMPILES, order=order, bundles=bundles, dropout=not job.reading.startswith("dpo"))


def _settings(job: Job, folder: str) -> dict[str, Any]:
    settings = trainer_settings(_machine(job), name=job.reading, seed=0, window=job.batch)
    return {**settings, "save_strategy": "no", "max_steps": sum(steps_of(job)), "output_dir": str(Path(folder) / "out")}


def _train(trainer: Any, job: Job, fit: Any) -> Trained:
    """Seconds of each step after the warm-up, and how it was computed."""
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    taken = clock.seconds()
    how = trainer.how(fit)
    if torch.cuda.is_available():
        print(
            f"how: {how} recordings {len(trainer.engine._recorded)} steps ms {[round(1000 * each) for each in taken]} "
            f"allocated {torch.cuda.max_memory_allocated() / GIB:.2f} GiB"
        )
    flags = [flag for flag in ("recompute", "roomy") if how[flag]] + [f"{key} {value}" for key, value in job.settings]
    halved = f", halved {how['halved_for_memory']} times" if how["halved_for_memory"] else ""
    said = ", ".join([f"{how['batch_tokens']:,} tokens at once{halved}", *flags])
    return Trained(steps=taken[steps_of(job)[0] :], counted=how["predicted_peak_gib"] or None, how=said)
