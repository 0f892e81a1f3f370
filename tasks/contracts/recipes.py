"""What a profile may say. `recipe` is what is computed and enters every address; `execution` is how it runs and never does.

Nothing here has a default: a profile is complete, and a number has one home, in YAML, with its reason beside it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from tasks.contracts.rows import Arm

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
    kinds: tuple[str, ...] | None  # pocketqa only: these kinds of question; null = all
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
    ask: bool  # the reasoning answers the student's clarifying questions; false = the teacher sees neither draft nor questions
    select: Literal["all", "random", "uncertain", "disagreement"]  # which train questions are worth paying for, by the untrained student
    select_share: Share  # of the train questions that are asked about; 1 = all
    attempts: Positive  # asks per question before a cut or unparsed reply is recorded as such
    response_format: Literal["auto", "json_schema", "text"]  # auto = JSON schema for models known to keep to one
    recordings: tuple[str, ...]  # JSONL files with qid, question, reasoning, answer; kind: recorded
    error_rate: Share | None  # share of wrong verdicts; kind: simulated
    no_bias: Share | None  # share of those errors that say "no" whatever the truth; kind: simulated


class Curate(_Section):
    """What happens to a reply whose verdict is not gold, which of the others are kept, and how far class shares may move."""

    disagreement: Literal["drop", "resample", "rationalise", "consensus"]  # resample: ask again; consensus: drop also where the majority is not gold
    resamples: Count  # further samples of each question on which no reply agrees with gold; resample
    rationales: Positive  # different agreeing replies kept of a question
    min_words: Count  # shorter reasoning says nothing
    max_words: Positive  # longer reasoning is rambling, and costs tokens
    near_duplicate: Share  # Jaccard similarity of word triples from which two reasonings of a question count as one; 1 = only equal ones
    validate_with: Literal["none", "teacher"]  # a fresh pass must reach the verdict from the reasoning, and must not from another question's
    rebalance: Literal["none", "up_sample", "down_sample", "class_weight", "verdict_weight"]  # how the yes-share of the source is restored
    rationalised_weight: Share  # training weight of a row whose reasoning was written knowing the answer
    pair_share: Share  # share of train questions kept away from SFT, so that preference pairs show honest errors
    max_shift: Share  # largest allowed change of the yes-share by curation


class Lora(_Section):
    """Low-rank adapters."""

    rank: Positive
    alpha: Positive
    dropout: Share
    targets: Literal["all-linear"] | tuple[str, ...]  # names miss fused projections; a guard refuses an adapter with holes


class Sft(_Section):
    """Supervised fine-tuning; Track A and Track B share every number."""

    init: Literal["base", "track_a"]
    reasoning: Literal["completion", "prompt"]  # where Track B's reasoning stands; in the prompt it gives the label away
    epochs: Positive
    learning_rate: Rate
    warmup: Share
    effective_batch: Positive
    max_length: Positive
    verdict_weight: Annotated[float, Field(ge=1.0)]  # factor on the loss of the verdict, one token among a hundred
    direct_weight: Share  # weight of the direct example trained beside each reasoning example in Track B; 0 = none
    counterfactual_weight: Share  # weight of the flipped verdict after reasoning that leads to it, reasoning given (SCOTT); 0 = none
    select_questions: Count  # dev questions answered after each epoch to keep the best one; 0 = the last epoch
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


AnyArm = Literal["direct", "reasoning", "rewrite", "self_consistency", "soft", "adaptive"]


class Headlines(_Section):
    """The arm each model is judged by, fixed before a test split is read."""

    zero_shot: Literal["direct", "reasoning"]
    track_a: Literal["direct", "reasoning"]
    track_b: AnyArm
    aligned: AnyArm


class Grade(_Section):
    """What is measured. Headline arms read every question, the aligned model the first `aligned_questions`, side arms `arm_questions`; 0 = all."""

    split: Literal["dev", "test"]
    headline: Headlines
    aligned_questions: Count
    side_arms: tuple[AnyArm, ...]
    arm_questions: Count
    max_new_tokens: Positive
    samples: Positive  # chains a question in the self-consistency and soft arms
    temperature: Rate  # of those chains
    calibrate: bool  # show direct accuracy at a threshold chosen on dev beside the plain one
    unparsed: Literal["wrong", "as_no"]  # what a text without a verdict counts as; as_no is what the original project did
    controls: tuple[Literal["facts_only", "shuffled_rationale", "entity_prior", "entity_disjoint"], ...]
    bootstrap: Positive


class Guards(_Section):
    """Guards that are switched off, in the open: the report names each."""

    allow: tuple[Literal["class_balance", "label_in_prompt", "lora_coverage", "verdict_fits"], ...]


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
    guards: Guards


class TokenPrice(_Section):
    """Dollars per million tokens, for a model that the price table does not know. Null `cached_input` = as `input`."""

    input: Annotated[float, Field(ge=0.0)]
    cached_input: Annotated[float, Field(ge=0.0)] | None
    output: Annotated[float, Field(ge=0.0)]


class TeacherExecution(_Section):
    """How fast and how far the teacher may be asked."""

    mode: Literal["online", "batch"]  # batch: OpenAI's Batch API, half the price, up to a day
    requests_per_minute: Positive
    tokens_per_minute: Positive
    max_in_flight: Positive
    timeout_seconds: Rate
    tries: Positive  # HTTP calls for one reply, with growing waits between them, before the question counts as failed
    budget_usd: Rate | None  # spending cap of the whole ledger; null = none
    price: TokenPrice | None  # null = the published price; a paid model without one is refused
    max_failed_share: Share  # more questions than this without any reply fail the run; those are asked again by the next one
    shard: Positive  # questions a Prefect task
    poll_seconds: Rate  # between two looks at a running batch


class TrainExecution(_Section):
    """How training and generation use this machine."""

    device: Literal["auto", "cpu", "cuda"]
    processes: Positive  # training processes, one a GPU; the effective batch stays the same
    batch_tokens: Positive | None  # tokens computed at once; null = as many as fit
    gpu_memory_gib: Rate | None  # use no more than this of a GPU; null = all of it
    recompute: Literal["auto", "always", "never"]  # whole layers again in the backward; auto = only where a row would not fit otherwise
    compile: Literal["auto", "always", "never"]  # fused kernels on a GPU; auto = when the run is long enough to repay half a minute
    generate_batch: Positive


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


class Chains(NamedTuple):
    """How the chains of the sampled arms are drawn, for one question."""

    samples: int
    temperature: float


class Examination(NamedTuple):
    """How a model is asked on dev to choose its epoch."""

    arm: str
    max_new_tokens: int


class Reading(NamedTuple):
    """One model read on one split; `arms` says how many questions each arm reads, 0 = all. `chains` is None where no arm samples."""

    model: str
    split: str
    arms: dict[str, int]
    chains: Chains | None

    @property
    def asked(self) -> dict[str, int]:
        """The arms that the student is asked under; the adaptive one only chooses between their answers."""
        return {arm: size for arm, size in self.arms.items() if arm != Arm.ADAPTIVE}

    @property
    def adaptive(self) -> int | None:
        """How many questions the adaptive arm answers, 0 = all; None where it is not asked for."""
        return self.arms.get(Arm.ADAPTIVE)


_OF_TRAINED = (Arm.DIRECT, Arm.REASONING, Arm.REWRITE, Arm.SELF_CONSISTENCY, Arm.SOFT, Arm.ADAPTIVE)
SIDE_ARMS: dict[str, tuple[Arm, ...]] = {
    "zero_shot": (Arm.DIRECT, Arm.REASONING),  # no sampled arms: untrained chains seldom end, so eight of each would cost more than all else
    "track_b": _OF_TRAINED,
    "aligned": _OF_TRAINED,
}
SAMPLED = (Arm.SELF_CONSISTENCY, Arm.SOFT)
_PARTS = (Arm.DIRECT, Arm.REASONING)  # of the adaptive arm


def headline_arms(grade: Grade) -> dict[str, str]:
    """The arm that each model and control is judged by."""
    heads = grade.headline
    return {
        "zero_shot": heads.zero_shot,
        "track_a": heads.track_a,
        "track_a_matched": heads.track_a,
        "track_b": heads.track_b,
        "aligned": heads.aligned,
        "facts_only": heads.track_a,
        "shuffled_rationale": heads.track_b,
        "entity_prior": Arm.DIRECT,
    }


def exam_arm(headline: str) -> str:
    """The arm under which epochs are examined: the headline itself, or the single chain of which a derived one takes several."""
    return headline if headline in (Arm.DIRECT, Arm.REASONING, Arm.REWRITE) else Arm.REASONING.value


def readings(grade: Grade) -> list[Reading]:
    """Every reading that a grade recipe asks for: on dev what thresholds are chosen on, then models in the order of the result table."""
    heads = headline_arms(grade)
    sizes = {"aligned": grade.aligned_questions}
    controls = [name for name in ("facts_only", "shuffled_rationale") if name in grade.controls]
    wanted: dict[tuple[str, str], dict[str, int]] = {
        (model, grade.split): {heads[model]: sizes.get(model, 0)}
        | {arm.value: grade.arm_questions for arm in SIDE_ARMS.get(model, ()) if arm in grade.side_arms and arm != heads[model]}
        for model in ("zero_shot", "track_a", "track_a_matched", "track_b", "aligned", *controls)
    }
    if "entity_disjoint" in grade.controls:
        wanted |= {(model, "entity_disjoint"): {heads[model]: 0} for model in ("track_a", "track_b", "aligned")}
    wanted = {place: _with_parts(arms) for place, arms in wanted.items()}
    everything = {**_on_dev(wanted, grade), **wanted}
    chains = Chains(grade.samples, grade.temperature)
    return [Reading(model, split, arms, chains if set(SAMPLED) & arms.keys() else None) for (model, split), arms in everything.items()]


def _with_parts(arms: dict[str, int]) -> dict[str, int]:
    """With the arms that the adaptive one chooses between, on as many questions as it."""
    return _joined(arms, {part.value: arms[Arm.ADAPTIVE] for part in _PARTS}) if Arm.ADAPTIVE in arms else arms


def _on_dev(wanted: dict[tuple[str, str], dict[str, int]], grade: Grade) -> dict[tuple[str, str], dict[str, int]]:
    """What must be read on dev to choose thresholds there; nothing where dev is graded, because then it is read anyway."""
    needed: dict[tuple[str, str], dict[str, int]] = {}
    for (model, split), arms in wanted.items() if grade.split != "dev" else ():
        parts = {part.value: arms[Arm.ADAPTIVE] for part in _PARTS} if Arm.ADAPTIVE in arms else {}
        if grade.calibrate and split == grade.split and Arm.DIRECT in arms:
            parts[Arm.DIRECT.value] = 0
        if parts:
            needed[model, "dev"] = _joined(needed.get((model, "dev"), {}), parts)
    return needed


def _joined(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """All arms of both, each on the larger number of questions; 0 is the largest, it means all."""
    return {arm: 0 if 0 in (sizes := [each[arm] for each in (one, other) if arm in each]) else max(sizes) for arm in {**one, **other}}
