"""Preflight guards: known silent faults, turned into errors before training time is spent (DESIGN 6). Each raises GuardError or returns what it saw.

Those that a recipe may switch off take `allowed`, and tell it what they find.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tasks.contracts.failures import GuardError
from tasks.contracts.rows import Verdict
from tasks.logic.answers import parse_verdict
from tasks.training.completions import packed_log_probs, per_completion
from tasks.training.packing import Bundle, pack
from tasks.training.tokens import Tokens, prompt_ids

# Nats per token by which two forwards of the same weights may differ when only the padding differs.
ROUNDING = {torch.float32: 2e-4, torch.bfloat16: 0.02}
LN2_TOLERANCE = 0.005
_NO_PACKING = "this architecture cannot be packed. Use a student of the Llama, Mistral, Qwen 2 or Phi-3 kind"


class Allowed:
    """The guards that `recipe.guards.allow` switches off. What they find is kept in `found`, for the step's summary, instead of raised."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)
        self.found: dict[str, str] = {}

    def fault(self, guard: str, found: str, *, remedy: str) -> None:
        """Raise GuardError with what was found and what to do, or keep the former where the guard is switched off."""
        if guard not in self.names:
            raise GuardError(f"{found}. {remedy}, or switch this guard off in the open: name {guard} in recipe.guards.allow")
        self.found[guard] = found


def lora_coverage(model: Any, *, allowed: Allowed) -> list[str]:
    """Families of linear layers (`qkv_proj`, `down_proj`, ...) that carry the adapter; every one but the output head must, in every layer."""
    from peft.tuners.lora import LoraLayer

    head = model.get_output_embeddings()
    adapted = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    covered: set[str] = set()
    missing: Counter[str] = Counter()
    for name, module in model.named_modules():
        parent, _, last = name.rpartition(".")
        if name in adapted:
            covered.add(last)
        elif isinstance(module, torch.nn.Linear) and module is not head and not _inside_lora(name, parent, adapted):
            missing[last] += 1
    if not covered:
        raise GuardError("The model carries no LoRA adapter; nothing would be trained")
    if missing:
        found = ", ".join(f"{family} ({count} layers)" for family, count in sorted(missing.items()))
        remedy = "Train it on all linear layers (recipe.sft.lora.targets: all-linear)"
        allowed.fault("lora_coverage", f"The LoRA adapter misses {found}; it covers only {', '.join(sorted(covered))}", remedy=remedy)
    return sorted(covered)


def labels_survive(rows: Sequence[Tokens], classes: Sequence[str], *, max_length: int, setting: str) -> int:
    """The longest row, in tokens; raises where a row is longer than `max_length`, counted by class: cutting would lose the verdict at its end."""
    longest = max(len(row.ids) for row in rows)
    cut = Counter(name or "plain text" for row, name in zip(rows, classes, strict=True) if len(row.ids) > max_length)
    if cut:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(cut.items()))
        raise GuardError(
            f"{setting} = {max_length} would cut the end off {cut.total()} of {len(rows)} rows ({counts}); the longest has {longest} tokens. Raise it"
        )
    return longest


