"""Students with random weights: what speed and memory need, without a download.

A 7B is quantised matrix by matrix on the device, so that no copy of it in bf16 ever exists and it fits an 8 GB card while it is made.
"""

import os

import bitsandbytes as bnb
import torch
from accelerate import init_empty_weights
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.masking_utils import flash_attention_mask
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils.quantization_config import QuantizationMethod

MODELS = ("llama7b", "phi35")
VARLEN = "torch_varlen"  # the attention implementation that `register_varlen` adds
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def config_of(name: str, *, cpu: bool) -> LlamaConfig | Phi3Config:
    """Llama-2-7B, Phi-3.5-mini (without its long-context rope, which short rows do not reach), or the tiny twin of either."""
    kind, hidden, inner, vocabulary = {"llama7b": (LlamaConfig, 4096, 11008, 32000), "phi35": (Phi3Config, 3072, 8192, 32064)}[name]
    layers, heads = 32, 32
    if cpu:
        hidden, inner, vocabulary, layers, heads = 64, 128, 512, 2, 4
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocabulary}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return kind(**sizes, **tokens, num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=4096, tie_word_embeddings=False)


def random_student(
    name: str, *, quant: str = "nf4", cpu: bool = False, attention: str = "sdpa", seed: int = 0
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A frozen student on the device. `nf4`: all linear layers but the head in NF4 with double quantisation; `bf16`: none."""
    torch.manual_seed(seed)
    device = torch.device("cpu" if cpu else f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    config = config_of(name, cpu=cpu)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=attention)
    if quant == "nf4":
        for path, layer in [*model.named_modules()]:
            if isinstance(layer, nn.Linear) and path != "lm_head":
                model.set_submodule(path, _quantised(layer, device))
        _declare_quantised(model)
    for module in model.modules():
        for key, parameter in [*module.named_parameters(recurse=False)]:
            if parameter.is_meta:
                setattr(module, key, nn.Parameter(_values(parameter.shape, device)))
        for key, buffer in [*module.named_buffers(recurse=False)]:
            setattr(module, key, buffer.to(device))
    if not cpu:
        model.hf_device_map = {"": device.index}
    return model.requires_grad_(False).eval(), random_tokenizer(config.vocab_size)


def _values(shape: torch.Size, device: torch.device) -> torch.Tensor:
    """The scale of a norm is one; a matrix is as small as after training."""
    made = torch.empty(shape, dtype=torch.bfloat16, device=device)
    return made.fill_(1.0) if len(shape) == 1 else made.normal_(std=0.02)


def _quantised(layer: nn.Linear, device: torch.device) -> bnb.nn.Linear4bit:
    settings = {"compress_statistics": True, "quant_type": "nf4"}
    made = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=False, compute_dtype=torch.bfloat16, device="meta", **settings)
    values = _values(layer.weight.shape, device)
    made.weight = bnb.nn.Params4bit(values, requires_grad=False, module=made, **settings).to(device)
    made.support_avx512bf16_for_cpu = False  # on such CPUs a forward without gradients packs the weight, and then no gradient flows through it
    return made


def _declare_quantised(model: PreTrainedModel) -> None:
    """What `from_pretrained` would leave on the model, by which PEFT and TRL see that it is in 4 bits."""
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16)
    model.is_loaded_in_4bit = model.is_quantized = True
    model.quantization_method = QuantizationMethod.BITS_AND_BYTES
    model.config.quantization_config = config
    model.hf_quantizer = AutoHfQuantizer.from_config(config, pre_quantized=True)


def random_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Token `n` is the word `tn`, so a row can be handed over as token ids or as text."""
    words = {word: number for number, word in enumerate(_SPECIAL)} | {f"t{number}": number for number in range(len(_SPECIAL), vocabulary)}
    inner = Tokenizer(WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def lora() -> LoraConfig:
    """The recipe's adapter, on every linear layer but the head."""
    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.1, bias="none", task_type="CAUSAL_LM", target_modules="all-linear")


def register_varlen() -> None:
    """Make torch's own variable-length attention known to transformers, because flash-attn has no wheel. For rows laid end to end only."""
    from torch.nn.attention.varlen import varlen_attn  # needs CUDA

    def attend(
        module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, **given: object
    ) -> tuple[torch.Tensor, None]:
        starts, longest = given.get("cu_seq_lens_q"), given.get("max_length_q")
        if starts is None or longest is None:
            raise RuntimeError("torch_varlen needs the bounds of the rows that a padding-free collator gives")
        query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
        return varlen_attn(query, key, value, starts, starts, int(longest), int(longest), window_size=(-1, 0)).unsqueeze(0), None

    AttentionInterface.register(VARLEN, attend)
    AttentionMaskInterface.register(VARLEN, flash_attention_mask)
