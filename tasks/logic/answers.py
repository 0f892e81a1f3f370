"""Verdicts out of text: the one parser of yes/no answers, for training text, scoring and teacher replies alike."""

from __future__ import annotations

import json
import re
from typing import Any

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
_FENCE = re.compile(r"^\s*```(?:json)?\s*(\{.*\})\s*```\s*$", re.DOTALL | re.IGNORECASE)
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060"))  # marks and spaces of no width
_OPENS = re.compile(r"\{\s*[\"}]")  # what begins like a JSON object
_MOST_OBJECTS = 64  # that are looked at in one text
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def turn(text: str) -> str:
    """Everything before the first chat marker."""
    return _TURN_END.split(text, maxsplit=1)[0]


def own_text(text: str) -> str:
    """What the model itself said: its turn, up to a new `Question:` line that it asks itself."""
    return _NEW_QUESTION.split(turn(text), maxsplit=1)[0]


def unfenced(text: str) -> str:
    """`text` stripped, and without the code fence that some models put round a JSON object."""
    return _FENCE.sub(r"\1", visible(text)).strip()


def visible(text: str) -> str:
    """`text` without characters of no width, which stand before some models' JSON."""
    return text.translate(_INVISIBLE)


def object_in(text: str, *, key: str) -> dict[str, Any]:
    """The one JSON object with `key` in a text, whatever stands around it: a fence, a line before or after, a list, an object of one field, a string.

    Raises ValueError, which says why, where there is none, where one is broken (a part of it is not what was asked for) or where two differ.
    """
    text = visible(text).strip()
    if text.startswith('"'):  # JSON inside a JSON text
        try:
            text = str(json.loads(text))
        except (ValueError, RecursionError):
            raise ValueError("no JSON object (a text that is not closed)") from None
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_without_repeats)
    found: list[dict[str, Any]] = []
    start = 0
    for _ in range(_MOST_OBJECTS):
        opening = _OPENS.search(text, start)
        if opening is None:
            break
        try:
            value, start = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"no JSON object ({error})") from None
        found.append(_unwrapped(value, key=key))
    wanted = [each for each in found if key in each] or found[:1]
    if not wanted:
        raise ValueError("no JSON object")
    if any(each != wanted[0] for each in wanted):
        raise ValueError("several JSON objects that differ")
    return wanted[0]


def _unwrapped(value: dict[str, Any], *, key: str) -> dict[str, Any]:
    """The object inside objects of one field."""
    while key not in value and len(value) == 1 and isinstance(inner := next(iter(value.values())), dict):
        value = inner
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice")
    return made


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