def same_prompts(rows: Sequence[Tokens], prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises where a training row does not begin with exactly what generation will see for the same prompt."""
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        asked = prompt_ids(tokenizer, prompt)
        if list(row.ids[: row.prompt]) != asked:
            trained = tokenizer.decode(list(row.ids[: row.prompt]))
            raise GuardError(f"Row {index} is trained after {trained!r} but would be evaluated after {tokenizer.decode(asked)!r}; tokenise both the same way")


def no_label_in_prompt(prompts: Sequence[str], classes: Sequence[str], *, allowed: Allowed) -> None:
    """Raises where a prompt already holds a verdict: copying it is the least loss, and evaluation gives none to copy (ALGORITHMS 0.9)."""
    given = sum(bool(name) and parse_verdict(prompt) is not Verdict.UNPARSED for prompt, name in zip(prompts, classes, strict=True))
    if given:
        remedy = "Train the reasoning as the completion (recipe.sft.reasoning: completion)"
        allowed.fault("label_in_prompt", f"{given} of {len(prompts)} training prompts hold the verdict that their completion ends with", remedy=remedy)


def verdicts_fit(longest: Mapping[str, int], arms: Sequence[str], *, max_new_tokens: int, allowed: Allowed) -> None:
    """Raises where the longest completion that an arm was trained on (tokens with the end token) does not fit into `max_new_tokens`."""
    short = {arm: longest[arm] for arm in sorted(set(arms)) if longest.get(arm, 0) > max_new_tokens}
    if short:
        found = ", ".join(f"{arm} up to {tokens}" for arm, tokens in short.items())
        cuts = f"max_new_tokens = {max_new_tokens} cuts answers before their verdict: training completions have {found} tokens"
        allowed.fault("verdict_fits", cuts, remedy="Raise max_new_tokens")


def four_bit(model: torch.nn.Module) -> int:
    """How many layers are 4-bit; raises where none is, or where one holds something else or was repacked for inference."""
    from bitsandbytes.nn.modules import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    if not layers:
        raise GuardError("quantization is nf4 but no layer is 4-bit; this architecture is not quantised by bitsandbytes: set quantization to none")
    for layer in layers:
        state = getattr(layer.weight, "quant_state", None)
        if layer.weight.dtype != torch.uint8 or state is None or state.quant_type != "nf4":
            raise GuardError("A 4-bit layer does not hold NF4 weights; load the student afresh")
        if getattr(state, "packing_format_for_cpu", False):
            raise GuardError("A 4-bit layer was repacked for CPU inference, so gradients through it are zero; load the student through load_student")
    return len(layers)


@torch.no_grad()
def packing_is_exact(model: Any, bundles: Sequence[Bundle]) -> float:
    """The largest difference, in nats, between whole texts scored packed and each alone by the model's own forward; raises where it is more than rounding.

    Other tokens in the last row must not move the rows before it: shapes stay, so hardly any rounding differs, and a neighbour that is seen shows in any
    number format. Against the forward alone both whole texts and completions behind their shared prompts are read. Over a text rounding averages out (0.03
    nats a token were seen in bf16 on a GPU), over a verdict's two tokens it does not (0.6 nats of 8.5), so a completion is allowed what sixteen tokens are;
    architectures that do more between layers and head than the packed forward knows of are off by far more.
    """
    model.eval()
    device = next(model.parameters()).device

    def scored(rows: Sequence[Bundle]) -> list[float]:
        packed = pack(rows).to(device)
        return per_completion(packed_log_probs(model, packed), packed).tolist()

    together, beside = scored(bundles), scored([*bundles[:-1], _other_tokens(bundles[-1])])
    completions = [completion for bundle in bundles for completion in bundle.completions]
    for one, other, completion in zip(together[: -len(bundles[-1].completions)], beside, completions, strict=False):
        if abs(one - other) > ROUNDING[torch.float32] * 4 * len(completion):
            raise GuardError(f"A completion has log-probability {one:.3f} beside one row and {other:.3f} beside another: {_NO_PACKING}")
    rounding = ROUNDING.get(model.get_input_embeddings().weight.dtype, ROUNDING[torch.bfloat16])
    texts = [bundle.prompt + completion for bundle in bundles for completion in bundle.completions]
    alone = [_alone(model, text, device) for text in texts]
    worst = 0.0
    for what, packed, lengths in (
        ("text", scored([_without_prompt(bundle) for bundle in bundles]), [len(text) - 1 for text in texts]),
        ("completion", together, [min(len(completion), len(found)) for completion, found in zip(completions, alone, strict=True)]),
    ):
        for one, found, length in zip(packed, alone, lengths, strict=True):
            other = float(found[len(found) - length :].sum())
            if abs(one - other) > rounding * 4 * max(length, 16):
                raise GuardError(f"A {what} has log-probability {one:.3f} in a packed batch and {other:.3f} alone: {_NO_PACKING}")
            worst = max(worst, abs(one - other))
    return worst


def _without_prompt(bundle: Bundle) -> Bundle:
    """The same texts, of which all tokens but the first count."""
    rest = bundle.prompt[1:]
    return replace(bundle, prompt=bundle.prompt[:1], completions=tuple(rest + each for each in bundle.completions))


def _other_tokens(bundle: Bundle) -> Bundle:
    """A row of the same lengths that says something else."""
    token = bundle.completions[0][0]
    return replace(bundle, prompt=(token,) * len(bundle.prompt), completions=tuple((token,) * len(each) for each in bundle.completions))


def _alone(model: Any, text: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Log-probabilities of all tokens but the first [T - 1], by the model's own forward."""
    ids = torch.tensor([text], device=device)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    return logits.float().log_softmax(dim=-1).gather(1, ids[0, 1:, None])[:, 0]  # type: ignore[no-any-return]


def gradients_flow(model: Any, bundles: Sequence[Bundle]) -> int:
    """How many adapter matrices receive a gradient from these rows, after an evaluation forward; raises where one gets none.

    The evaluation forward comes first on purpose: it is what breaks the backward of repacked 4-bit layers. Leaves no gradient behind.
    """
    packed = pack(bundles).to(next(model.parameters()).device)
    model.eval()
    with torch.no_grad():
        packed_log_probs(model, packed)
    model.train()
    torch.autograd.backward(-packed_log_probs(model, packed).sum())
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if "lora_B" in name and parameter.requires_grad}
    dead = [name for name, grad in grads.items() if grad is None or not bool(grad.isfinite().all()) or not bool(grad.abs().sum() > 0)]
    model.zero_grad(set_to_none=True)
    if dead or not grads:
        first = f"first: {dead[0]}" if dead else "none is trainable"
        raise GuardError(f"{len(dead)} of {len(grads)} LoRA matrices get no usable gradient ({first}); load the student through load_student")
    return len(grads)


