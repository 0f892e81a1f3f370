"""Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) of a verdict over the embeddings of what the student read and wrote.

On the straight line from a text without content to the text, the log-odds of the verdict swing up and down dozens of times as far as they change in the
end. Until points lie closer than these swings, sums over them mean nothing; from then on evenly spaced ones are exact almost at once. So their number
is doubled, none computed twice, until the attributions add up to the change (`models/README.md` has the figures). What the model wrote before its verdict
is part of the question, as where a draft is masked: question and draft alone move, which takes half the points.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from captum.attr import IntegratedGradients
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tasks.contracts.artifacts import read_rows, write_rows
from tasks.contracts.failures import GuardError, StudentError
from tasks.contracts.jobs import TEXTS, TOKENS, AttributeStep
from tasks.contracts.recipes import Attribute
from tasks.contracts.rows import Attributable, Attributed, TokenShare
from tasks.logic.attribution import CONTENT, DRAFT, TEMPLATE, Part
from tasks.training.merging import expand
from tasks.training.processes import join, rank, share
from tasks.training.products import fast_products
from tasks.training.progress import Report
from tasks.training.student import Student, load_student
from tasks.training.tokens import prompt_ids, render_prompt, text_ids

LEAST_CHANGE = 0.5  # nats: errors are shares of the change, or of this where it is smaller
BATCH_TOKENS = 2048  # where execution.train.batch_tokens does not say: enough to keep a processor busy
Values = Callable[[Tensor], Tensor]  # log-odds [B] of embeddings [B, T, D]


def run_attribute(step: AttributeStep, folder: Path, report: Report) -> dict[str, Any]:
    """Do one AttributeStep."""
    texts = read_rows(folder / step.requests, Attributable)
    student = load_student(step.weights, folder=folder, device=step.machine.device, trainable=False)
    expanded = expand(student.model)
    begun = time.monotonic()
    with fast_products():
        found = join(attribute(student, share(texts), recipe=step.recipe, batch_tokens=step.machine.batch_tokens or BATCH_TOKENS, report=report))
    seconds = time.monotonic() - begun
    if rank() == 0:
        (folder / step.out).mkdir(exist_ok=True)
        write_rows(folder / step.out / TOKENS, [token for _, tokens in found for token in tokens], TokenShare)
        write_rows(folder / step.out / TEXTS, [text for text, _ in found], Attributed)
    return {
        "texts": len(found),
        "complete": sum(text.complete for text, _ in found),
        "gradients": sum(text.points for text, _ in found),
        "seconds": seconds,
        "weights": "float32, adapters merged" if expanded else f"{step.weights.quantization}, {step.weights.dtype}: float32 does not fit this GPU",
        "device": str(student.device),
    }


def attribute(
    student: Student, texts: Sequence[Attributable], *, recipe: Attribute, batch_tokens: int, report: Report
) -> list[tuple[Attributed, list[TokenShare]]]:
    """Each text's figures and its tokens, in order. The student is left in evaluation mode with plain attention, its parameters without gradients."""
    student.model.eval().requires_grad_(False)
    student.model.set_attn_implementation("eager")  # on a CPU the backward of the fused kernel takes a quarter of a gradient
    found = []
    for done, text in enumerate(texts, start=1):
        found.append(_attribute_one(student, text, recipe=recipe, batch_tokens=batch_tokens))
        report(done, len(texts), f"{text.model}, {text.draft} draft: error {median(each.error for each, _ in found):.1%} of the change in the median")
    return found


