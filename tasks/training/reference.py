"""What a student thinks of given texts: the reference pass over preference pairs, and log-probabilities of single texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from tasks.contracts.artifacts import read_rows, write_rows
from tasks.contracts.jobs import Machine, ReferenceStep, ScoreStep
from tasks.contracts.rounds import Likelihood, Spoken
from tasks.contracts.rows import Pair
from tasks.training.completions import score_completions, scored_tokens
from tasks.training.engine import compile_for_scoring
from tasks.training.guards import four_bit, labels_survive
from tasks.training.packing import Bundle
from tasks.training.processes import join, rank, share
from tasks.training.progress import Report
from tasks.training.student import Student, load_student
from tasks.training.tokens import Tokens, tokenize_example

SETTING = "recipe.align.max_length"  # how long a text may be that a student is trained on


def run_reference(step: ReferenceStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one ReferenceStep: both completions of every pair under the adapter that preference training starts from.

    A pair with a side of more than `max_length` tokens is left out and counted.
    """
    pairs = read_rows(folder / step.pairs, Pair)
    student = _loaded(step, folder)
    rows = tokenize_pairs(student.tokenizer, pairs)
    sides = zip(rows[::2], rows[1::2], strict=True)
    kept = [(pair, side) for pair, side in zip(pairs, sides, strict=True) if max(len(each.ids) for each in side) <= step.max_length]
    read = _read(student, [Bundle.of(*side) for _, side in kept], machine=step.machine, report=report, noun="pairs")
    filled = [
        replace(pair, reference_chosen=chosen, reference_rejected=rejected, reference=step.digest)
        for (pair, _), (chosen, rejected) in zip(kept, read, strict=True)
    ]
    if rank() == 0:
        write_rows(folder / step.out, filled, Pair)
    longest = max((len(each.ids) for _, side in kept for each in side), default=0)
    return {"pairs": len(filled), "too_long": len(pairs) - len(filled), "longest_row": longest, "device": str(student.device)}


def run_score(step: ScoreStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one ScoreStep."""
    texts = read_rows(folder / step.texts, Spoken)
    student = _loaded(step, folder)
    rows = [tokenize_example(student.tokenizer, prompt=text.prompt, completion=text.completion) for text in texts]
    read = _read(student, [Bundle.of(row) for row in rows], machine=step.machine, report=report, noun="texts")
    found = [Likelihood(qid=text.qid, role=text.role, tokens=row.completion, nats=nats) for text, row, (nats,) in zip(texts, rows, read, strict=True)]
    if rank() == 0:
        write_rows(folder / step.out, found, Likelihood)
    return {"texts": len(texts), "longest_row": max((len(row.ids) for row in rows), default=0), "device": str(student.device)}


def tokenize_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> list[Tokens]:
    """Chosen and rejected row of each pair, in turn."""
    return [tokenize_example(tokenizer, prompt=pair.prompt, completion=text) for pair in pairs for text in (pair.chosen, pair.rejected)]


def fits(rows: Sequence[Tokens], pairs: Sequence[Pair], *, max_length: int) -> int:
    """The longest row in tokens; raises GuardError where a completion would have to be cut."""
    classes = [pair.answer for pair in pairs for _ in range(2)]
    return labels_survive(rows, classes, max_length=max_length, setting=SETTING)


def _loaded(step: ReferenceStep | ScoreStep, folder: Path) -> Student:
    student = load_student(step.weights, folder=folder, device=step.machine.device, trainable=False)
    if step.weights.quantization == "nf4":
        four_bit(student.model)
    return student


def _read(student: Student, bundles: Sequence[Bundle], *, machine: Machine, report: Report, noun: str) -> list[list[float]]:
    """Summed log-probabilities of every bundle's completions in nats, in order; each process reads its share and all get all."""
    compile_for_scoring(student, machine, tokens=sum(bundle.size for bundle in bundles))
    mine = share(bundles)
    found: list[list[float]] = [[] for _ in mine]
    done = 0
    for picked, scored in score_completions(student.model, mine, budget=machine.batch_tokens or scored_tokens(student.device)):
        for index, nats in zip(picked, scored, strict=True):
            found[index] = nats
        done += len(picked)
        report(done, len(mine), f"{done} of {len(mine)} {noun} read")
    return join(found)
