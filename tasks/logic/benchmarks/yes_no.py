"""The wording of yes/no benchmarks: one home for what training writes and what scoring asks and reads back.

Prompts are plain user turns; the chat template is added where they are tokenised. Each begins with a tag that names its arm, so that one
adapter can learn several arms. They are short because a CPU tokenises and attends to them thousands of times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.contracts.rows import Verdict
from tasks.logic.answers import own_text, parse_verdict, turn

DRAFT_PREFIX = "Questions:"
DIRECT_PREFIX = "Answer:"
YES_CHOICES = (" Yes", " yes")  # all-capitals forms are several tokens in most vocabularies, would need a forward each, and no prompt shows them
NO_CHOICES = (" No", " no")
_ASKED, _ANSWERED, _REASONING, _FINAL = "Clarifying questions:", "Answers:", "Reasoning:", "Final answer:"
_REPLY = f"Reply `{DIRECT_PREFIX} Yes` or `{DIRECT_PREFIX} No`."
_SKELETON = f"Write clarifying questions, answers, reasoning and `{_FINAL} Yes` or `No`."
_DRAFTS = "".join(
    f"Question: {question}\n{DRAFT_PREFIX} {asked}\n{DIRECT_PREFIX} {guess}\n\n"
    for question, asked, guess in (
        ("Could a penguin live in the Sahara?", "How hot is the Sahara? Where do penguins live?", "No"),
        ("Is a whale heavier than a bus?", "What does a whale weigh? What does a bus weigh?", "Yes"),
        ("Did the ancient Egyptians play chess?", "When did the ancient Egyptians live? When was chess invented?", "No"),
    )
)
_NEXT_DRAFT = re.compile(r"\n\s*\n[ \t]*question[ \t]*:.*", re.IGNORECASE | re.DOTALL)  # the pattern of the examples, gone on with
_HEADING = re.compile(rf"^({_ASKED}|{_ANSWERED}|{_REASONING}|{_FINAL})", re.IGNORECASE | re.MULTILINE)
_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])?\s*(.*\S)", re.MULTILINE)
_CLARIFYING = re.compile(r"^[\s>#*_]*(?:clarifying\s+)?questions?[*_\s]*(?:\d+[*_\s]*)?:", re.IGNORECASE | re.MULTILINE)
_ASKING = re.compile(r"[^.!?\n]*[^.!?\s][^.!?\n]*\?")
_LIST_MARK = re.compile(r"^[\s>#*_-]*(?:\d+[.)]\s*)?(?:questions?[*_\s]*\d*[*_\s]*:)?[\s*_]*", re.IGNORECASE)
_MAX_DRAFT_QUESTIONS = 2


@dataclass(frozen=True, kw_only=True)
class Rationale:
    """What a teacher says about one question: clarifying questions, their answers (one each) and the reasoning, without the verdict."""

    asked: tuple[str, ...]
    answered: tuple[str, ...]
    reasoning: str


@dataclass(frozen=True, kw_only=True)
class ParsedDraft:
    """A drafter's verdict and its clarifying questions (at most two)."""

    verdict: Verdict
    questions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ParsedSkeleton(Rationale):
    """A completion in the shape of `skeleton`, taken apart."""

    verdict: Verdict


def word(answer: str) -> str:
    """The word that stands for a gold answer ("yes" or "no") in prompts and completions. Raises ValueError on anything else."""
    return {"yes": "Yes", "no": "No"}[Verdict(answer)]


def draft_prompt(question: str) -> str:
    """What the drafter is asked: two clarifying questions and a guess, shown on three examples, because a small untrained model echoes a description of them.

    Its turn starts with `DRAFT_PREFIX`, or it only guesses.
    """
    return f"[draft] Ask two short questions that would help to answer each question, then guess:\n\n{_DRAFTS}Question: {question}"


def direct_prompt(question: str) -> str:
    """The direct arm: the bare answer, scored at `DIRECT_PREFIX`."""
    return f"[direct] {question}\n{_REPLY}"


def given_prompt(question: str, reasoning: str) -> str:
    """The direct arm with a finished reasoning, verdict included, under the question: how the original project trained its Track B."""
    return f"[direct] {question}\n{reasoning}\n{_REPLY}"


