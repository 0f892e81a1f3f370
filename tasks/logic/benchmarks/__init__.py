"""Benchmarks by name. Each owns its questions, wording, parser and templates, so that training text and scoring text cannot drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from tasks.contracts.rows import Arm, Drafted, Question, Verdict
from tasks.logic import answers
from tasks.logic.benchmarks import judge_talk, pocketqa, strategyqa, teacher_talk, yes_no
from tasks.logic.sampling import Sampled


class Benchmark(Protocol):
    """What the stages ask of a benchmark.

    `classes` are its gold answers; a draft starts with `draft_prefix`; the choices score the direct arm after `direct_prefix`.
    """

    name: str
    classes: tuple[str, ...]
    draft_prefix: str
    direct_prefix: str
    yes_choices: tuple[str, ...]
    no_choices: tuple[str, ...]
    check_schema: Mapping[str, object]
    judge_schema: Mapping[str, object]

    def sample(self, *, rows: Sequence[Mapping[str, Any]], named_split: str | None, kinds: Sequence[str] | None, split: str, n: int, seed: int) -> Sampled:
        """`n` questions (0 = all) of `split`; `rows` and `named_split` are for benchmarks in a file, `kinds` for those that have kinds (None = all)."""

    def splits(
        self, *, rows: Sequence[Mapping[str, Any]], named_split: str | None, kinds: Sequence[str] | None, sizes: Mapping[str, int], seed: int
    ) -> dict[str, Sampled]:
        """Every split that there is: whole where the questions come from a file, `sizes` questions where they are generated."""

    def named_parts(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Question]]:
        """The parts of every published way to split the questions, "name/split"; {} where there is only one way."""

    def exemplars(self) -> frozenset[str]:
        """Ids of questions that stood as worked examples in the prompts of recorded teachers."""

    def draft_prompt(self, question: str) -> str:
        """What the drafter is asked."""

    def own_draft(self, text: str) -> str:
        """A drafter's text without what it makes up after its draft."""

    def parse_draft(self, text: str) -> yes_no.ParsedDraft:
        """The drafter's verdict and clarifying questions."""

    def prompt(self, arm: Arm, question: Drafted) -> str:
        """The user turn of one arm."""

    def given_prompt(self, question: str, reasoning: str) -> str:
        """The direct arm's user turn with a finished reasoning in it."""

    def completion(self, *, asked: Sequence[str], answered: Sequence[str], reasoning: str, answer: str) -> str:
        """The text that the reasoning and rewrite arms train."""

    def direct_completion(self, answer: str) -> str:
        """The text that the direct arm trains."""

    def parse(self, text: str, *, cut: bool) -> Verdict:
        """The verdict of a student's text."""

    def parse_skeleton(self, text: str) -> yes_no.ParsedSkeleton:
        """A completion taken apart."""

    def before_verdict(self, text: str) -> str:
        """A student's text up to the verdict, so that a choice can be read there."""

    def teacher_messages(self, question: Drafted, *, hint: bool, as_json: bool, ask: bool) -> tuple[dict[str, str], ...]:
        """Chat messages for the teacher. `hint` gives the gold facts and verdict away, `as_json` asks for an object of `reply_schema`; without `ask`
        neither draft nor questions stand in them."""

    def reply_schema(self, *, ask: bool) -> Mapping[str, object]:
        """The JSON schema of the teacher's reply."""

    def parse_teacher_reply(self, text: str, *, ask: bool, as_json: bool = False) -> teacher_talk.TeacherReply:
        """The teacher's reply taken apart; without `ask` it has no questions, with `as_json` it is an object or nothing."""

    def check_messages(self, question: Question, *, reasoning: str, as_json: bool) -> tuple[dict[str, str], ...]:
        """Chat messages that ask which verdict follows from `reasoning`; `as_json` asks for an object of `check_schema`."""

    def parse_check(self, text: str, *, as_json: bool = False) -> Verdict:
        """The verdict that follows, UNPARSED where none does, or no object where one was asked for."""

    def standalone(self, *, answered: Sequence[str], reasoning: str) -> str:
        """Reasoning that needs no questions before it, without a verdict."""

    def blinded(self, asked: Sequence[str]) -> tuple[str, ...]:
        """Clarifying questions as a judge may see them: without answers and verdicts."""

    def judge_messages(self, question: str, *, first: Sequence[str], second: Sequence[str], as_json: bool) -> tuple[dict[str, str], ...]:
        """Chat messages that compare two blinded sets of clarifying questions; `as_json` asks for an object of `judge_schema`."""

    def judge_instructions(self, *, as_json: bool) -> str:
        """The part of these messages that is the same for every pair."""

    def parse_preference(self, text: str) -> judge_talk.Preferred:
        """Which set a judge preferred, UNPARSED where its reply names none."""

    def template_rationale(self, question: Question) -> yes_no.Rationale:
        """A rationale out of gold facts, where no teacher answers."""

    def template_for(self, question: Question, *, ask: bool) -> yes_no.Rationale:
        """The same; without `ask` its reasoning stands alone, with no questions before it."""

    def entity_prior(self, train: Sequence[Question], questions: Sequence[Question]) -> list[Verdict]:
        """Verdicts of the baseline that knows names only."""


