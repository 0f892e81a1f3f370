"""Text to token ids, in one place for training and generation alike, so that the two cannot drift.

Prompt and completion are tokenised apart and joined as ids: what a student is trained to continue is, id for id, what it will be asked to continue.
"""

from __future__ import annotations

from dataclasses import dataclass

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from tasks.contracts.failures import StudentError

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
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except TemplateError:
        return str(tokenizer.apply_chat_template(turns[1:], tokenize=False, add_generation_prompt=True))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Ids of the rendered prompt. An empty prompt is the bare start of a text: one start (or end) token, for plain language modelling."""
    if not prompt:
        start = tokenizer.bos_token_id
        return [start if start is not None else end_ids(tokenizer)[0]]
    # A chat template writes its own special tokens; only a plain text needs the tokenizer's.
    return list(tokenizer(render_prompt(tokenizer, prompt), add_special_tokens=tokenizer.chat_template is None)["input_ids"])


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
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    ids = text_ids(tokenizer, text[text.rindex(_PROBE) + len(_PROBE) :])
    specials = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return [token for token in ids if token in specials][:1]
