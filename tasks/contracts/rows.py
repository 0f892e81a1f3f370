"""Row classes: what one line of each stage's table holds.

Rows grow by inheritance (Question -> Drafted -> Taught -> Curated), so a stage reads one table and never joins.
The Parquet schema is derived from the class (`tasks.contracts.artifacts.arrow_schema`); fields are str, int, float,
bool or tuple[str, ...].
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """A yes/no answer as a value. UNPARSED is counted apart and is never read as No."""

    YES = "yes"
    NO = "no"
    UNPARSED = "unparsed"


class Outcome(StrEnum):
    """How asking the teacher about one question ended."""

    OK = "ok"
    UNPARSED = "unparsed"  # a whole reply without a verdict
    CUT = "cut"  # the reply ran into its token limit
    REFUSED = "refused"  # a content filter answered
    FAILED = "failed"  # no reply after all attempts, or a recording lacks the question


class Arm(StrEnum):
    """The prompt shape of an example, a pair or a prediction (DESIGN 4: the draft, decided once)."""

    DIRECT = "direct"  # question -> "Answer: Yes"
    REASONING = "reasoning"  # question -> clarifying questions, answers, reasoning, "Final answer: Yes"
    REWRITE = "rewrite"  # question + student draft -> the same skeleton as REASONING
    SELF_CONSISTENCY = "self_consistency"  # the majority of several reasoning chains
    SOFT = "soft"  # the mean, over such chains, of the probability of "yes" after each
    ADAPTIVE = "adaptive"  # direct where its margin is clear, else reasoning
    CALIBRATED = "calibrated"  # direct, its threshold chosen on dev
    NO_DRAFT = "no_draft"  # rewrite without the draft
    SHUFFLED_DRAFT = "shuffled_draft"  # rewrite of another question's draft; predictions number the shuffles: shuffled_draft_1, ...
    NEUTRAL_DRAFT = "neutral_draft"  # rewrite of words that say nothing, as many as the draft has
    DRAFT_QUESTIONS = "draft_questions"  # rewrite of the draft's clarifying questions alone
    DRAFT_VERDICT = "draft_verdict"  # rewrite of the draft's verdict alone
    COUNTERFACTUAL = "counterfactual"  # an argument for the other verdict, read and not learned; only training shows it
    FACTS = "facts"  # a fact as plain text; only the facts-only control trains it


@dataclass(frozen=True, kw_only=True)
class Question:
    """One labelled question of a benchmark. `answer` is gold in the benchmark's canonical form ("yes" / "no")."""

    qid: str
    split: str
    kind: str  # stratum inside the benchmark: pocketqa's comparison, "" where there is none
    term: str
    description: str
    question: str
    answer: str
    facts: tuple[str, ...]
    decomposition: tuple[str, ...]
    entities: tuple[str, ...]  # what is compared, for priors and entity-disjoint slices; () where unknown


@dataclass(frozen=True, kw_only=True)
class Drafted(Question):
    """A question with the drafter's answer and clarifying questions."""

    draft: str  # the student's text as it came, without further questions that it made up after its draft
    draft_verdict: str
    draft_questions: tuple[str, ...]
    drafter: str  # digest of the model that wrote the draft


@dataclass(frozen=True, kw_only=True)
class Taught(Drafted):
    """One teacher reply to one drafted question; several rows a question where `teacher.samples` > 1."""

    sample: int
    reply: str  # the teacher's text as it came, control characters stripped
    outcome: str
    verdict: str
    reasoning: str  # the step-by-step part, without the verdict
    asked: tuple[str, ...]  # clarifying questions as the teacher repaired or replaced them
    answered: tuple[str, ...]  # their answers, one each
    asked_source: str  # draft | teacher | gold: who worded `asked`
    hinted: bool  # the gold facts and verdict stood in the prompt
    teacher: str  # model name as the endpoint reported it
    note: str  # why a row has no usable reply
    attempts: int  # asks until this reply, re-asks included
    status: int  # HTTP status of the last call, 0 where no call got an answer
    request_id: str  # as the endpoint named it
    recovered: str  # verdict that a fresh pass reached from this reasoning without its verdict, "" where not asked
    unmoved: str  # verdict that a fresh pass reached from another question's reasoning, "" where not asked


@dataclass(frozen=True, kw_only=True)
class Curated(Taught):
    """A reply that passed curation, ready to be rendered as training text."""

    provenance: str  # agreed | rationalised | template | unasked: nobody asked the teacher, so only the direct example can be made
    weight: float  # of the row's own example, which is the direct one where there is no reasoning
    direct_weight: float  # of the question's direct example, whose label is gold however the reasoning was come by; 1 unless curation rebalances by weight
    verdict_factor: float  # on the loss of the verdict in the row's own example, beside recipe.sft.verdict_weight; 1 unless curation rebalances by it
    role: str  # sft | pair: which half of the train questions this one belongs to
    consensus: str  # what most of the teacher's own samples say, unparsed where none has a verdict or they tie
    consensus_margin: float  # share of the usable samples by which it leads, 0 to 1


