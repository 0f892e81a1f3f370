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
from tasks.training.completions import score_completions, scored_tokens
from tasks.training.engine import compile_for_scoring
from tasks.training.guards import four_bit, labels_survive
from tasks.training.packing import Bundle
from tasks.training.processes import join, rank, share
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
    longest = fits(rows, pairs, max_length=step.max_length) if pairs else 0
    bundles = [Bundle.of(chosen, rejected) for chosen, rejected in zip(rows[::2], rows[1::2], strict=True)]
    compile_for_scoring(student, step.machine, tokens=sum(bundle.size for bundle in bundles))
    mine = share(pairs)
    bundles = share(bundles)
    filled = list(mine)
    done = 0
    for picked, scored in score_completions(student.model, bundles, budget=step.machine.batch_tokens or scored_tokens(student.device)):
        for index, (chosen, rejected) in zip(picked, scored, strict=True):
            filled[index] = replace(mine[index], reference_chosen=chosen, reference_rejected=rejected, reference=step.digest)
        done += len(picked)
        report(done, len(mine), f"{done} of {len(mine)} pairs read")
    filled = join(filled)
    if rank() == 0:
        write_rows(folder / step.out, filled, Pair)
    return {"pairs": len(pairs), "longest_row": longest, "device": str(student.device)}


def tokenize_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> list[Tokens]:
    """Chosen and rejected row of each pair, in turn."""
    return [tokenize_example(tokenizer, prompt=pair.prompt, completion=text) for pair in pairs for text in (pair.chosen, pair.rejected)]


def fits(rows: Sequence[Tokens], pairs: Sequence[Pair], *, max_length: int) -> int:
    """The longest row in tokens; raises GuardError where a completion would have to be cut."""
    classes = [pair.answer for pair in pairs for _ in range(2)]
    return labels_survive(rows, classes, max_length=max_length, setting="recipe.align.max_length")
