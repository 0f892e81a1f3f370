"""Verdicts out of text: the one parser of yes/no answers, for training text, scoring and teacher replies alike."""

from __future__ import annotations

import re

from tasks.contracts.rows import Verdict

# Where a model's own turn ends: the end and role markers of the common chat templates.
_TURN_END = re.compile(
    r"<\|(?:im_end|im_start|end|eot_id|end_of_text|endoftext|start_header_id|user|assistant|system)\|>|</?s>|<(?:end|start)_of_turn>|<eos>|\[/?INST\]",
    re.IGNORECASE,
)
_NEW_QUESTION = re.compile(r"^[ \t>#*_]*question[*_]*[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MARKUP = re.compile(r"[*_`\[\](){}\"“”]")
_LABELS = tuple(re.compile(rf"\b{name}\s*(?:is\s*)?[:：]", re.IGNORECASE) for name in (r"final\s+answer", "answer"))
# "Yes or no", "yes/no", "Answer: Yes or Answer: No" (an echoed prompt): both words offered, none chosen.
_OFFER = re.compile(r"\b(?:yes|no)\s*(?:/|\||-|\bor\b|\band\b|\bnor\b)\s*(?:(?:final\s+)?answer:\s*)?(?:yes|no)\b", re.IGNORECASE)
# Standing alone: "no" before another word is a determiner ("no doubt", "no evidence") unless a clause begins there ("no because", "no it is").
_CLAUSE = r"because|since|as|so|but|and|it|its|he|she|they|this|that|these|those|there|the|we|you|i"
_STANDALONE = re.compile(
    rf"(?<!\bnot )(?<![\w'’-])(?:(yes)|(no)(?!\.?\s*\d)(?=\W*(?:$|[^\w\s'’-]|\n|(?:{_CLAUSE})\b)|\s+-+\s))(?![\w'’]|-\w)",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^\s*```(?:json)?\s*(\{.*\})\s*```\s*$", re.DOTALL)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def turn(text: str) -> str:
    """Everything before the first chat marker."""
    return _TURN_END.split(text, maxsplit=1)[0]


def own_text(text: str) -> str:
    """What the model itself said: its turn, up to a new `Question:` line that it asks itself."""
    return _NEW_QUESTION.split(turn(text), maxsplit=1)[0]


def unfenced(text: str) -> str:
    """`text` stripped, and without the code fence that some models put round a JSON object."""
    return _FENCE.sub(r"\1", text).strip()


def sentences(text: str) -> list[str]:
    """Sentences and lines of `text` in order, stripped, those without a letter or digit left out."""
    return [part.strip() for part in _SENTENCE.split(text) if any(char.isalnum() for char in part)]


def parse_verdict(text: str, *, cut: bool = False) -> Verdict:
    """Read a yes/no answer.

    The last `Final answer:` of the model's own text wins; else the last `Answer:`; else the last standalone yes or no of the
    final sentence. Where the label's own line holds no verdict, the final sentence after the label is read. A text that was `cut` has no verdict:
    what it would have said is unknown. Whatever cannot be read is UNPARSED, never No.
    """
    if cut:
        return Verdict.UNPARSED
    said = _OFFER.sub(" ", _MARKUP.sub("", own_text(text)))
    for label in _LABELS:
        found = list(label.finditer(said))
        if found:
            tail = said[found[-1].end() :].strip()
            return _first(tail.partition("\n")[0]) or _last(tail) or Verdict.UNPARSED
    return _last(said) or Verdict.UNPARSED


def _first(line: str) -> Verdict | None:
    found = _STANDALONE.search(line)
    return _verdict(found) if found else None


def _last(text: str) -> Verdict | None:
    """The last standalone yes or no of the final sentence."""
    found = list(_STANDALONE.finditer((sentences(text) or [""])[-1]))
    return _verdict(found[-1]) if found else None


def _verdict(found: re.Match[str]) -> Verdict:
    return Verdict.YES if found.group(1) else Verdict.NO