class _YesNo:
    """What the yes/no benchmarks share: their wording and its parsers."""

    classes: tuple[str, ...] = ("yes", "no")
    draft_prefix = yes_no.DRAFT_PREFIX
    direct_prefix = yes_no.DIRECT_PREFIX
    yes_choices: tuple[str, ...] = yes_no.YES_CHOICES
    no_choices: tuple[str, ...] = yes_no.NO_CHOICES
    check_schema: Mapping[str, object] = teacher_talk.CHECK_SCHEMA
    judge_schema: Mapping[str, object] = judge_talk.JUDGE_SCHEMA
    draft_prompt = staticmethod(yes_no.draft_prompt)
    own_draft = staticmethod(yes_no.own_draft)
    parse_draft = staticmethod(yes_no.parse_draft)
    given_prompt = staticmethod(yes_no.given_prompt)
    direct_completion = staticmethod(yes_no.direct_completion)
    parse_skeleton = staticmethod(yes_no.parse_skeleton)
    before_verdict = staticmethod(yes_no.before_verdict)
    teacher_messages = staticmethod(teacher_talk.teacher_messages)
    reply_schema = staticmethod(teacher_talk.reply_schema)
    parse_teacher_reply = staticmethod(teacher_talk.parse_teacher_reply)
    check_messages = staticmethod(teacher_talk.check_messages)
    parse_check = staticmethod(teacher_talk.parse_check)
    standalone = staticmethod(teacher_talk.standalone)
    blinded = staticmethod(judge_talk.blinded)
    judge_messages = staticmethod(judge_talk.judge_messages)
    judge_instructions = staticmethod(judge_talk.judge_instructions)
    parse_preference = staticmethod(judge_talk.parse_preference)
    completion = staticmethod(yes_no.skeleton)

    def prompt(self, arm: Arm, question: Drafted) -> str:
        """The user turn of one arm; only the rewrite arm shows the draft. Raises ValueError for an arm that has none of its own."""
        match arm:
            case Arm.DIRECT:
                return yes_no.direct_prompt(question.question)
            case Arm.REASONING:
                return yes_no.reasoning_prompt(question.question)
            case Arm.REWRITE:
                return yes_no.rewrite_prompt(question.question, question.draft)
            case Arm.NO_DRAFT:
                return yes_no.no_draft_prompt(question.question)
            case Arm.COUNTERFACTUAL:
                return yes_no.counterfactual_prompt(question.question)
        raise ValueError(f"the {arm} arm has no prompt")

    template_rationale: Callable[[Question], yes_no.Rationale]

    def template_for(self, question: Question, *, ask: bool) -> yes_no.Rationale:
        """A rationale out of gold facts, with clarifying questions or, without `ask`, with their answers in its reasoning."""
        said = self.template_rationale(question)
        return said if ask else yes_no.Rationale(asked=(), answered=(), reasoning=teacher_talk.standalone(answered=said.answered, reasoning=said.reasoning))

    def parse(self, text: str, *, cut: bool) -> Verdict:
        """The verdict of a student's text; none where it was cut."""
        return answers.parse_verdict(text, cut=cut)


class _PocketQA(_YesNo):
    name = "pocketqa"
    template_rationale = staticmethod(pocketqa.rationale)
    entity_prior = staticmethod(pocketqa.entity_prior)

    def sample(self, *, rows: Sequence[Mapping[str, Any]], named_split: str | None, kinds: Sequence[str] | None, split: str, n: int, seed: int) -> Sampled:
        """Generated questions; a built-in benchmark reads no file, so `rows` and `named_split` are not looked at."""
        return Sampled(questions=pocketqa.sample(split=split, n=n, seed=seed, kinds=kinds), excluded={})

    def splits(
        self, *, rows: Sequence[Mapping[str, Any]], named_split: str | None, kinds: Sequence[str] | None, sizes: Mapping[str, int], seed: int
    ) -> dict[str, Sampled]:
        """As many questions as are asked for: there are thousands."""
        return {split: self.sample(rows=rows, named_split=named_split, kinds=kinds, split=split, n=n, seed=seed) for split, n in sizes.items() if n}

    def named_parts(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Question]]:
        """None: its splits are its own."""
        return {}

    def exemplars(self) -> frozenset[str]:
        """None: its prompts show no worked example."""
        return frozenset()


class _StrategyQA(_YesNo):
    name = "strategyqa"
    template_rationale = staticmethod(teacher_talk.template_rationale)
    named_parts = staticmethod(strategyqa.named_parts)
    exemplars = staticmethod(strategyqa.exemplars)

    def sample(self, *, rows: Sequence[Mapping[str, Any]], named_split: str | None, kinds: Sequence[str] | None, split: str, n: int, seed: int) -> Sampled:
        """Questions out of official rows under one of the named splits."""
        return strategyqa.sample(rows=rows, named_split=named_split or "", split=split, n=n, seed=seed)

    def splits(
        self, *, rows: Sequence[Mapping[str, Any]], named_split: str | None, kinds: Sequence[str] | None, sizes: Mapping[str, int], seed: int
    ) -> dict[str, Sampled]:
        """The parts of the named split that the rows hold, less what `sample` leaves out."""
        read = strategyqa.read_questions(rows, named_split=named_split or "")
        return {split: found for split, found in read.items() if found.questions}

    def entity_prior(self, train: Sequence[Question], questions: Sequence[Question]) -> list[Verdict]:
        """StrategyQA names no entities; the profile refuses this control, so a call is a programming error."""
        raise ValueError("strategyqa has no entities to build a prior from; use it with pocketqa")


_BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (_PocketQA(), _StrategyQA())}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark called `name`; KeyError for a name that no profile accepts."""
    return _BENCHMARKS[name]