def reasoning_prompt(question: str) -> str:
    """The reasoning arm: the skeleton, from the question alone."""
    return f"[reason] {question}\n{_SKELETON}"


def counterfactual_prompt(question: str) -> str:
    """The reasoning arm for an argument that leads to the other verdict; the tag tells the student that what follows is not its own view (SCOTT)."""
    return f"[counterfactual] {question}\n{_SKELETON}"


def rewrite_prompt(question: str, draft: str) -> str:
    """The rewrite arm: the skeleton, from the question and the drafter's own text (whitespace squeezed, cut at its turn's end)."""
    said = " ".join(turn(draft).split()) or "(empty)"
    return _rewrite(question, f"Student draft: {said}\n")


def no_draft_prompt(question: str) -> str:
    """The rewrite prompt without the line of the draft, and nothing else changed."""
    return _rewrite(question, "")


def direct_completion(answer: str) -> str:
    """`Answer: Yes` for gold "yes"."""
    return f"{DIRECT_PREFIX} {word(answer)}"


def skeleton(*, asked: Sequence[str], answered: Sequence[str], reasoning: str, answer: str) -> str:
    """The completion of the reasoning and rewrite arms; `answer` is "yes" or "no".

    A section that would be empty is left out, and so is reasoning that only repeats the answers.
    """
    parts = [f"{_ASKED}\n{_listed(asked)}"] if asked else []
    parts += [f"{_ANSWERED}\n{_listed(answered)}"] if answered else []
    parts += [f"{_REASONING} {_line(reasoning)}"] if reasoning.strip() and _line(reasoning) != _line(" ".join(answered)) else []
    return "\n".join([*parts, f"{_FINAL} {word(answer)}"])


def parse_skeleton(text: str) -> ParsedSkeleton:
    """Take a completion apart; sections that it lacks are empty."""
    said = own_text(text)
    pieces = _HEADING.split(said)
    sections = {heading.capitalize(): body for heading, body in zip(pieces[1::2], pieces[2::2], strict=True)}
    return ParsedSkeleton(
        asked=_items(sections.get(_ASKED, "")),
        answered=_items(sections.get(_ANSWERED, "")),
        reasoning=_line(sections.get(_REASONING, "")),
        verdict=parse_verdict(said),
    )


def before_verdict(text: str) -> str:
    """A student's own text up to and including the label of its verdict, the last one; a text without the label, such as a cut one, gets it."""
    said = own_text(text)
    labels = [found for found in _HEADING.finditer(said) if found.group(1).capitalize() == _FINAL]
    reasoned = said[: labels[-1].start()] if labels else said
    return f"{reasoned.rstrip()}\n{_FINAL}".lstrip()


def own_draft(text: str) -> str:
    """A drafter's text without the further questions that it makes up after its draft, as the prompt's examples go on."""
    return _NEXT_DRAFT.sub("", turn(text)).rstrip()


def parse_draft(text: str) -> ParsedDraft:
    """Read a draft: its first two distinct questions, wherever they stand, and the verdict of what is no question."""
    said = own_draft(text)
    _, *listed = _CLARIFYING.split(said, maxsplit=1)
    questions = (_LIST_MARK.sub("", found).strip() for found in _ASKING.findall(listed[0] if listed else said))
    kept = tuple(dict.fromkeys(question for question in questions if len(question.split()) > 1))[:_MAX_DRAFT_QUESTIONS]
    return ParsedDraft(verdict=parse_verdict(_ASKING.sub("", _CLARIFYING.sub("", said))), questions=kept)


def _rewrite(question: str, draft_line: str) -> str:
    return f"[rewrite] {question}\n{draft_line}Improve it. {_SKELETON}"


def _listed(items: Sequence[str]) -> str:
    """One item a line, without numbers: they carry nothing and cost a student three tokens each."""
    return "\n".join(_line(item) for item in items)


def _items(body: str) -> tuple[str, ...]:
    return tuple(found.group(1) for found in _ITEM.finditer(body))


def _line(text: str) -> str:
    return " ".join(text.split())
