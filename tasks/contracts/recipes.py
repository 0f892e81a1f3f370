"""What a profile may say. `recipe`, here, is what is computed and enters every address; `execution` is how it runs and never does.

Nothing here has a default: a profile is complete, and a number has one home, in YAML, with its reason beside it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.contracts.execution import Execution
from tasks.contracts.sections import Count, Positive, Rate, Section, Share, Weight


class Student(Section):
    """The small model. `revision` pins a hub commit; null means "resolve now and record"."""

    model: Annotated[str, Field(min_length=1)]  # "smollm2-135m-instruct" (built in), a hub id, or a folder
    revision: str | None
    quantization: Literal["nf4", "none"]  # nf4 = 4-bit with double quantisation (QLoRA)
    dtype: Literal["auto", "bfloat16", "float32"]  # auto = what this machine multiplies faster; a run and its addresses have the format itself

    @property
    def number_format(self) -> Literal["bfloat16", "float32"]:
        """`dtype` once a run has been opened, which settles "auto". Raises ValueError before."""
        if self.dtype == "auto":
            raise ValueError("the student's number format is still auto: open the profile's plan first")
        return self.dtype


class Sample(Section):
    """Questions per split. 0 = all there are. `path` / `split` belong to StrategyQA, null for built-in benchmarks."""

    train: Count
    dev: Count
    test: Count
    entity_disjoint: Count  # pocketqa only: questions between entities that no other split contains
    kinds: tuple[str, ...] | None  # pocketqa only: these kinds of question; null = all
    path: str | None
    split: str | None


class Draft(Section):
    """`model` is "student" (untrained) or the folder of an earlier accepted student under models/."""

    model: str
    max_new_tokens: Positive


class Teacher(Section):
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
    error_rate: Share | None  # of the yes questions; kind: simulated
    no_bias: Share | None  # of the no questions error_rate x (1 - no_bias) are wrong: that share of errors says "no" whatever the truth; kind: simulated


class Curate(Section):
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


class Lora(Section):
    """Low-rank adapters."""

    rank: Positive
    alpha: Positive
    dropout: Share
    targets: Literal["all-linear"] | tuple[str, ...]  # names miss fused projections; a guard refuses an adapter with holes


class Answers(Section):
    """What suits a short completion: an answer alone is hardly more than its verdict."""

    epochs: Positive
    learning_rate: Rate
    verdict_weight: Annotated[float, Field(ge=1.0, allow_inf_nan=False)]


class Sft(Section):
    """Supervised fine-tuning; Track A and Track B share every number but those of `track_a`."""

    init: Literal["base", "track_a"]
    reasoning: Literal["completion", "prompt"]  # where Track B's reasoning stands; in the prompt it gives the label away
    epochs: Positive
    learning_rate: Rate
    warmup: Share
    effective_batch: Positive
    max_length: Positive
    verdict_weight: Annotated[float, Field(ge=1.0, allow_inf_nan=False)]  # factor on the loss of the verdict, one token among a hundred
    track_a: Answers | None  # of Track A, its twin of as many steps and facts_only; null = the same as Track B
    direct_weight: Weight  # of the direct example trained beside a question's reasoning in Track B; 0 = none
    counterfactual_weight: Share  # weight of the flipped verdict after reasoning that leads to it, reasoning given (SCOTT); 0 = none
    select_questions: Count  # dev questions answered after each epoch to keep the best one; 0 = the last epoch
    lora: Lora


class PairRecipe(Section):
    """How preference pairs are made from the Track B student's own samples."""

    arms: tuple[Literal["reasoning", "rewrite"], ...]
    samples: Positive
    temperature: Rate
    max_new_tokens: Positive
    max_length_ratio: Annotated[float, Field(ge=1.0)]
    per_question: Positive


class Phase(Section):
    """Some epochs of preference training under one loss (ALGORITHMS 4)."""

    epochs: Positive
    beta: Rate
    cal: Literal["none", "batch_mean", "paper", "paper_beta"]
    dr: Literal["none", "paper"]
    drop_quantile: Share  # share of pairs masked out, the most suspicious first


class Align(Section):
    """Preference training from Track B: one trainer, one reference, several phases."""

    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    learning_rate: Rate
    warmup: Share
    effective_batch: Positive
    max_length: Positive
    cal_weight: Weight
    dr_beta: Rate
    nll_weight: Weight
    select_questions: Count  # dev questions read after each epoch to keep the best one, Track B included


