"""What a verdict rests on: texts cut into the parts whose weight is asked for, and what their attributions say about the claim.

Attributions are shares of absolute values, so that parts which speak against the verdict count as much as those which speak for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import NamedTuple

from tasks.contracts.evidence import AttributionEvidence, Gain, Mass
from tasks.contracts.rows import Arm, Attributable, Attributed, Completion, Drafted, TokenShare, Verdict
from tasks.logic.benchmarks import Benchmark
from tasks.logic.scores import Finding
from tasks.logic.statistics import mean_bootstrap

QUESTION, CHAIN, TEMPLATE = "question", "chain", "template"
DRAFT = ("draft_questions", "draft_verdict", "draft_other")
CONTENT = (QUESTION, *DRAFT)  # what integrated gradients replace by their baseline, as masking does; the rest keeps its value, the model's own chain too
LEAST_MASS = 0.20  # of the prompt's content, on the draft
_MARKS = ("\ue000", "\ue001")  # private-use characters: no question and no draft has them
_ANSWER = re.compile(r"answer:", re.IGNORECASE)


class Part(NamedTuple):
    """A stretch of text and its role."""

    text: str
    role: str


def attributables(rows: Sequence[Drafted], chains: Sequence[Completion], *, model: str, draft: str, benchmark: Benchmark) -> list[Attributable]:
    """The texts after which each model says yes or no: the rewrite prompt of `rows`, and its own chain after it, in the same order.

    `draft` names whose drafts the rows carry: own | shuffled.
    """
    texts = []
    for row, chain in zip(rows, chains, strict=True):
        prompt, prefix = prompt_parts(row, benchmark=benchmark), chain_parts(chain.text, benchmark=benchmark)
        texts.append(
            Attributable(
                qid=row.qid,
                model=model,
                draft=draft,
                prompt=tuple(part.text for part in prompt),
                prompt_roles=tuple(part.role for part in prompt),
                prefix=tuple(part.text for part in prefix),
                prefix_roles=tuple(part.role for part in prefix),
                yes_choices=benchmark.yes_choices,
                no_choices=benchmark.no_choices,
            )
        )
    return texts


def prompt_parts(row: Drafted, *, benchmark: Benchmark) -> list[Part]:
    """The rewrite prompt in parts, none empty. What stands where is read off the prompt of another question and draft, so the wording has one home."""
    question, draft = _MARKS
    before, rest = benchmark.prompt(Arm.REWRITE, replace(row, question=question, draft=draft)).split(question)
    between, after = rest.split(draft)
    prompt = benchmark.prompt(Arm.REWRITE, row)
    said = prompt[len(before) + len(row.question) + len(between) : len(prompt) - len(after)]
    parts = [Part(before, TEMPLATE), Part(row.question, QUESTION), Part(between, TEMPLATE), *draft_parts(row, said), Part(after, TEMPLATE)]
    return [part for part in parts if part.text]


def draft_parts(row: Drafted, said: str) -> list[Part]:
    """The draft as the prompt shows it: its clarifying questions, the word of its verdict, and everything else."""
    spans = []
    for question in row.draft_questions:
        text = " ".join(question.split())
        start = said.find(text)
        if start >= 0:
            spans.append((start, start + len(text), DRAFT[0]))
    word = _verdict_word(said, Verdict(row.draft_verdict), taken=[(start, end) for start, end, _ in spans])
    if word is not None:
        spans.append((*word, DRAFT[1]))
    return _cut(said, sorted(spans))


def _verdict_word(said: str, verdict: Verdict, *, taken: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Where the draft says its verdict: the first such word after its last "Answer:", else the last one, outside its questions."""
    found = [match.span() for match in re.finditer(rf"\b{verdict}\b", said, re.IGNORECASE)] if verdict is not Verdict.UNPARSED else []
    words = [(start, end) for start, end in found if not any(first < end and start < last for first, last in taken)]
    label = max((match.end() for match in _ANSWER.finditer(said)), default=0)
    return next((word for word in words if label and word[0] >= label), words[-1] if words else None)


def _cut(text: str, spans: Sequence[tuple[int, int, str]]) -> list[Part]:
    """Text cut at the spans, which are in order; one that begins before the last one ended is left out."""
    parts, reached = [], 0
    for start, end, role in spans:
        if start >= reached:
            parts += [Part(text[reached:start], DRAFT[2]), Part(text[start:end], role)]
            reached = end
    return [part for part in [*parts, Part(text[reached:], DRAFT[2])] if part.text]


def chain_parts(text: str, *, benchmark: Benchmark) -> list[Part]:
    """The student's own turn up to its verdict. The verdict's label is template: without it nobody could tell that yes or no comes next."""
    before = benchmark.before_verdict(text)
    label = benchmark.before_verdict("")
    assert before.endswith(label)
    return [part for part in (Part(before.removesuffix(label), CHAIN), Part(label, TEMPLATE)) if part.text]


