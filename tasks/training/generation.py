"""Ask a student: generate answers, or score given choices. Replies come back in the order asked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from tasks.contracts.artifacts import read_rows, write_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.jobs import AnswerStep
from tasks.contracts.rows import Completion, Request
from tasks.training.completions import pad_left, score_completions
from tasks.training.guards import four_bit, verdicts_fit
from tasks.training.progress import Report
from tasks.training.student import Student, arithmetic, load_student
from tasks.training.tokens import Tokens, end_ids, prompt_ids, text_ids

HISTORY = "history.json"  # beside an adapter; holds the longest completion of each arm it was trained on
Tick = Callable[[int], None]


def run_answer(step: AnswerStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one AnswerStep."""
    requests = read_rows(folder / step.requests, Request)
    if step.weights.adapter:
        generated = [request.arm for request in requests if not request.yes_choices]
        verdicts_fit(trained_lengths(folder / step.weights.adapter), generated, max_new_tokens=step.max_new_tokens)
    student = load_student(step.weights, folder=folder, device=step.machine.device, trainable=False)
    if step.weights.quantization == "nf4":
        four_bit(student.model)
    completions = answer(
        student,
        requests,
        max_new_tokens=step.max_new_tokens,
        temperature=step.temperature,
        seed=step.seed,
        batch_size=step.machine.generate_batch,
        report=report,
    )
    write_rows(folder / step.out, completions, Completion)
    return {
        "requests": len(requests),
        "tokens": sum(completion.tokens for completion in completions),
        "cut": sum(completion.cut for completion in completions),
        "device": str(student.device),
    }


def trained_lengths(adapter: Path) -> dict[str, int]:
    """Longest completion in tokens of each arm that an adapter was trained on; empty where its history does not say."""
    path = adapter / HISTORY
    return dict(json.loads(path.read_text(encoding="utf-8")).get("completion_tokens", {})) if path.is_file() else {}


def answer(
    student: Student, requests: Sequence[Request], *, max_new_tokens: int, temperature: float, seed: int, batch_size: int, report: Report
) -> list[Completion]:
    """Reply to every request, in order. `temperature` 0 is greedy; sampling depends on seed, qid and sample, not on the batch a request lands in."""
    was_training = student.model.training
    student.model.eval()
    replies: dict[int, Completion] = {}
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        report(done, len(requests), f"{done} of {len(requests)} answered")

    try:
        open_ended = [index for index, request in enumerate(requests) if not request.yes_choices]
        for batch in _batches(student, requests, open_ended, batch_size):
            replies.update(_generate(student, requests, batch, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed))
            tick(len(batch))
        chosen = [index for index, request in enumerate(requests) if request.yes_choices]
        replies.update(_choose(student, requests, chosen, batch_size=batch_size, tick=tick))
    finally:
        student.model.train(was_training)
    return [replies[index] for index in range(len(requests))]


