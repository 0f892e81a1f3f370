"""A tiny student that has been to school: it ends with a verdict, which is as good as a guess.

Preference pairs need a student whose samples have verdicts; a random one never writes any.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.logic.benchmarks import pocketqa, yes_no
from tests.tiny_student import make_tiny_student

STEPS, BATCH = 60, 8
VERDICTS = ("So it is.\nFinal answer: Yes<|stop|>", "So it is.\nFinal answer: No<|stop|>")


def make_schooled_student(folder: Path) -> Path:
    """Train the tiny student to answer pocketqa's reasoning prompts with a random verdict; takes a few seconds."""
    questions = pocketqa.sample(split="train", n=48, seed=9)
    lessons = [(yes_no.reasoning_prompt(row.question), VERDICTS[index // 2 % 2]) for index, row in enumerate(questions)]
    return school(folder, lessons, steps=STEPS, batch=BATCH)


def school(folder: Path, lessons: Sequence[tuple[str, str]], *, steps: int, batch: int) -> Path:
    """A tiny student trained on the completions of (prompt, completion) lessons; writes it into `folder`."""
    make_tiny_student(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rng = random.Random(0)
    turns = [(_turn(tokenizer, prompt), completion) for prompt, completion in lessons]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        loss = model(**_batch(tokenizer, rng.sample(turns, batch))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def _turn(tokenizer: Any, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _batch(tokenizer: Any, lessons: list[tuple[str, str]]) -> dict[str, Any]:
    """Left-padded rows whose labels are the verdict alone."""
    batch = tokenizer([prompt + verdict for prompt, verdict in lessons], return_tensors="pt", padding=True, add_special_tokens=False)
    labels = torch.full_like(batch["input_ids"], -100)
    for row, (_, verdict) in enumerate(lessons):
        length = len(tokenizer.encode(verdict, add_special_tokens=False))
        labels[row, -length:] = batch["input_ids"][row, -length:]
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
