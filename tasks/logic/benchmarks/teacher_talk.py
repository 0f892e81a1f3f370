"""What a teacher is asked about a yes/no question, and how its reply is read: ours, and the shapes of recorded teachers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.contracts.failures import DataError
from tasks.contracts.rows import Drafted, Question, Verdict
from tasks.logic.answers import object_in, own_text, parse_verdict, sentences, turn, unfenced
from tasks.logic.benchmarks.yes_no import Rationale, word
from tasks.logic.thoughts import without_thoughts

HINT_MARK = "What is known:"  # begins the part of a message that gives the gold facts away
CHECK_MARK = "Reasoning to check:"  # begins the part that is checked
_ANALYSIS, _STEPS, _ASSESSMENT = "## Teaching Analysis", "## Step-by-Step Reasoning", "## Final Assessment"
_TASK = """You teach a student to reason. You see a yes/no question, the student's draft and its clarifying questions.
Keep, repair or replace the clarifying questions: one to three whose answers settle the matter. Answer each in one short sentence. \
Then reason from the answers in at most three short sentences, and give the verdict only at the end."""
ALONE = """You teach a student to reason. You see a yes/no question. Say in short sentences what has to be known to settle it. \
Then reason from that in at most three short sentences, and give the verdict only at the end."""
_CHECK = """You check reasoning. You see a yes/no question and reasoning whose verdict was removed. Decide by this reasoning alone, not by what you know: \
yes follows from it, no follows from it, or it leaves the question open."""
_STEPS_FORM = f"""{_STEPS}
(reasoning)

{_ASSESSMENT}
**[YES]** or **[NO]**"""
_SYSTEM = f"""{_TASK} Reply in exactly this form:

{_ANALYSIS}
Q: (clarifying question)
A: (its answer)

{_STEPS_FORM}"""
_SYSTEM_ALONE = f"""{ALONE} Reply in exactly this form:

{_STEPS_FORM}"""
_SYSTEM_CHECK = f"""{_CHECK} Reply in exactly this form and say nothing else:

{_ASSESSMENT}
**[YES]**, **[NO]** or **[OPEN]**"""


def strict_object(properties: Mapping[str, object]) -> dict[str, object]:
    """A strict schema whose keys are to be written in this order: the verdict comes last."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_EXCHANGE_SCHEMA = strict_object({"question": {"type": "string"}, "answer": {"type": "string"}})
_REASONED = {"reasoning": {"type": "string"}, "verdict": {"type": "string", "enum": ["yes", "no"]}}
REPLY_SCHEMA = strict_object({"questions": {"type": "array", "items": _EXCHANGE_SCHEMA}, **_REASONED})
ALONE_SCHEMA = strict_object(_REASONED)
CHECK_SCHEMA = strict_object({"verdict": {"type": "string", "enum": ["yes", "no", "open"]}})
_SYSTEM_SCHEMA = f"{_TASK} Reply with one JSON object: questions (each with its answer), reasoning, verdict."
_SYSTEM_ALONE_SCHEMA = f"{ALONE} Reply with one JSON object: reasoning, verdict."
_SYSTEMS = {  # by ask, as_json
    (True, False): _SYSTEM,
    (True, True): _SYSTEM_SCHEMA,
    (False, False): _SYSTEM_ALONE,
    (False, True): _SYSTEM_ALONE_SCHEMA,
}
_SYSTEM_CHECK_SCHEMA = f"{_CHECK} Reply with one JSON object: verdict, which is yes, no or open."

