"""Load, extend, save and convert students. Remote code is never run and nothing is downloaded: weights are folders."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from tasks.contracts.failures import StudentError
from tasks.contracts.jobs import ConvertStep, Weights
from tasks.contracts.recipes import Lora
from tasks.training.adapted import lean
from tasks.training.attention import NAME as PACKED
from tasks.training.device import choose_device
from tasks.training.progress import Report
from tasks.training.student_files import check_student
from tasks.training.tokens import end_ids

logger = logging.getLogger(__name__)
ADAPTER = "default"  # the only adapter name that TRL's DPOTrainer understands
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Student:
    """A loaded network (a PeftModel once it has an adapter) and its tokenizer."""

    model: Any
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device


def load_student(weights: Weights, *, folder: Path, device: str, trainable: bool) -> Student:
    """Load full weights in their number format, and the adapter on top where one is named.

    `folder` is what relative paths are relative to. Raises StudentError naming the folder that cannot be loaded.
    """
    source, place = folder / weights.model, choose_device(device)
    check_student(source, quantization=weights.quantization)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=_DTYPES[weights.dtype],
            quantization_config=_nf4(weights) if weights.quantization == "nf4" else None,
            device_map={"": place},
            attn_implementation=PACKED,
            trust_remote_code=False,
            local_files_only=True,
        )
    except torch.OutOfMemoryError as error:
        raise StudentError(f"GPU memory does not hold the weights of {source}; choose a smaller student, quantization nf4, or a larger GPU") from error
    except Exception as error:  # the libraries raise whatever their readers raise; all of it means that these files are no student
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise StudentError(f"{source} cannot be loaded as a causal language model ({said}); fetch the student again, or name another one") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # A strided input would make the head a batched product, which copies its weights once a row on a CPU.
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    # Published generation settings (repetition penalty, top-k, ...) would make scores depend on the student's publisher.
    model.generation_config = GenerationConfig(eos_token_id=end_ids(tokenizer), pad_token_id=tokenizer.pad_token_id)  # type: ignore[no-untyped-call]
    if weights.quantization == "nf4":
        keep_gradients(model)
    return Student(add_trained_adapter(model, folder / weights.adapter, trainable=trainable) if weights.adapter else model, tokenizer)


def keep_gradients(model: torch.nn.Module) -> None:
    """Forbid bitsandbytes to repack 4-bit weights on CPUs with AVX512-BF16.

    It does so in place at the first evaluation forward; the packed layers have no backward and `.train()` does not undo it, so every
    gradient through them is 0 from then on, without an error.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def add_new_adapter(model: PreTrainedModel, lora: Lora) -> Any:
    """A fresh adapter, in float32, on every linear layer or on those named; raises StudentError where the student has none of these names."""
    from peft import LoraConfig, get_peft_model

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM")
    try:
        return _leaned(get_peft_model(model, config, adapter_name=ADAPTER))
    except ValueError as error:
        raise StudentError(f"recipe.sft.lora.targets does not fit this student ({error}); set it to all-linear") from error


def add_trained_adapter(model: PreTrainedModel, adapter: Path, *, trainable: bool) -> Any:
    """A saved adapter on top of `model`, in float32 while it is trained; raises StudentError where it does not fit."""
    from peft import PeftModel

    try:
        return _leaned(PeftModel.from_pretrained(model, adapter, adapter_name=ADAPTER, is_trainable=trainable, local_files_only=True))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise StudentError(f"{adapter} cannot be put on this student ({error}); it was trained for another one, or is damaged: train it again") from error


def _leaned(model: Any) -> Any:
    """Let adapted layers compute our way. Frozen adapters of a bfloat16 student become what every use would make of them."""
    lean(model)
    if model.get_input_embeddings().weight.dtype == torch.bfloat16:
        for parameter in model.parameters():
            if parameter.dtype == torch.float32 and not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()
    return model


def save_adapter(model: Any, folder: Path) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`; the same weights give the same bytes on every machine."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, selected_adapters=[ADAPTER], save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None  # a path on this machine, which would also change the folder's digest
    for name in ("target_modules", "exclude_modules"):
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])  # peft stores a set, in the order of this process's hash seed
    path.write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")


def convert_gguf(step: ConvertStep, folder: Path, report: Report) -> dict[str, Any]:
    """Turn a GGUF file into a safetensors folder with its tokenizer. `dequantize` because GGUF weights as they are cannot be saved."""
    from transformers import GgufConfig

    source, out = folder / step.gguf, folder / step.out
    report(0, 1, f"reading {source.name}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=_DTYPES[step.dtype], quantization_config=GgufConfig(dequantize=True)
        )
    except (OSError, ValueError, KeyError) as error:
        raise StudentError(f"{source} cannot be read as GGUF ({error}); delete it and fetch the student again") from error
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    report(1, 1, "converted")
    return {"parameters": sum(each.numel() for each in model.parameters()), "dtype": step.dtype}


def _nf4(weights: Weights) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=_DTYPES[weights.dtype]
    )
