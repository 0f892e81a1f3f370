"""Answers of chat endpoints that are no clean completion, and what is right for each: one table for online, batch and recording."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tasks.contracts.rows import Outcome

REASONING = "The Aztec Empire ended in 1521; the printing press reached Mexico in 1539."
TAUGHT = {
    "questions": [{"question": "Which year did the Aztec Empire end?", "answer": "It ended in 1521."}],
    "reasoning": REASONING,
    "verdict": "no",
}
BARE = json.dumps(TAUGHT)
PROSE = "The empire ended first. So the answer is no."
THOUGHT = "canary-of-a-thought"
USAGE = {"prompt_tokens": 200, "completion_tokens": 60, "total_tokens": 260}


def chat(content: Any = BARE, *, finish_reason: Any = "stop", usage: Any = USAGE, choice: dict[str, Any] | None = None, **message: Any) -> dict[str, Any]:
    """A completion with the given content."""
    said = {"role": "assistant", "content": content, **message}
    first = {"index": 0, "message": said, "finish_reason": finish_reason, **(choice or {})}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [first], "usage": usage}


def refusal(message: str, *, code: Any = None, param: str | None = None, **more: Any) -> dict[str, Any]:
    """An error as OpenAI writes it."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code, **more}}


@dataclass(frozen=True, kw_only=True)
class Odd:
    """An answer and how the question ends whose first answer it is. `again`: the question is asked once more and then answered well."""

    name: str
    body: Any
    status: int = 200
    outcome: Outcome = Outcome.OK
    note: str = ""
    again: bool = False
    tokens: tuple[int, int] = (200, 60)
    prose: bool = False
    reasoning: str = REASONING
    seen: dict[str, Any] = field(default_factory=dict)


_TEXT = {"type": "text", "text": BARE}
_THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}

CONTENTS = [
    Odd(name="parts", body=chat([_TEXT])),
    Odd(name="parts of a text that is split", body=chat([{"type": "text", "text": BARE[:50]}, {"type": "text", "text": BARE[50:]}])),
    Odd(name="output_text parts", body=chat([{"type": "output_text", "text": BARE, "annotations": []}])),
    Odd(name="texts in a list", body=chat([BARE])),
    Odd(name="a text with a value", body=chat([{"type": "text", "text": {"value": BARE}}])),
    Odd(name="thinking, then text", body=chat([_THINKING, _TEXT])),
    Odd(name="redacted thinking", body=chat([{"type": "redacted_thinking", "data": THOUGHT}, _TEXT])),
    Odd(name="a reasoning part", body=chat([{"type": "reasoning", "text": "", "summary": [{"type": "summary_text", "text": THOUGHT}]}, _TEXT])),
    Odd(name="a part marked as thought", body=chat([{"text": THOUGHT, "thought": True}, {"text": BARE}])),
    Odd(name="an object", body=chat(TAUGHT)),
    Odd(name="an object in a part", body=chat([{"type": "json", "json": TAUGHT}])),
    Odd(name="thoughts beside the content", body=chat(BARE, reasoning_content=THOUGHT, reasoning=THOUGHT)),
    Odd(name="prose in parts", body=chat([{"type": "text", "text": PROSE}]), prose=True, reasoning="The empire ended first."),
    Odd(name="end_turn", body=chat(finish_reason="end_turn")),
    Odd(name="STOP", body=chat(finish_reason="STOP")),
    Odd(name="a byte order mark before the body", body="\ufeff" + json.dumps(chat())),
]
BILLS = [
    Odd(name="far over the limit", body=chat(usage={"prompt_tokens": 200, "completion_tokens": 3000, "total_tokens": 3200}), tokens=(200, 3000)),
    Odd(name="reasoning beside the output", body=chat(usage={**USAGE, "total_tokens": 560}), tokens=(200, 360)),
    Odd(name="a total that is too small", body=chat(usage={**USAGE, "total_tokens": 10})),
    Odd(name="counts as texts", body=chat(usage={name: str(count) for name, count in USAGE.items()})),
    Odd(name="counts with a point", body=chat(usage={name: float(count) for name, count in USAGE.items()})),
    Odd(name="only a total and a prompt", body=chat(usage={"prompt_tokens": 200, "total_tokens": 260})),
    Odd(name="other names", body=chat(usage={"input_tokens": 200, "output_tokens": 60})),
    Odd(name="a prompt longer than its bytes", body=chat(usage={"prompt_tokens": 90_000, "completion_tokens": 60}), tokens=(90_000, 60)),
]
REFUSALS = [
    Odd(
        name="invalid prompt", status=400, body=refusal("The prompt was rejected by a usage check.", code="invalid_prompt"),
        outcome=Outcome.REFUSED, note="usage check",
    ),
    Odd(
        name="too long", status=400, body=refusal("At most 8192 tokens can be read; these messages have 9200.", code="context_length_exceeded"),
        outcome=Outcome.FAILED, note="8192",
    ),
    Odd(name="moderated", status=403, body=refusal("Input flagged.", code="moderation"), outcome=Outcome.REFUSED, note="flagged"),
    Odd(name="too large", status=413, body=refusal("Request too large"), outcome=Outcome.FAILED, note="too large"),
    Odd(name="unprocessable", status=422, body={"detail": [{"loc": ["body"], "msg": "bad text"}]}, outcome=Outcome.FAILED, note="422"),
    Odd(name="legal reasons", status=451, body=refusal("not here"), outcome=Outcome.FAILED, note="451"),
]  # fmt: skip
OUTAGES = [
    Odd(name="finish reason error", body=chat("", finish_reason="error", choice={"error": {"code": 502, "message": "overloaded"}}), again=True),
    Odd(name="an error object", body={"error": {"code": 502, "message": "upstream"}}, again=True),
    Odd(name="an error in words", body={"error": "overloaded"}, again=True),
    Odd(name="no choices", body={"choices": [], "usage": USAGE}, again=True),
    Odd(name="choices null", body={"choices": None}, again=True),
    Odd(name="a web page", body="<!doctype html><title>Sign in</title>", again=True),
    Odd(name="a list", body=[], again=True),
    Odd(name="insufficient_system_resource", body=chat("", finish_reason="insufficient_system_resource"), again=True),
]
UNUSABLE = [
    Odd(name="null", body=chat(None), outcome=Outcome.UNPARSED, note="`content`"),
    Odd(name="null, the text elsewhere", body=chat(None, reasoning_content=BARE), outcome=Outcome.UNPARSED, note="`content`"),
    Odd(name="a number", body=chat(5), outcome=Outcome.UNPARSED, note="`content`"),
    Odd(name="cut by thinking", body=chat("", finish_reason="length"), outcome=Outcome.CUT, note="max_tokens"),
    Odd(name="MAX_TOKENS", body=chat(finish_reason="MAX_TOKENS"), outcome=Outcome.CUT, note="max_tokens"),
    Odd(name="model_length", body=chat(finish_reason="model_length"), outcome=Outcome.CUT, note="max_tokens"),
    Odd(name="an end that nobody knows", body=chat(finish_reason="pause_turn"), outcome=Outcome.CUT, note="pause_turn"),
    Odd(name="no end", body=chat(finish_reason=None), outcome=Outcome.CUT, note="no finish_reason"),
    Odd(name="safety", body=chat(finish_reason="SAFETY"), outcome=Outcome.REFUSED, note="filter"),
    Odd(name="a refusal part", body=chat([{"type": "refusal", "refusal": "I cannot."}]), outcome=Outcome.REFUSED, note="filter"),
    Odd(name="prose where JSON was asked for", body=chat(PROSE), outcome=Outcome.UNPARSED, note="no JSON object"),
]

