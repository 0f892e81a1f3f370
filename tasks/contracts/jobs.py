"""The training protocol: what a child process is asked to do, as one JSON file beside Parquet inputs.

`python -m tasks.training.worker JOB_DIR` reads `JOB_DIR/job.json`, does its steps in order and writes each step's output and
`result-<index>.json`. A step may read what an earlier one wrote, so a whole chain travels in one folder. Relative paths are relative to JOB_DIR.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.contracts.recipes import Align, Attribute, Sft

TEXTS, TOKENS = "texts.parquet", "tokens.parquet"  # in an AttributeStep's folder


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Weights(_Spec):
    """Which network to load: a folder of full weights, perhaps an adapter on top, and its number format."""

    model: str
    adapter: str  # "" = none
    quantization: Literal["nf4", "none"]
    dtype: Literal["bfloat16", "float32"]


class Machine(_Spec):
    """How the step may use the machine: `execution.train`, word for word."""

    device: Literal["auto", "cpu", "cuda"]
    processes: int
    batch_tokens: int | None
    gpu_memory_gib: float | None
    recompute: Literal["auto", "always", "never"]
    compile: Literal["auto", "always", "never"]
    generate_batch: int
    report_to: tuple[str, ...]


class ConvertStep(_Spec):
    """GGUF file -> safetensors folder with tokenizer, in `dtype`."""

    kind: Literal["convert"] = "convert"
    gguf: str
    dtype: Literal["bfloat16", "float32"]
    out: str


class SftStep(_Spec):
    """Fine-tune an adapter on `Example` rows. At most one of `steps` and `tokens` replaces `recipe.epochs` as the length of the run.

    With exams the best epoch is kept (ties: earlier), and training ends after two epochs without a better one unless its length is given.
    """

    kind: Literal["sft"] = "sft"
    name: str
    weights: Weights  # `adapter` set = continue from it
    examples: str  # Parquet of Example
    exams: str | None  # Parquet of Exam; None: the last epoch is kept
    exam_max_new_tokens: int
    recipe: Sft
    steps: int | None  # train exactly this many optimiser steps
    tokens: int | None  # train until this many non-padding tokens were seen
    allow: tuple[str, ...]  # guards that are switched off; the summary says what they found
    seed: int
    machine: Machine
    out: str  # folder: adapter_model.safetensors, adapter_config.json, history.json


class AnswerStep(_Spec):
    """Answer `Request` rows: generate, or score choices. Writes Parquet of Completion in the order asked."""

    kind: Literal["answer"] = "answer"
    name: str
    weights: Weights
    requests: str  # Parquet of Request
    max_new_tokens: int
    temperature: float  # 0 = greedy
    allow: tuple[str, ...]
    seed: int
    machine: Machine
    out: str


class ReferenceStep(_Spec):
    """Fill `reference_chosen`, `reference_rejected` and `reference` of `Pair` rows under `weights`; leave out those that are too long."""

    kind: Literal["reference"] = "reference"
    weights: Weights
    digest: str  # of the adapter, stored in each row
    pairs: str
    max_length: int
    machine: Machine
    out: str  # Parquet of Pair


class ScoreStep(_Spec):
    """Log-probabilities of `Spoken` rows under `weights`. Writes Parquet of Likelihood in the order asked."""

    kind: Literal["score"] = "score"
    name: str
    weights: Weights
    texts: str  # Parquet of Spoken; an earlier step may have written it
    machine: Machine
    out: str


class AlignStep(_Spec):
    """Preference-train the adapter over all phases, keep the epoch that answers `exams` best (epoch 0 = the start; ties: earlier)."""

    kind: Literal["align"] = "align"
    name: str
    weights: Weights
    reference: str  # digest that the pairs' reference log-probabilities must carry
    pairs: str
    exams: str  # Parquet of Exam, may be empty: then the last epoch is kept
    exam_max_new_tokens: int
    recipe: Align
    allow: tuple[str, ...]
    seed: int
    machine: Machine
    out: str


class ConsultStep(_Spec):
    """Answer questions of a person's own, greedily: the drafter's draft, then `arms` and the direct arm of the student. Parquet of Completion, by question."""

    kind: Literal["consult"] = "consult"
    name: str
    drafter: Weights
    weights: Weights  # with the adapter; loaded once where the rest is the drafter's
    benchmark: str  # whose wording is used
    questions: tuple[str, ...]
    arms: tuple[str, ...]
    draft_max_new_tokens: int
    max_new_tokens: int
    allow: tuple[str, ...]
    seed: int
    machine: Machine
    out: str


class AttributeStep(_Spec):
    """Integrated gradients of the verdict of `Attributable` rows. Writes a folder: Parquet of Attributed (`TEXTS`) and of TokenShare (`TOKENS`)."""

    kind: Literal["attribute"] = "attribute"
    name: str
    weights: Weights
    requests: str  # Parquet of Attributable
    recipe: Attribute
    machine: Machine
    out: str


Step = Annotated[ConvertStep | SftStep | AnswerStep | ReferenceStep | ScoreStep | AlignStep | AttributeStep | ConsultStep, Field(discriminator="kind")]


class Job(_Spec):
    """Steps in order."""

    steps: tuple[Step, ...]


class StepResult(_Spec):
    """What a finished step reports: its output path and plain figures (losses, tokens, seconds, guards passed)."""

    index: int
    kind: str
    out: str
    seconds: float
    summary: dict[str, Any]