class Shares(NamedTuple):
    """Where one text's attribution lies, as shares of the prompt's content."""

    mass: float
    token_share: float
    verdict_mass: float
    verdict_share: float
    questions_mass: float
    questions_share: float

    @property
    def enrichment(self) -> float:
        """The draft's mass over the mass that chance would give it."""
        return self.mass / self.token_share


def shares(tokens: Sequence[TokenShare]) -> Shares:
    """Of one text's tokens. A text whose prompt has no attribution at all is as good as chance: its masses are its token shares."""
    weight: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for token in tokens:
        weight[token.role] += abs(token.attribution)
        count[token.role] += 1
    counted = sum(count[role] for role in CONTENT)
    weighed = sum(weight[role] for role in CONTENT)

    def mass(*roles: str) -> float:
        return sum(weight[role] for role in roles) / weighed if weighed else share(*roles)

    def share(*roles: str) -> float:
        return sum(count[role] for role in roles) / counted

    questions, verdict, _ = DRAFT
    return Shares(mass(*DRAFT), share(*DRAFT), mass(verdict), share(verdict), mass(questions), share(questions))


def attribution_evidence(
    texts: Sequence[Attributed], tokens: Sequence[TokenShare], *, questions: int, before: str, after: str, resamples: int, seed: int
) -> AttributionEvidence:
    """What the attributions of model `before` and `after` (own drafts) and of `after` with shuffled drafts say. See `verdict`.

    `questions` is how many were asked for. Texts that did not add up are excluded and counted; gains pair the questions that are left on both sides.
    """
    by_text: dict[tuple[str, str, str], list[TokenShare]] = defaultdict(list)
    for token in tokens:
        by_text[token.model, token.draft, token.qid].append(token)
    sides = {before: (before, "own"), after: (after, "own"), f"{after}_shuffled": (after, "shuffled")}
    found = {name: [text for text in texts if (text.model, text.draft) == side] for name, side in sides.items()}
    kept = {name: {text.qid: shares(by_text[text.model, text.draft, text.qid]) for text in side if text.complete} for name, side in found.items()}
    masses = {name: _mean(list(kept[name].values()), [text.masked for text in side if text.complete]) for name, side in found.items() if kept[name]}
    gain = _gain(kept[after], kept[before], resamples=resamples, seed=seed)
    return AttributionEvidence(
        questions=questions,
        excluded={name: sum(not text.complete for text in side) for name, side in found.items()},
        within_tolerance=sum(text.complete for text in texts) / len(texts) if texts else 0.0,
        median_error=median(text.error for text in texts) if texts else 0.0,
        worst_error=max((text.error for text in texts), default=0.0),
        median_points=float(median(text.points for text in texts)) if texts else 0.0,
        masses=masses,
        enrichment_gain=gain,
        shuffled_gain=_gain(kept[after], kept[f"{after}_shuffled"], resamples=resamples, seed=seed),
        verdict=verdict(masses.get(after), gain),
    )


def verdict(mass: Mass | None, gain: Gain) -> Finding:
    """Pass where at least a fifth of the prompt's attribution lies on the draft and enrichment surely grew; fail where either is surely not so."""
    if mass is None:
        return Finding.UNDERPOWERED
    if mass.mass < LEAST_MASS:
        return Finding.FAIL
    return Finding(gain.verdict)


def _mean(each: Sequence[Shares], masked: Sequence[float]) -> Mass:
    return Mass(
        n=len(each),
        mass=fmean(one.mass for one in each),
        token_share=fmean(one.token_share for one in each),
        enrichment=fmean(one.enrichment for one in each),
        verdict_mass=fmean(one.verdict_mass for one in each),
        verdict_share=fmean(one.verdict_share for one in each),
        questions_mass=fmean(one.questions_mass for one in each),
        questions_share=fmean(one.questions_share for one in each),
        masked=fmean(masked),
    )


def _gain(new: Mapping[str, Shares], old: Mapping[str, Shares], *, resamples: int, seed: int) -> Gain:
    """Of enrichment, over the questions that both have; too few of them show nothing."""
    differences = [new[qid].enrichment - old[qid].enrichment for qid in sorted(new.keys() & old.keys())]
    if len(differences) < 2:
        only = sum(differences)
        return Gain(difference=only, ci_low=only, ci_high=only, verdict=Finding.UNDERPOWERED)
    low, high = mean_bootstrap(differences, resamples=resamples, seed=seed)
    found = Finding.PASS if low > 0 else Finding.FAIL if high < 0 else Finding.UNDERPOWERED
    return Gain(difference=fmean(differences), ci_low=low, ci_high=high, verdict=found)
