"""What a profile may say. `recipe` is what is computed and enters every address; `execution` is how it runs and never does.

Nothing here has a default: a profile is complete, and a number has one home, in YAML, with its reason beside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.contracts.failures import ProfileError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Student(_Section):
    """The small model. `revision` pins a hub commit; null means "resolve now and record"."""

    model: Annotated[str, Field(min_length=1)]  # "smollm2-135m-instruct" (built in), a hub id, or a folder
    revision: str | None
    quantization: Literal["nf4", "none"]  # nf4 = 4-bit with double quantisation (QLoRA)
    dtype: Literal["bfloat16", "float32"]


class Sample(_Section):
    """Questions per split. 0 = all there are. `path` / `split` belong to StrategyQA, null for built-in benchmarks."""

    train: Count
    dev: Count
    test: Count
    entity_disjoint: Count  # pocketqa only: questions between entities that no other split contains
    path: str | None
    split: str | None


class Draft(_Section):
    """`model` is "student" (untrained) or the folder of an earlier accepted student under models/."""

    model: str
    max_new_tokens: Positive


class Teacher(_Section):
    """Who answers the student. Fields that belong to one kind only are null elsewhere."""

    kind: Literal["openai", "simulated", "recorded"]
    model: Annotated[str, Field(min_length=1)]
    samples: Positive
    temperature: Annotated[float, Field(ge=0.0, le=2.0)]
    max_tokens: Positive
    attempts: Positive  # asks per question before a cut or unparsed reply is recorded as such
    recordings: tuple[str, ...]  # JSONL files with qid, question, reasoning, answer; kind: recorded
    error_rate: Share | None  # share of wrong verdicts; kind: simulated
    no_bias: Share | None  # share of those errors that say "no" whatever the truth; kind: simulated


class Curate(_Section):
    """What happens to a reply whose verdict is not gold, and how far class shares may move."""

    disagreement: Literal["drop", "rationalise"]
    rationalised_weight: Share  # training weight of a row whose reasoning was written knowing the answer
    pair_share: Share  # share of train questions kept away from SFT, so that preference pairs show honest errors
    max_shift: Share  # largest allowed change of the yes-share by curation


class Lora(_Section):
    """Low-rank adapters on every linear layer."""

    rank: Positive
    alpha: Positive
    dropout: Share


class Sft(_Section):
    """Supervised fine-tuning; Track A and Track B share every number."""

    init: Literal["base", "track_a"]
    epochs: Positive
    learning_rate: Rate
    warmup: Share
    effective_batch: Positive
    max_length: Positive
    direct_weight: Share  # weight of the direct example trained beside each reasoning example in Track B; 0 = none
    lora: Lora


class PairRecipe(_Section):
    """How preference pairs are made from the Track B student's own samples."""

    arms: tuple[Literal["reasoning", "rewrite"], ...]
    samples: Positive
    temperature: Rate
    max_new_tokens: Positive
    max_length_ratio: Annotated[float, Field(ge=1.0)]
    per_question: Positive


class Phase(_Section):
    """Some epochs of preference training under one loss (ALGORITHMS 4)."""

    epochs: Positive
    beta: Rate
    cal: Literal["none", "batch_mean", "paper", "paper_beta"]
    dr: Literal["none", "paper"]
    drop_quantile: Share  # share of pairs masked out, the most suspicious first


class Align(_Section):
    """Preference training from Track B: one trainer, one reference, several phases."""

    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    learning_rate: Rate
    warmup: Share
    effective_batch: Positive
    max_length: Positive
    cal_weight: Annotated[float, Field(ge=0.0)]
    dr_beta: Rate
    nll_weight: Annotated[float, Field(ge=0.0)]
    select_questions: Count  # dev questions read after each epoch to keep the best one, Track B included


class Headlines(_Section):
    """The arm each model is judged by, fixed before a test split is read."""

    zero_shot: Literal["direct", "reasoning"]
    track_a: Literal["direct", "reasoning"]
    track_b: Literal["direct", "reasoning", "rewrite"]
    aligned: Literal["direct", "reasoning", "rewrite"]


class Grade(_Section):
    """What is measured. Arms beside the headlines are read on the first `arm_questions` questions (0 = all)."""

    split: Literal["dev", "test"]
    headline: Headlines
    arm_questions: Count
    max_new_tokens: Positive
    controls: tuple[Literal["facts_only", "shuffled_rationale", "entity_prior", "entity_disjoint"], ...]
    bootstrap: Positive


class Recipe(_Section):
    """Everything that decides what a run computes."""

    seed: Count
    benchmark: Literal["pocketqa", "strategyqa"]
    student: Student
    sample: Sample
    draft: Draft
    teacher: Teacher
    curate: Curate
    sft: Sft
    pair: PairRecipe
    align: Align
    grade: Grade


class TeacherExecution(_Section):
    """How fast and how far the teacher may be asked."""

    requests_per_minute: Positive
    tokens_per_minute: Positive
    max_in_flight: Positive
    timeout_seconds: Rate
    budget_usd: Rate | None  # spending cap of the whole ledger; null = none