AnyArm = Literal["direct", "reasoning", "rewrite", "self_consistency", "soft", "adaptive"]


class Headlines(Section):
    """The arm each model is judged by, fixed before a test split is read."""

    zero_shot: Literal["direct", "reasoning"]
    track_a: Literal["direct", "reasoning"]
    track_b: AnyArm
    aligned: AnyArm


class Grade(Section):
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


class Ablate(Section):
    """What the draft is worth to the aligned model: its rewrite arm under changed drafts. No arms = not asked."""

    arms: tuple[Literal["no_draft", "shuffled_draft", "neutral_draft", "draft_questions", "draft_verdict"], ...]
    questions: Count  # of the graded split, 0 = all
    shuffles: Positive  # how many derangements of the drafts, each with a seed of its own
    matched: bool  # also align a twin on the same pairs without drafts, and read it without


class Attribute(Section):
    """Integrated gradients of the verdict over the rewrite prompt, before and after preference training."""

    questions: Count  # of the graded split; 0 = not asked
    points: Positive  # intervals of the path from baseline to input, at first
    most_points: Positive  # intervals are doubled up to here while the attributions do not add up
    tolerance: Rate  # share of the change of the verdict's log-odds by which they may miss it


class Judge(Section):
    """Who says whether the aligned model's clarifying questions are better than Track B's."""

    kind: Literal["none", "openai", "simulated"]
    model: Annotated[str, Field(min_length=1)]  # of another family than the teacher, or it favours its own
    questions: Count  # of the graded split, 0 = all
    max_tokens: Positive
    labels: str | None  # JSONL of a person's verdicts on the same pairs, for kappa


class Explore(Section):
    """What a round's student is asked about the train questions, several times each."""

    arm: Literal["reasoning", "rewrite"]  # the prompt that the loop trains and is judged by; rewrite: the last accepted student writes the drafts
    questions: Count  # of the train questions, those held out of SFT first; 0 = all
    samples: Positive
    temperature: Rate
    hard_below: Share  # a question on which a smaller share of the samples is right is hard
    extra_samples: Count  # further samples of each hard question
    follows: Share  # a sample counts where its reasoning alone gives its verdict with this probability and another one does not; 0 = nothing is asked


class Gate(Section):
    """What a round's student must show on dev to replace the last accepted one (ALGORITHMS 5.5)."""

    min_gain: Annotated[float, Field(ge=-1.0, le=1.0)]  # over the best accuracy of those it descends from; negative = it may fall by this much
    worse_p: Share  # and a fall against the last accepted student must have at least this p (exact McNemar)
    max_yes_shift: Share  # of its share of "yes" from gold's; its parent's, where that is more
    max_unparsed: Share  # its parent's, where that is more
    max_length_change: Rate  # of its mean answer in tokens from the start student's, as a share of that
    min_chosen_log_ratio: Annotated[float, Field(le=0.0)]  # nats a token of the round's chosen texts, against the last accepted student
    max_hard_loss: Share  # fall of accuracy on the third of dev that the start student finds hardest
    max_drift: Rate  # nats a token between it and Track B, on answers that it draws itself
    drift_questions: Positive  # of dev, on which that is measured


class Stop(Section):
    """When the loop ends itself."""

    max_rounds: Positive
    rejections: Positive  # in a row
    flat_rounds: Positive  # accepted rounds in a row without a significant gain
    min_pair_yield: Share  # pairs a question, as a share of the first round's


class Loop(Section):
    """The self-guided loop: each round trains one more epoch on pairs of the last accepted student's own samples."""

    start: Literal["track_b", "aligned"]
    explore: Explore
    max_similarity: Share  # of two texts' words in order, from which a pair teaches nothing but the verdict token
    replay: Share  # share of a round's pairs that are the first alignment's
    phase: Phase
    learning_rate: Rate  # of the first round
    decay: Annotated[float, Field(gt=0.0, le=1.0)]  # factor on it after each accepted round
    nll_weight: Weight
    gate: Gate
    stop: Stop


class Guards(Section):
    """Guards that are switched off, in the open: the report names each."""

    allow: tuple[Literal["class_balance", "label_in_prompt", "lora_coverage", "verdict_fits"], ...]


class Recipe(Section):
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
    ablate: Ablate
    attribute: Attribute
    judge: Judge
    loop: Loop
    guards: Guards


class Profile(Section):
    """A complete profile: two halves and a name."""

    name: str
    recipe: Recipe
    execution: Execution