def _attribute_one(student: Student, text: Attributable, *, recipe: Attribute, batch_tokens: int) -> tuple[Attributed, list[TokenShare]]:
    tokens = read_tokens(student, text)
    values = log_odds(student, text)
    embed = student.model.get_input_embeddings()
    whole = embed(torch.tensor([token.id for token in tokens], device=student.device)).float().detach()
    empty = embed(torch.tensor([student.tokenizer.pad_token_id], device=student.device)).float().detach().expand_as(whole)
    bare = torch.where(_mask(tokens, CONTENT, whole), empty, whole)
    undrafted = torch.where(_mask(tokens, DRAFT, whole), empty, whole)
    rows = max(1, batch_tokens // len(tokens))
    found = integrate(values, bare, whole, recipe=recipe, rows=rows)
    with torch.no_grad():
        said, masked = values(torch.stack([whole, undrafted])).tolist()
    sign = 1.0 if said > 0 else -1.0
    names = {"qid": text.qid, "model": text.model, "draft": text.draft}
    attributed = Attributed(
        **names,
        said="yes" if said > 0 else "no",
        change=sign * found.change,
        error=found.error,
        points=found.points,
        complete=found.error <= recipe.tolerance,
        masked=sign * (said - masked),
    )
    by_token = (sign * found.attributions).tolist()
    return attributed, [
        TokenShare(**names, place=place, token=token.text, role=token.role, attribution=value)
        for place, (token, value) in enumerate(zip(tokens, by_token, strict=True))
    ]


@dataclass(frozen=True, kw_only=True)
class Integral:
    """Attributions [T] of a change in nats, how far their sum misses it as a share of it, and the gradients that they took."""

    attributions: Tensor
    change: float
    error: float
    points: int


def integrate(values: Values, bare: Tensor, whole: Tensor, *, recipe: Attribute, rows: int) -> Integral:
    """Integrated gradients of `values` from `bare` to `whole` [T, D], `rows` texts at once.

    Trapezoids of `recipe.points` intervals, halved until the sum is within the tolerance or there would be more than `recipe.most_points`. Each halving
    adds the midpoints alone: the mean of the trapezoid and the midpoint rule over n intervals is the trapezoid rule over 2 n.
    """
    gradients, rows = IntegratedGradients(values), max(rows, 1)
    ends = {"inputs": whole[None], "baselines": bare[None], "internal_batch_size": rows}
    with torch.no_grad():
        change = float(values(whole[None]).double() - values(bare[None]).double())
    count = recipe.points
    # captum gives each of its n + 1 trapezoid points the weight of n + 1 intervals, though they bound only n.
    total = gradients.attribute(**ends, n_steps=count + 1, method="riemann_trapezoid")[0].sum(dim=1) * ((count + 1) / count)
    while _error(total, change) > recipe.tolerance and 2 * count <= recipe.most_points:
        total = (total + gradients.attribute(**ends, n_steps=count, method="riemann_middle")[0].sum(dim=1)) / 2
        count *= 2
    return Integral(attributions=total.detach(), change=change, error=_error(total, change), points=count + 1)


def _error(attributions: Tensor, change: float) -> float:
    return abs(float(attributions.double().sum()) - change) / max(abs(change), LEAST_CHANGE)


def log_odds(student: Student, text: Attributable) -> Values:
    """log P(yes choices) - log P(no choices) after embeddings [B, T, D], in float32; raises GuardError where yes or no is never one token."""
    yes, no = (_one_token_choices(student, text, choices) for choices in (text.yes_choices, text.no_choices))
    dtype = student.model.get_input_embeddings().weight.dtype

    def values(embeddings: Tensor) -> Tensor:
        logits: Tensor = student.model(inputs_embeds=embeddings.to(dtype), logits_to_keep=1, use_cache=False).logits[:, -1].float()
        return logits[:, yes].logsumexp(dim=1) - logits[:, no].logsumexp(dim=1)

    return values


def _one_token_choices(student: Student, text: Attributable, choices: Sequence[str]) -> list[int]:
    """Choices of several tokens are left out: they are said in no single place. The likely forms of yes and no are one token in most vocabularies."""
    prefix = "".join(text.prefix)
    before = text_ids(student.tokenizer, prefix)
    after = [text_ids(student.tokenizer, prefix + choice) for choice in choices]
    found = [ids[-1] for ids in after if len(ids) == len(before) + 1 and ids[:-1] == before]
    if not found:
        raise GuardError(
            f"None of {', '.join(map(repr, choices))} is one token for this student, so no verdict has a place; set recipe.attribute.questions to 0"
        )
    return found


class Token(NamedTuple):
    """One token of a text: its id, its role and the stretch of the text that it stands for; these stretches together are the text."""

    id: int
    role: str
    text: str


def read_tokens(student: Student, text: Attributable) -> list[Token]:
    """The ids that the student reads, and what each is. Special tokens and everything around the user turn are template."""
    tokenizer = student.tokenizer
    prompt, prefix = "".join(text.prompt), "".join(text.prefix)
    rendered = render_prompt(tokenizer, prompt)
    start = rendered.find(prompt)
    if start < 0:
        raise GuardError(
            f"This student's chat template changes the prompt of question {text.qid}, so its parts cannot be told apart; set recipe.attribute.questions to 0"
        )
    shown = [Part(rendered[:start], TEMPLATE), *map(Part, text.prompt, text.prompt_roles), Part(rendered[start + len(prompt) :], TEMPLATE)]
    written = list(map(Part, text.prefix, text.prefix_roles))
    return _tokens(tokenizer, shown, prompt_ids(tokenizer, prompt), special=tokenizer.chat_template is None) + _tokens(
        tokenizer, written, text_ids(tokenizer, prefix), special=False
    )


def _tokens(tokenizer: PreTrainedTokenizerBase, parts: Sequence[Part], ids: Sequence[int], *, special: bool) -> list[Token]:
    """A token has the role of its first character that is no space."""
    text = "".join(part.text for part in parts)
    roles = [part.role for part in parts for _ in part.text]
    try:
        places = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)["offset_mapping"]
    except NotImplementedError as error:
        raise StudentError("This student has no fast tokenizer, so no token can be found in its text; set recipe.attribute.questions to 0") from error
    tokens, reached = [], 0
    for place, (token, (start, end)) in enumerate(zip(ids, places, strict=True)):
        stop = max(end, reached) if place < len(ids) - 1 else len(text)
        first = next((char for char in range(start, end) if not text[char].isspace()), start)
        role = TEMPLATE if token in tokenizer.all_special_ids or start == end else roles[first]
        tokens.append(Token(token, role, text[reached:stop]))
        reached = stop
    return tokens


def _mask(tokens: Sequence[Token], roles: Sequence[str], like: Tensor) -> Tensor:
    """[T, 1]: which tokens have one of these roles."""
    return torch.tensor([token.role in roles for token in tokens], device=like.device)[:, None]