class TrainExecution(_Section):
    """How training and generation use this machine. `device_batch` must divide the effective batches."""

    device: Literal["auto", "cpu", "cuda"]
    device_batch: Positive
    generate_batch: Positive
    gradient_checkpointing: bool


class Execution(_Section):
    """Everything that decides how a run goes, never what it computes."""

    root: str  # folder that holds data/ and models/
    ledger: str  # SQLite file of teacher replies, relative to root
    teacher: TeacherExecution
    train: TrainExecution


class Profile(_Section):
    """A complete profile: two halves and a name."""

    name: str
    recipe: Recipe
    execution: Execution


class Track(StrEnum):
    """A fine-tuning variant; the names of the result table."""

    TRACK_A = "track_a"
    TRACK_A_MATCHED = "track_a_matched"
    TRACK_B = "track_b"
    FACTS_ONLY = "facts_only"
    SHUFFLED_RATIONALE = "shuffled_rationale"


def load_profile(source: str, *, folder: Path, overrides: Mapping[str, object]) -> Profile:
    """Read a profile by name (from `folder`) or by path, apply `path=value` overrides and check everything.

    Raises ProfileError with every fault at once: unknown, missing or ill-typed keys, absent files, batches that do not divide,
    fields that the chosen teacher or benchmark needs or does not know.
    """
    path = Path(source) if source.endswith((".yaml", ".yml")) else folder / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none found"
        raise ProfileError(source, [f"no such profile; known ones: {known}; or give the path of a YAML file"])
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileError(str(path), [f"cannot be read as YAML: {error}"]) from error
    if not isinstance(tree, dict):
        raise ProfileError(str(path), ["must hold two sections, `recipe` and `execution`"])
    faults = [fault for key, value in overrides.items() if (fault := _override(tree, key, value))]
    try:
        profile = Profile(name=path.stem, **tree)
    except TypeError:
        raise ProfileError(str(path), [*faults, "the key `name` is the file's name; remove it"]) from None
    except ValidationError as error:
        raise ProfileError(str(path), [*faults, *(_explain(dict(item)) for item in error.errors())]) from None
    faults += _contradictions(profile)
    if faults:
        raise ProfileError(str(path), faults)
    return profile


def _override(tree: dict[str, Any], key: str, value: object) -> str | None:
    """Set `key` (dotted) in `tree`; returns what is wrong with it, if anything."""
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        close = difflib.get_close_matches(key, list(_paths(tree)), n=1)
        return f"override {key}: no such key" + (f"; did you mean {close[0]}?" if close else "")
    node[last] = value
    return None


def _paths(tree: object, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return [prefix]
    return [path for key, value in tree.items() for path in _paths(value, f"{prefix}.{key}" if prefix else str(key))]


def _explain(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or check the spelling"
    if error["type"] == "missing":
        return f"{where}: missing; a profile is complete, copy the line from deployments/profiles/demo.yaml"
    return f"{where}: {error['msg']} (got {error['input']!r})"


def _contradictions(profile: Profile) -> list[str]:
    """Faults between fields, in plain words."""
    recipe, train = profile.recipe, profile.execution.train
    faults = [
        f"{name}.effective_batch {batch} is not a multiple of execution.train.device_batch {train.device_batch}"
        for name, batch in (("recipe.sft", recipe.sft.effective_batch), ("recipe.align", recipe.align.effective_batch))
        if batch % train.device_batch
    ]
    faults += _teacher_faults(recipe.teacher)
    faults += _sample_faults(recipe)
    if recipe.align.select_questions and recipe.sample.dev and recipe.align.select_questions > recipe.sample.dev:
        faults.append(f"recipe.align.select_questions {recipe.align.select_questions} is more than recipe.sample.dev {recipe.sample.dev}")
    return faults


def _teacher_faults(teacher: Teacher) -> list[str]:
    faults = []
    if teacher.kind == "recorded" and not teacher.recordings:
        faults.append("recipe.teacher.recordings: a recorded teacher needs at least one JSONL file; set it with --set recipe.teacher.recordings=[FILE]")
    faults += [f"recipe.teacher.recordings: no such file {name}" for name in teacher.recordings if not Path(name).is_file()]
    if teacher.kind == "simulated" and (teacher.error_rate is None or teacher.no_bias is None):
        faults.append("recipe.teacher: a simulated teacher needs error_rate and no_bias")
    return faults


def _sample_faults(recipe: Recipe) -> list[str]:
    sample = recipe.sample
    if recipe.benchmark == "pocketqa":
        faults = ["recipe.sample.path: pocketqa is built in; set it to null"] if sample.path else []
        return faults + ["recipe.sample: pocketqa has thousands of questions; give train, dev and test a size"] * (0 in (sample.train, sample.dev, sample.test))
    faults = []
    if not sample.path:
        faults.append("recipe.sample.path: strategyqa needs its question file (JSON or JSONL) or a hub id; set it with --set recipe.sample.path=FILE")
    if sample.split not in ("hub", "finetune_cot", "author"):
        faults.append(f"recipe.sample.split: {sample.split!r} is not one of hub, finetune_cot, author")
    if sample.entity_disjoint or {"entity_disjoint", "entity_prior"} & set(recipe.grade.controls):
        faults.append("recipe.grade.controls: entity controls exist for pocketqa only")
    return faults