class SeededSampling(LogitsProcessor):
    """Makes greedy decoding draw from softmax(logits / temperature): the largest of logits plus Gumbel noise is such a draw.

    Each row has its own noise, seeded by what is asked, so that the batch size (execution) never changes a sample (recipe).
    """

    def __init__(self, requests: Sequence[Request], *, temperature: float, seed: int, device: torch.device) -> None:
        self.temperature = temperature
        self.noise = [torch.Generator(device).manual_seed(_row_seed(seed, request)) for request in requests]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [rows, vocabulary] to perturbed scores of the same shape."""
        waits = torch.stack([torch.empty(scores.shape[1], device=scores.device).exponential_(generator=noise) for noise in self.noise])
        return scores.float() / self.temperature - waits.clamp(min=1e-30).log()  # minus the log of an exponential is Gumbel noise


def _generate(student: Student, requests: Sequence[Request], batch: list[int], *, max_new_tokens: int, temperature: float, seed: int) -> dict[int, Completion]:
    rows = [Tokens(ids=_asked(student, requests[index]), prompt=0) for index in batch]
    padded = pad_left(rows, pad=_pad(student))
    stops = end_ids(student.tokenizer)
    picked = [requests[index] for index in batch]
    processors = [SeededSampling(picked, temperature=temperature, seed=seed, device=student.device)] if temperature > 0 else []
    settings = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=stops, pad_token_id=_pad(student))  # type: ignore[no-untyped-call]
    with torch.no_grad(), arithmetic(student.model):
        sequences = student.model.generate(
            input_ids=padded["input_ids"].to(student.device),
            attention_mask=padded["attention_mask"].to(student.device),
            generation_config=settings,
            logits_processor=LogitsProcessorList(processors),
        )
    fresh = sequences[:, padded["input_ids"].shape[1] :].tolist()
    return {index: _completion(student, requests[index], ids, set(stops)) for index, ids in zip(batch, fresh, strict=True)}


def _completion(student: Student, request: Request, ids: list[int], stops: set[int]) -> Completion:
    length = next((place for place, token in enumerate(ids) if token in stops), None)
    text = request.prefix + str(student.tokenizer.decode(ids[:length], skip_special_tokens=True))
    tokens = len(ids) if length is None else length + 1
    return Completion(qid=request.qid, arm=request.arm, sample=request.sample, text=text, tokens=tokens, cut=length is None, margin=math.nan)


def _choose(student: Student, requests: Sequence[Request], indices: list[int], *, batch_size: int, tick: Tick) -> dict[int, Completion]:
    """Completions whose margin is log P(any yes choice) - log P(any no choice), each choice read after prompt and prefix.

    Where every choice is one token, one look at the next token scores them all; else each choice is a row of its own.
    """
    rows: list[Tokens] = []
    spans: dict[int, slice] = {}
    for index in indices:
        request = requests[index]
        if not request.no_choices:
            raise GuardError(f"Request {request.qid} has yes choices but no no-choices, so it has no margin; give both")
        spans[index] = slice(len(rows), len(rows) + len(request.yes_choices) + len(request.no_choices))
        rows += [_choice(student, request, choice) for choice in (*request.yes_choices, *request.no_choices)]
    scores = torch.zeros(len(rows), dtype=torch.float64)
    if all(row.completion == 1 for row in rows):
        _score_next_tokens(student, rows, [spans[index] for index in indices], scores, batch_size=batch_size)
    else:
        for picked, totals in score_completions(student.model, rows, pad=_pad(student), batch_size=batch_size):
            scores[picked] = totals.double()
    replies = {}
    for index in indices:
        request, found = requests[index], scores[spans[index]]
        margin = float(found[: len(request.yes_choices)].logsumexp(0) - found[len(request.yes_choices) :].logsumexp(0))
        said = request.yes_choices[0] if margin > 0 else request.no_choices[0]
        text = request.prefix + said
        replies[index] = Completion(qid=request.qid, arm=request.arm, sample=request.sample, text=text, tokens=0, cut=False, margin=margin)
    if indices:
        tick(len(indices))
    return replies


def _score_next_tokens(student: Student, rows: Sequence[Tokens], spans: Sequence[slice], scores: Tensor, *, batch_size: int) -> None:
    """Fill `scores` for rows that end in one choice token: the rows of a span share everything before it, so one context serves them all."""
    contexts = [Tokens(ids=rows[span.start].ids[:-1], prompt=0) for span in spans]
    for start in range(0, len(spans), batch_size):
        batch = {name: tensor.to(student.device) for name, tensor in pad_left(contexts[start : start + batch_size], pad=_pad(student)).items()}
        positions = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        with torch.no_grad(), arithmetic(student.model):
            logits = student.model(**batch, position_ids=positions, logits_to_keep=1, use_cache=False).logits[:, -1].float().log_softmax(dim=1).cpu()
        for found, span in zip(logits, spans[start : start + batch_size], strict=True):
            scores[span] = found[[row.ids[-1] for row in rows[span]]].double()


def _choice(student: Student, request: Request, choice: str) -> Tokens:
    """Prompt + prefix as context, the choice as completion. The end token is no part of it: only the words are compared."""
    context = _asked(student, request)
    joined = text_ids(student.tokenizer, request.prefix + choice)
    start = len(text_ids(student.tokenizer, request.prefix))
    if joined[:start] != list(context[len(context) - start :]):
        raise GuardError(f"The choice {choice!r} changes the tokens of the prefix {request.prefix!r}; move the space between them into the choice")
    return Tokens(ids=(*context, *joined[start:]), prompt=len(context))


def _asked(student: Student, request: Request) -> tuple[int, ...]:
    prefix = text_ids(student.tokenizer, request.prefix) if request.prefix else []
    return (*prompt_ids(student.tokenizer, request.prompt), *prefix)


def _batches(student: Student, requests: Sequence[Request], indices: list[int], batch_size: int) -> list[list[int]]:
    """Requests of like length together, the longest first: memory runs out at once or never."""
    order = sorted(indices, key=lambda index: -len(_asked(student, requests[index])))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _pad(student: Student) -> int:
    return int(student.tokenizer.pad_token_id)


def _row_seed(seed: int, request: Request) -> int:
    name = f"{seed}|{request.qid}|{request.arm}|{request.sample}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
