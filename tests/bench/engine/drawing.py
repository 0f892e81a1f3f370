"""Samples a second: eight of each question, by the engine behind `AnswerStep` and by a plain `model.generate` loop in arrival order.

All sides have the same weights, adapter, number format, prompts, temperature and limit. A student of random weights hardly ever ends a text itself; a real
one (`--student`, pocketqa's reasoning prompts) ends texts where it does.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tasks.contracts.jobs import Weights
from tasks.contracts.rows import Arm, Request
from tasks.logic.benchmarks import pocketqa, yes_no
from tasks.training.adapted import lean
from tasks.training.attention import NAME
from tasks.training.completions import pad_left
from tasks.training.generation import answer
from tasks.training.student import Student, load_student
from tasks.training.tokens import Tokens, end_ids, prompt_ids
from tests.bench.engine.measure import Row, now
from tests.bench.engine.shapes import lora, random_student
from tests.bench.engine.work import Job, as_text

SAMPLES, TEMPERATURE = 8, 0.8
LOOP_BATCH = 16  # questions that the plain loop asks at once
Length = tuple[int, bool]  # tokens of a text, and whether the limit cut it


def ours(job: Job) -> Row:
    """The product's own path: adapter merged, one prefill a question, prompts of like length together, ended texts out of the batch."""
    student = _student(job, "ours")

    def draw(prompts: list[str], *, most: int) -> list[Length]:
        asked = [
            Request(qid=str(place), arm=Arm.REASONING, sample=sample, prompt=prompt, prefix="", yes_choices=(), no_choices=())
            for place, prompt in enumerate(prompts)
            for sample in range(SAMPLES)
        ]
        said = answer(student, asked, max_new_tokens=most, temperature=TEMPERATURE, seed=0, batch_size=job.samples_at_once, report=lambda *_: None)
        return [(each.tokens, each.cut) for each in said]

    return _measured(job, draw)


def loop(job: Job, side: str) -> Row:
    """`model.generate` with `num_return_sequences`: `seeds` with the adapter beside the weights, `best` with it merged."""
    student = _student(job, side)
    stops = end_ids(student.tokenizer)
    pad = stops[0] if student.tokenizer.pad_token_id is None else student.tokenizer.pad_token_id
    drawing = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0, "top_p": 1.0, "num_return_sequences": SAMPLES}

    def draw(prompts: list[str], *, most: int) -> list[Length]:
        config = GenerationConfig(max_new_tokens=most, eos_token_id=stops, pad_token_id=pad, **drawing)
        found: list[Length] = []
        for start in range(0, len(prompts), LOOP_BATCH):
            rows = [Tokens(ids=tuple(prompt_ids(student.tokenizer, prompt)), prompt=0) for prompt in prompts[start : start + LOOP_BATCH]]
            batch = {name: each.to(student.device) for name, each in pad_left(rows, pad=pad).items()}
            with torch.no_grad():
                made = student.model.generate(**batch, generation_config=config)
            found += [_length(ids, stops) for ids in made[:, batch["input_ids"].shape[1] :].tolist()]
        return found

    return _measured(job, draw)


def _measured(job: Job, draw: Callable[..., list[Length]]) -> Row:
    """A short draw to warm up and one that counts; what a draw prepares for itself (merged weights, recorded graphs) counts too."""
    prompts = _prompts(job)
    draw(prompts[:LOOP_BATCH], most=4)
    wall, cpu = now(), time.process_time()
    found = draw(prompts, most=job.sampled_tokens)
    wall, cpu = now() - wall, time.process_time() - cpu
    tokens, cut = (sum(column) for column in zip(*found, strict=True))
    drawn = {"samples": len(found), "seconds": wall, "cpu_seconds": cpu, "tokens_a_sample": tokens / len(found), "cut": cut / len(found)}
    return {"rate": len(found) / wall, "samples_a_cpu_second": len(found) / cpu, **drawn}


def _prompts(job: Job) -> list[str]:
    if job.student:
        return [yes_no.reasoning_prompt(row.question) for row in pocketqa.sample(split="train", n=job.questions, seed=0)]
    return [as_text(tokens) for tokens in job.asked()]


def _student(job: Job, side: str) -> Student:
    if job.student:
        return _real(job, side)
    model, tokenizer = random_student(job.model, cpu=job.cpu, attention=NAME if side == "ours" else "sdpa")
    adapted = get_peft_model(model, lora(), autocast_adapter_dtype=False).eval()
    if side == "ours":
        lean(adapted)
    return Student(adapted.merge_and_unload() if side == "best" else adapted, tokenizer)


def _real(job: Job, side: str) -> Student:
    if side == "ours":
        weights = Weights(model=job.student, adapter=job.adapter, quantization="none", dtype=job.dtype)
        return load_student(weights, folder=Path(), device="cpu" if job.cpu else "cuda", trainable=False)
    model: Any = AutoModelForCausalLM.from_pretrained(job.student, dtype=getattr(torch, job.dtype), device_map={"": "cpu" if job.cpu else "cuda"})
    if job.adapter:
        model = PeftModel.from_pretrained(model, job.adapter, autocast_adapter_dtype=False)
        model = model.merge_and_unload() if side == "best" else model.to(getattr(torch, job.dtype))
    return Student(model.eval(), AutoTokenizer.from_pretrained(job.student, padding_side="left"))


def _length(ids: list[int], stops: list[int]) -> Length:
    """Tokens of one reply, its end included, and whether it has none."""
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    return (len(ids), True) if end is None else (end + 1, False)
