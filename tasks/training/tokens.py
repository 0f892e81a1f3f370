"""Text to token ids, in one place for training and generation alike, so that the two cannot drift.

Prompt and completion are tokenised apart and joined as ids: what a student is trained to continue is, id for id, what it will be asked to continue.
"""

from __future__ import annotations

from dataclasses import dataclass

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from tasks.contracts.failures import StudentError
from tasks.training.student_files import CLOCK, TODAY

_CODES = ("%d", "%m", "%b", "%B", "%y", "%Y", "%a", "%A", "%j", "%H", "%I", "%M", "%S", "%p", "%D", "%F", "%x", "%X", "%c")
_WORDS = {"%-d": str(TODAY.day), "%-m": str(TODAY.month), **{code: TODAY.strftime(code) for code in _CODES}}
_FIXED = "".join(f" | replace('{code}', '{words}')" for code, words in _WORDS.items())
_DATED = f"{{%- macro {CLOCK}(format) -%}}{{{{ format" + _FIXED + " }}{%- endmacro %}"  # stands before such a template, in place of its own clock
_PROBE = "7"  # an assistant turn whose end is looked for in the rendered chat


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One training or scoring row: ids of prompt + completion, and how many of them are prompt."""

    ids: tuple[int, ...]
    prompt: int

    @property
    def completion(self) -> int:
        """Number of completion tokens, the end token included."""
        return len(self.ids) - self.prompt


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The text a student sees: one user turn of its chat template, ready to be answered; plain text and a newline where it has no template.

    The system turn is empty: some templates put a publisher's greeting there, which every row would pay for. Templates that take no system turn get none.
    """
    if tokenizer.chat_template is None:
        return prompt + "\n"
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": prompt}]
    try:
        return _rendered(tokenizer, turns, answer=True)
    except TemplateError:
        return _rendered(tokenizer, turns[1:], answer=True)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Ids of the rendered prompt. An empty prompt is the bare start of a text: one start (or end) token, for plain language modelling."""
    if not prompt:
        start = tokenizer.bos_token_id
        return [start if start is not None else end_ids(tokenizer)[0]]
    bare = text_ids(tokenizer, text := render_prompt(tokenizer, prompt))
    if tokenizer.chat_template is not None:  # which writes its own special tokens; only a plain text needs the tokenizer's
        return bare
    # Those at its start alone: some tokenizers append the end token, and behind it there is nothing left to answer.
    whole = list(tokenizer(text)["input_ids"])
    start = next((place for place in range(len(whole) - len(bare) + 1) if whole[place : place + len(bare)] == bare), 0)
    return [*whole[:start], *bare]


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of text inside an assistant turn."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer; the first is the one that training teaches: the chat template's end of turn, else the end of text."""
    found = [] if tokenizer.chat_template is None else _end_of_turn(tokenizer)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in found:
        found.append(tokenizer.eos_token_id)
    if not found:
        raise StudentError("The student's tokenizer has no end token, so it could never learn to stop; choose a model whose tokenizer names an eos token")
    return found


def tokenize_example(tokenizer: PreTrainedTokenizerBase, *, prompt: str, completion: str) -> Tokens:
    """Prompt ids, completion ids and the end token. An empty prompt makes a plain text (the facts-only control)."""
    head = prompt_ids(tokenizer, prompt)
    return Tokens(ids=(*head, *text_ids(tokenizer, completion), end_ids(tokenizer)[0]), prompt=len(head))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special token that follows an assistant turn in the rendered chat, if there is one."""
    turns = [{"role": "user", "content": "."}, {"role": "assistant", "content": _PROBE}]
    text = _rendered(tokenizer, turns, answer=False)
    ids = text_ids(tokenizer, text[text.rindex(_PROBE) + len(_PROBE) :])
    specials = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return [token for token in ids if token in specials][:1]


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, answer: bool) -> str:
    """Turns in the words of the chat template; on TODAY, where it asks what day it is."""
    template = tokenizer.chat_template
    fixed = _DATED + template if isinstance(template, str) and CLOCK in template else None
    return str(tokenizer.apply_chat_template(turns, chat_template=fixed, tokenize=False, add_generation_prompt=answer))
