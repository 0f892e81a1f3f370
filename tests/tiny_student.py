"""Random-initialised students of about a million parameters, a Llama and a Phi-3, with their own tokenizer and chat template, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

CORPUS = (
    "Could Julius Caesar have used a telephone? Is a whale heavier than a horse? Did Mozart die before Beethoven was born?",
    "Answer: Yes Answer: No Final answer: Yes Final answer: No Clarifying questions: When was the telephone invented? In 1876.",
    "Reasoning: Julius Caesar died in 44 BC. The telephone was invented in 1876. 44 BC is before 1876, so the answer follows.",
    "Student draft: the student thinks so. Question: what is heavier, faster, older, taller, longer? A horse weighs about 500 kg.",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 600 tokens: any text can be written in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|pad|>", "<|start|>", "<|stop|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|start|>", eos_token="<|stop|>", pad_token="<|pad|>", padding_side="left")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_config(vocab_size: int) -> LlamaConfig:
    """Four layers of width 128, two heads sharing one key/value head."""
    return LlamaConfig(**_sizes(vocab_size))


def _sizes(vocab_size: int) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "initializer_range": 0.08,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def make_tiny_student(folder: Path, *, seed: int = 0) -> Path:
    """Write weights (float32 safetensors) and tokenizer into `folder`; the same seed gives the same bytes."""
    return _make(folder, lambda vocab_size: LlamaForCausalLM(tiny_config(vocab_size)), seed=seed)


def make_tiny_phi(folder: Path) -> Path:
    """The same in the shape of Phi-3, which keeps query, key and value in one layer, and gate and up in another."""
    return _make(folder, lambda vocab_size: Phi3ForCausalLM(Phi3Config(**_sizes(vocab_size))), seed=0)


def _make(folder: Path, build: Callable[[int], PreTrainedModel], *, seed: int) -> Path:
    tokenizer = tiny_tokenizer()
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = build(len(tokenizer))
    torch.random.set_rng_state(state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