@dataclass(frozen=True, kw_only=True)
class Example:
    """One supervised training example. Text only; the chat template and the end token are added when it is tokenised."""

    qid: str
    arm: str
    prompt: str
    completion: str
    answer: str  # class of the completion's verdict, "" for plain facts
    weight: float
    verdict_factor: float  # on the loss of the verdict, beside recipe.sft.verdict_weight
    reasoning_factor: float  # on the loss of what stands before the verdict; 0 = the student reads it and learns the verdict after it


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to ask a student. `choices` empty: generate; otherwise score each choice's log-probability after `prefix`."""

    qid: str
    arm: str
    sample: int
    prompt: str
    prefix: str  # text the assistant turn starts with
    yes_choices: tuple[str, ...]
    no_choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Exam(Request):
    """A Request whose gold answer the worker may see, to choose the best checkpoint on dev."""

    answer: str


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A student's reply to one Request. `margin` = log P(yes choices) - log P(no choices) in nats; nan when generated."""

    qid: str
    arm: str
    sample: int
    text: str
    tokens: int
    cut: bool  # stopped by the token limit, not by the end token
    margin: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A preference pair. Reference log-probabilities are summed over completion tokens, in nats, under `reference`."""

    qid: str
    arm: str
    prompt: str
    chosen: str
    rejected: str
    answer: str  # verdict of `chosen`
    chosen_source: str  # own | teacher
    rejected_source: str  # own
    kind: str  # what the pair teaches: draft_wrong | draft_right
    disagreement: float  # 0..1, higher = the label is more suspicious
    reference_chosen: float
    reference_rejected: float
    reference: str  # digest of the adapter that computed them, "" before


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One model's answer to one question under one arm."""

    qid: str
    split: str
    kind: str
    model: str
    arm: str
    question: str
    answer: str  # gold
    verdict: str
    text: str  # of several chains the first with this verdict
    tokens: int  # generated for it, over all chains
    cut: bool
    margin: float  # above 0 = yes; log-odds, for a vote the lead as a share of the chains; nan when one text was generated
    reason: str  # why the text has no verdict, "" where it has one; kept where it counts as "no"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One cell of the result table: a model under an arm on a split. Texts without a verdict are counted apart, whatever they count as."""

    model: str
    arm: str
    split: str
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    yes_rate: float  # share of "yes" among all n
    unparsed: int
    balanced_accuracy: float
    majority_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Attributable:
    """A text whose verdict is to be attributed. Its parts, put together, are what the student reads; each has the role that `TokenShare` names."""

    qid: str
    model: str
    draft: str  # own | shuffled: whose draft stands in the prompt
    prompt: tuple[str, ...]  # parts of the user turn
    prompt_roles: tuple[str, ...]  # one a part
    prefix: tuple[str, ...]  # parts of the student's own turn, up to where it says yes or no
    prefix_roles: tuple[str, ...]
    yes_choices: tuple[str, ...]
    no_choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Attributed:
    """Integrated gradients of one verdict: log P(yes) - log P(no) after the model's own chain, signed so that the answer that it gave counts positive."""

    qid: str
    model: str
    draft: str  # own | shuffled: whose draft stood in the prompt
    said: str  # yes | no
    change: float  # of that figure from baseline to input, in nats
    error: float  # |sum of attributions - change| / max(|change|, 0.5)
    points: int  # gradients taken on the path
    complete: bool  # error within the tolerance; others are excluded and counted
    masked: float  # fall of the figure when the draft alone is replaced by its baseline, in nats


@dataclass(frozen=True, kw_only=True)
class TokenShare:
    """One token of an attributed text, in order of `place`."""

    qid: str
    model: str
    draft: str
    place: int
    token: str
    role: str  # question | draft_questions | draft_verdict | draft_other | chain | template: kept at its own value, so its attribution is 0
    attribution: float  # nats


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A blinded comparison of two sets of clarifying questions for one question, asked in both orders. Winners: new | old | tie | unparsed."""

    qid: str
    question: str
    new: tuple[str, ...]  # the aligned model's clarifying questions
    old: tuple[str, ...]  # Track B's
    first: str  # winner when `new` was shown first
    second: str  # winner when `old` was shown first
    winner: str  # the same winner in both orders, else tie
    judge: str  # model name as the endpoint reported it
