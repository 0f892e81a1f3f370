"""Prompts and examples as ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tasks.contracts.failures import StudentError
from tasks.training.student_files import prompt_date
from tasks.training.tokens import end_ids, prompt_ids, render_prompt, tokenize_example


@pytest.fixture
def tokenizer(tiny: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny)


def test_training_text_is_the_chat_that_the_template_itself_would_write(tokenizer):
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "Is it heavy?"}, {"role": "assistant", "content": "Answer: Yes"}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    row = tokenize_example(tokenizer, prompt="Is it heavy?", completion="Answer: Yes")
    assert tokenizer.decode(row.ids) == whole.rstrip("\n")
    assert tokenizer.decode(row.ids[: row.prompt]) == render_prompt(tokenizer, "Is it heavy?")


def test_the_template_ends_a_turn_with_another_token_than_the_text(tokenizer):
    assert tokenizer.convert_ids_to_tokens(end_ids(tokenizer)) == ["<|end|>", "<|stop|>"]


def test_a_publishers_greeting_is_left_out(tokenizer):
    greeting = "{% if messages[0]['role'] != 'system' %}<|system|>You are Ada, made by Babbage.<|end|>{% endif %}"
    tokenizer.chat_template = greeting + tokenizer.chat_template
    assert "Babbage" not in render_prompt(tokenizer, "Is it heavy?")


def test_a_template_without_a_system_turn_gets_none(tokenizer):
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    assert render_prompt(tokenizer, "Is it heavy?") == "<|user|>\nIs it heavy?<|end|>\n<|assistant|>\n"


def test_without_a_template_a_prompt_is_a_line_of_plain_text(tokenizer):
    tokenizer.chat_template = None
    assert render_prompt(tokenizer, "Is it heavy?") == "Is it heavy?\n"
    assert tokenizer.decode(prompt_ids(tokenizer, "Is it heavy?")) == "Is it heavy?\n"
    assert tokenize_example(tokenizer, prompt="Is it heavy?", completion="Yes").ids[-1] == tokenizer.eos_token_id


def test_a_plain_fact_has_one_start_token_as_its_context(tokenizer):
    row = tokenize_example(tokenizer, prompt="", completion="A horse weighs 500 kg.")
    assert row.prompt == 1
    assert tokenizer.decode(row.ids[1:-1]) == "A horse weighs 500 kg."


def test_a_tokenizer_that_cannot_stop_is_refused(tokenizer):
    tokenizer.chat_template = None
    tokenizer.eos_token = None
    with pytest.raises(StudentError, match="never learn to stop"):
        end_ids(tokenizer)


@pytest.mark.parametrize(("single", "special"), [("$A <|stop|>", True), ("<|start|> $A <|stop|>", True), ("<|start|> $A", True), ("$A", False)])
def test_a_prompt_ends_where_the_answer_begins_also_where_the_tokenizer_appends_an_end(tokenizer, single, special):
    tokenizer.chat_template = None
    specials = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<|start|>", "<|stop|>") if name in single]
    tokenizer._tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=specials) if special else None
    ids = prompt_ids(tokenizer, "Is a whale heavier?")
    assert tokenizer.decode(ids) == single.replace(" <|stop|>", "").replace(" ", "").replace("$A", "Is a whale heavier?\n")
    row = tokenize_example(tokenizer, prompt="Is a whale heavier?", completion="Answer: Yes")
    assert row.ids.count(tokenizer.eos_token_id) == 1
    assert row.ids[: row.prompt] == tuple(ids)


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
        ("{% if strftime_now is defined %}{% set day = strftime_now('%A, %B %d') %}{% endif %}{{ day }}", "Friday, July 26"),
        ("{% macro head() %}{{ strftime_now('%F') }}{% endmacro %}{{ head() }}", "2024-07-26"),
    ],
)
def test_a_template_that_prints_the_date_prints_the_same_one_every_day(tokenizer, printed, words):
    plain, ends = render_prompt(tokenizer, "Is it?"), end_ids(tokenizer)
    tokenizer.chat_template = f"Today: {printed}!\n" + tokenizer.chat_template
    assert render_prompt(tokenizer, "Is it?") == f"Today: {words}!\n" + plain
    assert end_ids(tokenizer) == ends


def test_the_date_of_a_templates_prompts_is_known_from_its_folder(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "plain")
    tokenizer.chat_template = "Today: {{ strftime_now('%d %b %Y') }}!\n" + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path / "dated")
    assert (prompt_date(tmp_path / "plain"), prompt_date(tmp_path / "dated")) == ("", "2024-07-26")