# Replies may be long and odd: no pattern looks at a stretch of text twice. `*+` never gives back, and what begins a line does not reach into the next.
_SECTION = re.compile(r"^#++\s*+(.*\S)", re.MULTILINE)
_BULLET = r"^(?:[*-]|[^\S\n])*+"
_REST = r"[.:)]\s*+[*_]*+\s*+(.*\S)"
_EXCHANGE = re.compile(rf"{_BULLET}Q\d*+{_REST}\s*{_BULLET}A\d*+{_REST}", re.MULTILINE)
_SUBQUESTION = re.compile(r"^[^\S\n]*+Q\d++[.:)]\s*+(.*\S)", re.MULTILINE)
_LAST_LINE = re.compile(r"^(?:[*_]|[^\S\n])*+final(?:\s+answer)?[*_\s]*+:.*", re.IGNORECASE | re.MULTILINE | re.DOTALL)
_STATED = re.compile(
    r"(?:\b(?:so|thus|therefore|hence|in conclusion|overall|based on (?:this|the) (?:analysis|information))\b,?\s*)?"
    r"\b(?:the|my) (?:final )?answer (?:is|would be)\b[\s:]*[*_\[(\"“']*(yes|no)\b[*_\])\"”']*(?:\s*[,.;:!]+|\s+(?:because|since|as)\b)?\s*",
    re.IGNORECASE,
)
_LEADING = re.compile(r"^[\s*_]*(yes|no)\b[*_]*\s*[,.;:!-]+\s*", re.IGNORECASE)
_ASIDE = re.compile(r"([,;–-]\s*)?\b(?:so|thus|hence|therefore),?\s*[*_]*(?:yes|no)[*_]*\s*(?=[.!]|$)", re.IGNORECASE)
_EMPTY = re.compile(r"\W*+(?:yes|no|\d+[.)]?)?\W*+", re.IGNORECASE)  # nothing left but a verdict or a list number
_KEY = re.compile(r"[{,]\s*\"(?:questions|reasoning|verdict)\"\s*:")
_REFERENCE = re.compile(r"#\s*(\d+)")
_STOP = frozenset([
    "a", "an", "and", "are", "at", "be", "by", "can", "could", "did", "do", "does", "for", "from", "had", "has", "have", "how", "in", "is", "it",
    "its", "of", "on", "or", "that", "the", "to", "was", "were", "what", "when", "where", "which", "who", "would",
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TeacherReply(Rationale):
    """A teacher's reply, taken apart. `problem` is "" or says why the reply cannot be used."""

    verdict: Verdict
    problem: str


def teacher_messages(question: Drafted, *, hint: bool, as_json: bool = False, ask: bool = True) -> tuple[dict[str, str], ...]:
    """The chat messages for one drafted question. `hint` adds gold facts, decomposition and verdict, for questions that a teacher got wrong.

    `as_json` asks for an object of the reply schema instead of our headings. Without `ask` the teacher sees neither the draft nor its questions, and
    is to reason without answering any.
    """
    lines = [f"Question: {question.question}"]
    if ask:
        lines += [f"Student draft: {_squeeze(turn(question.draft)) or '(empty)'}"]
        lines += ["Student questions:", *(f"- {asked}" for asked in question.draft_questions)] if question.draft_questions else []
    if hint:
        lines += [HINT_MARK, *(f"- {fact}" for fact in question.facts), *(f"- step: {step}" for step in question.decomposition)]
        lines += [
            f"The right verdict is {word(question.answer)}. Write reasoning that reaches it from the facts, as if you had found it; "
            "never mention that it was given."
        ]
    return _messages(_SYSTEMS[ask, as_json], lines)


def check_messages(question: Question, *, reasoning: str, as_json: bool) -> tuple[dict[str, str], ...]:
    """The chat messages that ask which verdict follows from `reasoning`, which must hold none (`standalone`): yes, no, or none of them."""
    return _messages(_SYSTEM_CHECK_SCHEMA if as_json else _SYSTEM_CHECK, [f"Question: {question.question}", f"{CHECK_MARK} {reasoning}"])


def reply_schema(*, ask: bool) -> Mapping[str, object]:
    """The JSON schema of a teacher's reply, with questions or without."""
    return REPLY_SCHEMA if ask else ALONE_SCHEMA


def parse_teacher_reply(text: str, *, ask: bool = True, as_json: bool = False) -> TeacherReply:
    """Read a reply: an object of the reply schema, our sections, least-to-most sub-questions (`Q1. ...` and its answer below), or plain prose.

    The reasoning never holds the verdict: the last line, "so the answer is yes" and a leading "Yes," are removed; nor what the teacher thought before
    it answered. Where a least-to-most reply has no more to say than its answers, those are the reasoning. Without `ask` a reply has no questions: what
    answered any opens the reasoning. Where an object was asked for (`as_json`), nothing else is read.
    """
    said = without_thoughts(text)
    reply = _from_json(said, ask=ask) if as_json or _meant_as_json(said) else _from_text(own_text(said))
    if ask:
        return reply
    reasoning = standalone(answered=reply.answered, reasoning=reply.reasoning)
    return replace(reply, asked=(), answered=(), reasoning=reasoning, problem=reply.problem or ("" if reasoning else "no reasoning"))


def parse_check(text: str, *, as_json: bool = False) -> Verdict:
    """The verdict that follows from what was checked; UNPARSED where none does, or nothing can be read."""
    said = without_thoughts(text)
    if not as_json and not _meant_as_json(said):
        own = own_text(said)
        return _reply_verdict(_sections(own).get(_ASSESSMENT, own))
    try:
        verdict = object_in(said, key="verdict").get("verdict")
    except ValueError:
        return Verdict.UNPARSED
    return Verdict(verdict) if verdict in ("yes", "no") else Verdict.UNPARSED


def _meant_as_json(text: str) -> bool:
    """Whether a text is an object, or holds the keys of one: then it is read as nothing else, because prose would swallow its quotes and braces."""
    return unfenced(text).startswith(("{", "[{", '"{')) or _KEY.search(text) is not None


def standalone(*, answered: Sequence[str], reasoning: str) -> str:
    """Reasoning that needs no questions before it: their answers open it. Holds no verdict."""
    facts = " ".join(answered)
    return without_verdict(reasoning if reasoning == facts else f"{facts} {reasoning}")


def _messages(system: str, lines: Sequence[str]) -> tuple[dict[str, str], ...]:
    return ({"role": "system", "content": system}, {"role": "user", "content": "\n".join(lines)})


def _from_text(said: str) -> TeacherReply:
    """A reply under our headings, or one that knows none."""
    sections = _sections(said)
    if _STEPS in sections:
        pairs = [(ask, answer) for ask, answer in _EXCHANGE.findall(sections.get(_ANALYSIS, ""))]
        prose = sections[_STEPS]
    else:
        pairs, prose = _least_to_most(said)
    answered = tuple(_squeeze(answer) for _, answer in pairs)
    reasoning = without_verdict(prose) or " ".join(answered)
    verdict = _reply_verdict(sections.get(_ASSESSMENT, said))
    problem = "no verdict" if verdict is Verdict.UNPARSED else "" if reasoning else "no reasoning"
    return TeacherReply(asked=tuple(_squeeze(ask) for ask, _ in pairs), answered=answered, reasoning=reasoning, verdict=verdict, problem=problem)


def _from_json(text: str, *, ask: bool) -> TeacherReply:
    """A reply that is meant to be an object of the reply schema. What it lacks is its problem; nothing is guessed."""
    try:
        read = object_in(text, key="verdict")
    except ValueError as error:
        return _unreadable(str(error) if text else "nothing was said")
    pairs = read.get("questions", None if ask else [])
    if not isinstance(pairs, list) or not all(_is_exchange(each) for each in pairs):
        return _unreadable("`questions` must be a list of objects with question and answer")
    reasoning, verdict = read.get("reasoning"), read.get("verdict")
    if not isinstance(reasoning, str) or verdict not in ("yes", "no"):
        return _unreadable("no verdict" if isinstance(reasoning, str) else "no reasoning")
    answered = tuple(_squeeze(without_thoughts(each["answer"])) for each in pairs)  # again: JSON may have escaped the marks
    prose = without_verdict(without_thoughts(reasoning)) or " ".join(answered)
    asked = tuple(_squeeze(without_thoughts(each["question"])) for each in pairs)
    return TeacherReply(asked=asked, answered=answered, reasoning=prose, verdict=Verdict(verdict), problem="" if prose else "no reasoning")


def _is_exchange(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("question"), str) and isinstance(value.get("answer"), str)


def _unreadable(problem: str) -> TeacherReply:
    return TeacherReply(asked=(), answered=(), reasoning="", verdict=Verdict.UNPARSED, problem=problem)


def template_rationale(question: Question) -> Rationale:
    """A rationale out of gold facts and decomposition, for questions that a recorded teacher cannot answer.

    Each fact answers the askable step (one without `#`) that shares most of its words; what is left over, and the last step that weighs the answers, is
    the reasoning. Raises DataError where the question has no facts.
    """
    if not question.facts:
        raise DataError(f"question {question.qid} has no facts, so no rationale can be written from a template; use a question file that carries `facts`")
    steps = [step for step in question.decomposition if not _REFERENCE.search(step)]
    homes: dict[int, list[str]] = {}
    loose = []
    for fact in question.facts:
        score, index = max(((len(content_words(fact) & content_words(step)), -index) for index, step in enumerate(steps)), default=(0, 0))
        homes.setdefault(-index, []).append(_sentence(fact)) if score else loose.append(_sentence(fact))
    kept = sorted(homes)
    asked, answered = tuple(steps[index] for index in kept), tuple(" ".join(homes[index]) for index in kept)
    weighing = _weighing(question.decomposition, {question.decomposition.index(step) + 1: number for number, step in enumerate(asked, start=1)})
    return Rationale(asked=asked, answered=answered, reasoning=" ".join([*loose, *weighing]) or " ".join(answered))


def _weighing(decomposition: tuple[str, ...], numbers: dict[int, int]) -> list[str]:
    """The last step in words, its references turned to the numbers of the kept questions; nothing where it refers to a step that was not kept."""
    last = decomposition[-1] if decomposition else ""
    wanted = [int(number) for number in _REFERENCE.findall(last)]
    if not wanted or not numbers.keys() >= set(wanted):
        return []
    return [f"It remains to weigh: {_REFERENCE.sub(lambda found: f'answer {numbers[int(found.group(1))]}', last)}"]


def _sections(text: str) -> dict[str, str]:
    """Markdown sections by our heading; a heading is known by its words, whatever its level or case."""
    pieces = _SECTION.split(text)
    known = {heading.strip("# ").casefold(): heading for heading in (_ANALYSIS, _STEPS, _ASSESSMENT)}
    found = zip(pieces[1::2], pieces[2::2], strict=True)
    return {known[name]: body.strip() for title, body in found if (name := title.strip("*_: ").casefold()) in known}


def _least_to_most(text: str) -> tuple[list[tuple[str, str]], str]:
    """Sub-questions with the answers that follow them, and the prose that is neither."""
    body = _LAST_LINE.sub("", text)
    pieces = _SUBQUESTION.split(body)
    if len(pieces) == 1:
        return [], body
    pairs = [(ask, answer) for ask, answer in zip(pieces[1::2], pieces[2::2], strict=True) if answer.strip()]
    return pairs, pieces[0]


def _reply_verdict(text: str) -> Verdict:
    """The verdict by the one parser; else the last "the answer is ...", else a leading "Yes," or "No,"."""
    if (verdict := parse_verdict(text)) is not Verdict.UNPARSED:
        return verdict
    found = [match.group(1) for match in _STATED.finditer(text)] or [match.group(1) for match in [_LEADING.match(text)] if match]
    return Verdict(found[-1].casefold()) if found else Verdict.UNPARSED


def without_verdict(prose: str) -> str:
    """Prose on one line, without its last-line label, stated verdicts and leading yes or no."""
    kept = []
    for sentence in sentences(_LAST_LINE.sub("", prose)):
        bare = _LEADING.sub("", _ASIDE.sub("", _STATED.sub("", sentence))).strip(" *_")
        if not _EMPTY.fullmatch(bare):
            kept.append(bare if bare == sentence else bare[0].upper() + bare[1:])
    return " ".join(kept)


def content_words(text: str) -> set[str]:
    """The words of `text` that say something, in lower case."""
    return {token for token in re.findall(r"\w+", text.casefold()) if token not in _STOP}


def _sentence(text: str) -> str:
    line = _squeeze(text)
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _squeeze(text: str) -> str:
    return " ".join(text.split())
