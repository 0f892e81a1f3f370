"""Ask a student: generate answers, or score given choices. Replies come back in the order asked."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.contracts.artifacts import read_rows, write_rows
from tasks.contracts.failures import GuardError
from tasks.contracts.jobs import AnswerStep
from tasks.contracts.rows import Completion, Request
from tasks.training.adapted import can_compile
from tasks.training.completions import score_completions, scored_tokens
from tasks.training.decoding import Tick, decode, decoding_bytes
from tasks.training.guards import Allowed, four_bit, verdicts_fit
from tasks.training.merging import decoding_weights
from tasks.training.packing import Bundle
from tasks.training.processes import join, rank, share
from tasks.training.progress import Report
from tasks.training.sampling import Sampling
from tasks.training.slots import plain_layers
from tasks.training.student import Student, load_student
from tasks.training.tokens import end_ids, prompt_ids, text_ids

COMPILED_STEPS = 2000  # decode steps from which fusing their kernels on a GPU saves more than the few seconds it takes
HISTORY = "history.json"  # beside an adapter; holds the longest completion of each arm it was trained on


def run_answer(step: AnswerStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one AnswerStep."""
    requests, allowed = read_rows(folder / step.requests, Request), Allowed(step.allow)
    if step.weights.adapter:
        generated = [request.arm for request in requests if not request.yes_choices]
        verdicts_fit(trained_lengths(folder / step.weights.adapter), generated, max_new_tokens=step.max_new_tokens, allowed=allowed)
    student = load_student(step.weights, folder=folder, device=step.machine.device, trainable=False)
    if step.weights.quantization == "nf4":
        four_bit(student.model)
    seconds: dict[str, float] = {}
    completions = answer(
        student,
        share(requests),
        max_new_tokens=step.max_new_tokens,
        temperature=step.temperature,
        seed=step.seed,
        batch_size=step.machine.generate_batch,
        compiling=step.machine.compile,
        report=report,
        seconds=seconds,
    )
    completions = join(completions)
    if rank() == 0:
        write_rows(folder / step.out, completions, Completion)
    return {
        "requests": len(requests),
        "tokens": sum(completion.tokens for completion in completions),
        "cut": sum(completion.cut for completion in completions),
        "device": str(student.device),
        "seconds": seconds,
        "allowed": allowed.found,
    }


def trained_lengths(adapter: Path) -> dict[str, int]:
    """Longest completion in tokens of each arm that an adapter was trained on; empty where its history does not say."""
    path = adapter / HISTORY
    return dict(json.loads(path.read_text(encoding="utf-8")).get("completion_tokens", {})) if path.is_file() else {}


