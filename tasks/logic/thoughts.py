"""What a model thought before it answered, taken out of its text: tags, channels and fences of the models that are known to let it slip.

Whatever cannot be told from a thought goes with it: a text that loses too much is unusable and is asked for again, one that keeps a thought would teach it.
"""

from __future__ import annotations

import re

_NAMES = r"(?:\w++:)?(?:think(?:ing)?|thoughts?|reasoning|reflection|scratchpad)"
_TAG = re.compile(
    rf"(?:<|&lt;|\\u003c)\s*+(?P<slash>/)?\s*+{_NAMES}(?:\s[^<>]{{0,300}})?(?:>|&gt;|\\u003e)"  # <think>, </thinking >, <seed:think>, <thought time="3">
    r"|\[(?P<bracket>/)?(?:THINK|REASONING)\]"
    r"|◁(?P<triangle>/)?think▷"
    r"|<\|(?P<end>end|begin)_of_thought\|>"
    r"|<(?P<pipe>channel\|)>|<\|channel>\s*thought",
    re.IGNORECASE,
)
_HEADER = r"<\|channel\|>\s*+(\w*+)(?:(?!<\|(?:message|channel)\|>).)*+"
_CHANNEL = re.compile(rf"{_HEADER}<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)", re.DOTALL)
_BARE_CHANNEL = re.compile(r"\A\s*(?:analysis|commentary)(?:.*assistant\s*final|(?=[A-Z]).*)", re.DOTALL)  # channels whose marks were dropped on the way
_FENCE = re.compile(rf"^[ \t]*(`{{3,}}|~{{3,}})[ \t]*{_NAMES}[ \t]*\n.*?(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE | re.IGNORECASE)
_MOST_ROUNDS = 20  # a text whose marks close up to new ones more often is no reply
_SPOKEN = re.compile(r"\A\s*Thinking\.\.\.\n.*?(?:\.\.\.\s?done thinking\.|\Z)", re.DOTALL)


def without_thoughts(text: str) -> str:
    """`text` without its thoughts: what stands between their marks, after one that is never closed, and before a closing one that none opened."""
    for _ in range(_MOST_ROUNDS):
        told = _once(text)
        if told == text:
            return text
        text = told.strip()  # what is left may have closed up to a new mark
    return ""


def _once(text: str) -> str:
    if "<|channel|>" in text:
        text = "\n".join(said for name, said in _CHANNEL.findall(text) if name.casefold() == "final")
    text = _SPOKEN.sub("", _FENCE.sub("", _BARE_CHANNEL.sub("", text)))
    kept: list[str] = []
    depth, start = 0, 0
    for tag in _TAG.finditer(text):
        closes = tag["slash"] or tag["bracket"] or tag["triangle"] or tag["pipe"] or (tag["end"] or "").casefold() == "end"
        if closes and depth == 0:
            kept.clear()  # opened in the prompt, as some templates do
        if not closes and depth == 0:
            kept.append(text[start : tag.start()])
        depth = max(depth - 1, 0) if closes else depth + 1
        start = tag.end()
    return "".join([*kept, text[start:] if depth == 0 else ""])