# (name, text, whether it can be read) where an object of the schema was asked for
_PRETTY = json.dumps(TAUGHT, indent=2)
WRAPPED = [
    ("bare", BARE, True),
    ("thoughts first", f"<think>\n{THOUGHT}.\nQuestion: is it?\nFinal answer: Yes\n</think>\n\n{BARE}", True),
    ("thoughts, fenced", f"<think>\n{THOUGHT}\n</think>\n```json\n{_PRETTY}\n```", True),
    ("thoughts never closed", f"<think>\n{THOUGHT}. So the answer is yes, I", False),
    ("a line before", f"This is the object you asked for:\n{BARE}", True),
    ("a line before, fenced", f"Of course.\n\n```json\n{_PRETTY}\n```", True),
    ("fence in capitals", f"```JSON\n{_PRETTY}\n```", True),
    ("byte order mark", f"\ufeff{BARE}", True),
    ("zero width space", f"\u200b{BARE}", True),
    ("in a list", f"[{BARE}]", True),
    ("a note after", f"{BARE}\n\nThe question was kept.", True),
    ("end cut off", BARE[:-3], False),
    ("thoughts opened in the prompt", f"{THOUGHT}\n</think>{BARE}", True),
    ("thoughts within thoughts", f"<think>a <think>b</think> {THOUGHT}</think>{BARE}", True),
    ("thoughts in capitals with an attribute", f'<Thinking time="3">{THOUGHT}</Thinking >{BARE}', True),
    ("thoughts in brackets", f"[THINK]{THOUGHT}[/THINK]{BARE}", True),
    ("thoughts in triangles", f"◁think▷{THOUGHT}◁/think▷{BARE}", True),
    ("thoughts with long marks", f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|>{BARE}", True),
    ("thoughts escaped", f"&lt;think&gt;{THOUGHT}&lt;/think&gt;{BARE}", True),
    ("thoughts in a fence", f"```thinking\n{THOUGHT}\n```\n{BARE}", True),
    ("thoughts inside the reasoning", BARE.replace("The Aztec Empire ended in 1521;", f"<think>{THOUGHT}</think>The Aztec Empire ended in 1521;"), True),
    ("thoughts inside, marks escaped", BARE.replace("The Aztec", f"\\u003cthink\\u003e{THOUGHT}\\u003c/think\\u003eThe Aztec"), True),
    ("thoughts that hold an object", f'<think>{{"verdict": "yes", "reasoning": "{THOUGHT}"}}</think>{BARE}', True),
    ("channels", f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{BARE}<|return|>", True),
    ("a channel without its end", f"<|channel|>analysis<|message|>{THOUGHT}", False),
    ("channels whose marks were dropped", f"analysisWe weigh {THOUGHT}.assistantfinal{BARE}", True),
    ("a thought channel", f"<|channel>thought\n{THOUGHT}<channel|>{BARE}", True),
    ("JSON in a JSON text", json.dumps(BARE), True),
    ("in an object of one field", json.dumps({"response": TAUGHT}), True),
    ("said twice alike", f"{BARE}\n{BARE}", True),
    ("two that differ", f"{BARE}\n{BARE.replace('no', 'yes')}", False),
    ("a verdict twice", BARE[:-1] + ', "verdict": "yes"}', False),
    ("quotes of Python", str(TAUGHT), False),
    ("nothing", "", False),
    ("prose", PROSE, False),
    ("deep", '{"a":' * 5_000, False),
]