def answer(
    student: Student,
    requests: Sequence[Request],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_size: int,
    report: Report,
    compiling: str = "auto",
    seconds: dict[str, float] | None = None,
) -> list[Completion]:
    """Reply to every request, in order. `temperature` 0 is greedy; sampling depends on seed, qid and sample, not on the batch a request lands in.

    `compiling`: "auto", "always" or "never" fuse the kernels of a GPU's decode steps. `seconds` is filled with wall-clock seconds by arm; arms whose
    texts are generated together share them in proportion to their tokens, scored ones in proportion to their requests.
    """
    was_training = student.model.training
    student.model.eval()
    done = told = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        report(done, len(requests), f"{done} of {len(requests)} answered")

    def tock(worth: float) -> None:
        nonlocal told
        if done + int(worth) > told:
            told = done + int(worth)
            report(told, len(requests), f"{done} of {len(requests)} answered")

    try:
        open_ended = [index for index, request in enumerate(requests) if not request.yes_choices]
        steps = -(-len(open_ended) // batch_size) * max_new_tokens
        wanted = compiling == "always" or (compiling == "auto" and steps > COMPILED_STEPS)
        settings = {
            "max_new_tokens": max_new_tokens,
            "batch_size": batch_size,
            "compiled": wanted and student.device.type == "cuda" and can_compile(),
            "tock": tock,
        }
        chosen = [index for index, request in enumerate(requests) if request.yes_choices]
        begun = time.monotonic()
        generated = _generate(student, requests, open_ended, temperature=temperature, seed=seed, tick=tick, **settings)
        halfway = time.monotonic()
        scored = _choose(student, requests, chosen, tick=tick)
        if seconds is not None:
            seconds |= _by_arm(generated.values(), halfway - begun) | _by_arm(scored.values(), time.monotonic() - halfway)
    finally:
        student.model.train(was_training)
    replies = generated | scored
    return [replies[index] for index in range(len(requests))]


def _by_arm(replies: Iterable[Completion], took: float) -> dict[str, float]:
    """`took` by arm, in proportion to tokens; a scored reply counts as one."""
    shares: Counter[str] = Counter()
    for reply in replies:
        shares[reply.arm] += max(reply.tokens, 1)
    return {arm: took * share / shares.total() for arm, share in shares.items()}


def _generate(
    student: Student, requests: Sequence[Request], indices: list[int], *, temperature: float, seed: int, tick: Tick, **settings: Any
) -> dict[int, Completion]:
    """Completions of open-ended requests. Noise is seeded by what is asked, so that the batch size (execution) never changes a sample (recipe)."""
    asked = [_asked(student, requests[index]) for index in indices]
    if not asked:
        return {}
    stops = end_ids(student.tokenizer)
    noise = Sampling(temperature=temperature, seeds=[_row_seed(seed, requests[index]) for index in indices]) if temperature > 0 else None
    rows, longest = min(settings["batch_size"], len(asked)), max(map(len, asked)) + settings["max_new_tokens"]
    with plain_layers(student.model), decoding_weights(student.model, beside=decoding_bytes(student.model, rows=rows, longest=longest)) as model:
        found = decode(model, asked, stops=stops, pad=_pad(student), noise=noise, tick=tick, **settings)
    return {index: _completion(student, requests[index], ids, set(stops)) for index, ids in zip(indices, found, strict=True)}


def _completion(student: Student, request: Request, ids: list[int], stops: set[int]) -> Completion:
    length = next((place for place, token in enumerate(ids) if token in stops), None)
    text = request.prefix + str(student.tokenizer.decode(ids[:length], skip_special_tokens=True))
    tokens = len(ids) if length is None else length + 1
    return Completion(qid=request.qid, arm=request.arm, sample=request.sample, text=text, tokens=tokens, cut=length is None, margin=math.nan)


def _choose(student: Student, requests: Sequence[Request], indices: list[int], *, tick: Tick) -> dict[int, Completion]:
    """Completions whose margin is log P(any yes choice) - log P(any no choice), each choice read after prompt and prefix, which are computed once."""
    bundles = [_choices(student, requests[index]) for index in indices]
    replies = {}
    for picked, scored in score_completions(student.model, bundles, budget=scored_tokens(student.device)):
        for place, found in zip(picked, scored, strict=True):
            index, request = indices[place], requests[indices[place]]
            scores = torch.tensor(found, dtype=torch.float64)
            margin = float(scores[: len(request.yes_choices)].logsumexp(0) - scores[len(request.yes_choices) :].logsumexp(0))
            said = request.yes_choices[0] if margin > 0 else request.no_choices[0]
            text = request.prefix + said
            replies[index] = Completion(qid=request.qid, arm=request.arm, sample=request.sample, text=text, tokens=0, cut=False, margin=margin)
        tick(len(picked))
    return replies


def _choices(student: Student, request: Request) -> Bundle:
    """Prompt and prefix, and every choice after them. The end token is no part of it: only the words are compared."""
    if not request.no_choices:
        raise GuardError(f"Request {request.qid} has yes choices but no no-choices, so it has no margin; give both")
    context = _asked(student, request)
    return Bundle(prompt=context, completions=tuple(_choice(student, request, choice, context) for choice in (*request.yes_choices, *request.no_choices)))


def _choice(student: Student, request: Request, choice: str, context: tuple[int, ...]) -> tuple[int, ...]:
    joined = text_ids(student.tokenizer, request.prefix + choice)
    start = len(text_ids(student.tokenizer, request.prefix))
    if joined[:start] != list(context[len(context) - start :]):
        raise GuardError(f"The choice {choice!r} changes the tokens of the prefix {request.prefix!r}; move the space between them into the choice")
    if len(joined) == start:
        raise GuardError(f"Request {request.qid} has the empty choice {choice!r}; give it words")
    return tuple(joined[start:])


def _asked(student: Student, request: Request) -> tuple[int, ...]:
    prefix = text_ids(student.tokenizer, request.prefix) if request.prefix else []
    return (*prompt_ids(student.tokenizer, request.prompt), *prefix)


def _pad(student: Student) -> int:
    return int(student.tokenizer.pad_token_id)


def _row_seed(seed: int, request: Request) -> int:
    name = f"{seed}|{request.qid}|{request.arm}|{request.sample}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
