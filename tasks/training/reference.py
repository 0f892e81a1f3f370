"""The reference pass: log-probabilities of both completions of every pair under the adapter that preference training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tasks.contracts.artifacts import read_rows, write_rows
from tasks.contracts.jobs import ReferenceStep
from tasks.contracts.rows import Pair
from tasks.training.completions import score_completions
from tasks.training.guards import four_bit, labels_survive
from tasks.training.progress import Report
from tasks.training.student import load_student
from tasks.training.tokens import Tokens, tokenize_example


def run_reference(step: ReferenceStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one ReferenceStep."""
    pairs = read_rows(folder / step.pairs, Pair)
    student = load_student(step.weights, folder=folder, device=step.machine.device, trainable=False)
    if step.weights.quantization == "nf4":
        four_bit(student.model)
    rows = tokenize_pairs(student.tokenizer, pairs)
    longest = fit(rows, pairs, max_length=step.max_length) if pairs else 0
    totals = [0.0] * len(rows)
    done = 0
    for picked, scored in score_completions(student.model, rows, pad=int(student.tokenizer.pad_token_id), batch_size=step.machine.generate_batch):
        for index, total in zip(picked, scored.tolist(), strict=True):
            totals[index] = total
        done += len(picked)
        report(done, len(rows), f"{done} of {len(rows)} completions read")
    filled = [
        replace(pair, reference_chosen=totals[2 * index], reference_rejected=totals[2 * index + 1], reference=step.digest) for index, pair in enumerate(pairs)
    ]
    write_rows(folder / step.out, filled, Pair)
    return {"pairs": len(pairs), "longest_row": longest, "device": str(student.device)}


def tokenize_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> list[Tokens]:
    """Chosen and rejected row of each pair, in turn."""
    return [tokenize_example(tokenizer, prompt=pair.prompt, completion=text) for pair in pairs for text in (pair.chosen, pair.rejected)]


def fit(rows: Sequence[Tokens], pairs: Sequence[Pair], *, max_length: int) -> int:
    """The longest row in tokens; raises GuardError where a completion would have to be cut."""
    classes = [pair.answer for pair in pairs for _ in range(2)]
    return labels_survive(rows, classes, max_length=max_length, setting="recipe.align.max_length")