def starts_at_reference(gaps: Tensor, tokens: Tensor, *, beta: float, dtype: torch.dtype) -> dict[str, float]:
    """Loss and largest log-gap before the first step; the policy is the reference then, so they must be ln 2 and 0.

    `gaps` are d = a - b in nats and `tokens` the tokens of both completions [pairs]. Two forwards in another padding differ by rounding:
    2e-4 nats a token in float32, 0.02 in bfloat16, growing with the square root of the length as independent errors do.
    """
    loss = float(torch.nn.functional.softplus(-beta * gaps).mean())
    allowed = ROUNDING.get(dtype, ROUNDING[torch.bfloat16]) * tokens.float().sqrt() * math.sqrt(8)
    if abs(loss - math.log(2)) > LN2_TOLERANCE or bool((gaps.abs() > allowed).any()):
        raise GuardError(
            f"Before the first step the preference loss is {loss:.4f} (ln 2 = {math.log(2):.4f}) and the largest log-gap {float(gaps.abs().max()):.3f} nats: "
            "the stored reference log-probabilities are not those of this adapter; run the pair stage again"
        )
    return {"loss": loss, "largest_gap": float(gaps.abs().max())}


def one_reference(found: Sequence[str], *, expected: str) -> None:
    """Raises where a pair's reference log-probabilities come from another adapter than the one that training starts from."""
    strange = Counter(digest for digest in found if digest != expected)
    if strange:
        digest, count = strange.most_common(1)[0]
        raise GuardError(
            f"{strange.total()} of {len(found)} pairs carry reference log-probabilities of {digest[:12] or 'no adapter'} ({count}), not of {expected[:12]}; "
            "run the pair stage again for this adapter"
        )


def _inside_lora(name: str, parent: str, adapted: set[str]) -> bool:
    """Whether a linear layer is part of an adapted one: its base layer, or the adapter's own matrices."""
    return any(prefix in adapted for prefix in (parent, parent.rpartition(".")[0]))
