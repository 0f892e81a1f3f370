"""`make bench-cpu`: SFT, drafts and log-probabilities on a CPU in float32, beside TRL and transformers at their best settings in the same run.

A student of SmolLM2's shape with random weights, rows as long as the demo's. Prints Markdown: ours over theirs, and of SFT the share of what this machine's
float32 product reaches. An older CPU is imitated with ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

from tasks.contracts.jobs import Machine, Weights
from tasks.contracts.recipes import Lora
from tasks.training import engine as engines
from tasks.training.completions import score_completions
from tasks.training.decoding import decode
from tasks.training.device import keep_freed_memory
from tasks.training.order import WindowOrder
from tasks.training.packing import Bundle
from tasks.training.rates import product_rate
from tasks.training.sft import SftRow, WeightedSftTrainer, trainer_settings
from tasks.training.student import Student, add_new_adapter, load_student
from tasks.training.tokens import Tokens
from tests.bench.engine.measure import timed
from tests.bench.engine.peers import Clock
from tests.bench.engine.shapes import lora, random_tokenizer

PROJECT = Path(__file__).resolve().parents[3]
VOCABULARY, HIDDEN, LINEAR = 49152, 576, 106_168_320  # LINEAR: weights of all linear layers but the head
BATCH, WARM = 4, 2  # rows an optimiser step, and steps before those that count
SHARED, OWN, NEW = 200, 50, 32  # tokens of a draft's prompt that all have, that it has alone, and of the draft
PROMPT, CHAIN = 60, 70  # tokens of what is scored
BARS = {"sft": 1.5, "drafts": 2.0, "log-probs": 2.0}
SHARE = 0.70


def main() -> None:
    options = _options()
    if options.one:
        reading, side = options.one
        print(json.dumps(READINGS[reading, side](options.student, 2 if options.quick else 6)))
        return
    print(f"## CPU bench\n\n{torch.get_num_threads()} threads, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}\n")
    print("| reading | ours | theirs | ours / theirs | bar | of the product rate | bar |\n|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        _random_student(Path(folder))
        for reading, bar in BARS.items():
            ours, theirs = (_apart(reading, side, Path(folder), quick=options.quick) for side in ("ours", "theirs"))
            share = f"{ours['share']:.2f} (theirs {theirs['share']:.2f}) of {ours['product']:.0f} GFLOP/s | {SHARE}" if "share" in ours else "- | -"
            print(
                f"| {reading} | {ours['rate']:.2f} rows/s | {theirs['rate']:.2f} rows/s | {ours['rate'] / theirs['rate']:.2f} | {bar} | {share} |", flush=True
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps: to see that all works, not to quote")
    parser.add_argument("--one", nargs=2, metavar=("READING", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--student", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _apart(reading: str, side: str, student: Path, *, quick: bool) -> dict[str, float]:
    """A reading in a process of its own, so that nothing of one touches the next."""
    quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.bench.cpu", "--one", reading, side, "--student", str(student), *["--quick"] * quick]
    said = subprocess.run(command, cwd=PROJECT, env={**os.environ, **quiet}, stdout=subprocess.PIPE, check=True, text=True).stdout
    return json.loads(said.splitlines()[-1])  # type: ignore[no-any-return]


def _random_student(folder: Path) -> None:
    torch.manual_seed(0)
    heads = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=1536, tie_word_embeddings=True, **heads, **tokens)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = random_tokenizer(VOCABULARY)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    tokenizer.save_pretrained(folder)


def _ids(chance: random.Random, count: int) -> tuple[int, ...]:
    return tuple(chance.randrange(4, VOCABULARY) for _ in range(count))


def _rows(steps: int) -> list[tuple[int, ...]]:
    """Token ids of so many steps, as long as the demo's chains of reasoning."""
    chance = random.Random(0)
    return [(1, *_ids(chance, round(chance.gauss(115, 12))), 2) for _ in range(BATCH * steps)]


def _our_student(folder: Path, *, trainable: bool) -> Student:
    keep_freed_memory()
    quantization = "nf4" if trainable else "none"
    return load_student(Weights(model=str(folder), adapter="", quantization=quantization, dtype="float32"), folder=folder, device="cpu", trainable=trainable)


def _their_student(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")


def _sft(seconds: list[float], steps: int) -> dict[str, float]:
    """The share of arithmetic: forward and the gradient of the inputs, for each token in the layers and for each but the first of a row in the head."""
    rows = _rows(WARM + steps)[-BATCH * steps :]
    tokens = sum(map(len, rows))
    taken = sum(seconds[WARM:])
    product = max(product_rate(torch.float32, device=torch.device("cpu")) for _ in range(3)) * 1e9
    flop = 4 * (LINEAR * tokens + VOCABULARY * HIDDEN * (tokens - len(rows)))
    return {"rate": len(rows) / taken, "share": flop / taken / product, "product": product / 1e9}


def our_sft(folder: Path, steps: int) -> dict[str, float]:
    """The trainer of a run, on NF4 weights as the demo has them."""
    student = _our_student(folder, trainable=True)
    student = Student(add_new_adapter(student.model, Lora(rank=16, alpha=32, dropout=0.0, targets="all-linear")), student.tokenizer)
    given = enumerate(_rows(WARM + steps))
    rows = [SftRow(Tokens(ids=ids, prompt=1), weight=1.0, verdict_weight=1.0, reasoning_factor=1.0, key=key) for key, ids in given]
    machine = Machine(device="cpu", processes=1, batch_tokens=1024, gpu_memory_gib=None, recompute="auto", compile="auto", generate_batch=200, report_to=())
    order = WindowOrder([row.bundle.size for row in rows], window=BATCH, seed=0)
    engine, fit = engines.prepare(student, machine, steps=WARM + steps, order=order, bundles=[row.bundle for row in rows], dropout=False)
    with tempfile.TemporaryDirectory() as out:
        settings = {**trainer_settings(machine, name="sft", seed=0, window=BATCH), "save_strategy": "no", "max_steps": WARM + steps, "output_dir": out}
        config = SFTConfig(max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, learning_rate=2e-4, **settings)
        trainer = WeightedSftTrainer(engine=engine, student=student, rows=rows, order=order, fit=fit, args=config, callbacks=[])
        return _sft(_clocked(trainer), steps)


def their_sft(folder: Path, steps: int) -> dict[str, float]:
    """TRL's SFTTrainer on plain float32 weights: 4 bits would be expanded in every step. A step's rows at once, nothing recomputed."""
    rows = Dataset.from_list([{"input_ids": list(ids)} for ids in _rows(WARM + steps)])
    with tempfile.TemporaryDirectory() as out:
        sizes = {"per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 1, "max_steps": WARM + steps, "gradient_checkpointing": False}
        quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False, "bf16": False}
        config = SFTConfig(max_length=None, learning_rate=2e-4, output_dir=out, **sizes, **quiet)
        tokenizer = random_tokenizer(VOCABULARY)
        trainer = SFTTrainer(model=_their_student(folder), args=config, train_dataset=rows, processing_class=tokenizer, peft_config=lora())
        return _sft(_clocked(trainer), steps)


def _clocked(trainer: Any) -> list[float]:
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return clock.seconds()


def _draft_prompts(count: int) -> list[tuple[int, ...]]:
    chance = random.Random(0)
    shared = _ids(chance, SHARED)
    return [shared + _ids(chance, OWN) for _ in range(count)]


def our_drafts(folder: Path, steps: int) -> dict[str, float]:
    """The decoder of a run, as many rows at once as the demo has."""
    model, prompts = _our_student(folder, trainable=False).model, _draft_prompts(16 * steps)
    decode(model, prompts[:4], max_new_tokens=2, stops=[], pad=0, batch_size=200)
    return {"rate": len(prompts) / timed(lambda: decode(model, prompts, max_new_tokens=NEW, stops=[], pad=0, batch_size=200))}


def their_drafts(folder: Path, steps: int) -> dict[str, float]:
    """`model.generate`, greedy, all prompts at once."""
    model, prompts = _their_student(folder).eval(), torch.tensor(_draft_prompts(16 * steps))

    def generate(rows: torch.Tensor, count: int) -> None:
        with torch.inference_mode():
            length = {"max_new_tokens": count, "min_new_tokens": count}
            model.generate(input_ids=rows, attention_mask=torch.ones_like(rows), do_sample=False, pad_token_id=0, **length)

    generate(prompts[:4], 2)
    return {"rate": len(prompts) / timed(lambda: generate(prompts, NEW))}


def _scored(count: int) -> list[Bundle]:
    chance = random.Random(0)
    return [Bundle(prompt=_ids(chance, PROMPT), completions=(_ids(chance, CHAIN), _ids(chance, CHAIN)), key=key) for key in range(count)]


def our_log_probs(folder: Path, steps: int) -> dict[str, float]:
    """Two chains after one prompt, as preference training reads them."""
    model, bundles = _our_student(folder, trainable=False).model, _scored(8 * steps)

    def score(some: list[Bundle]) -> None:
        for _ in score_completions(model, some, budget=1024):
            pass

    score(bundles[:1])
    return {"rate": 2 * len(bundles) / timed(lambda: score(bundles))}


def their_log_probs(folder: Path, steps: int) -> dict[str, float]:
    """A forward of prompt and chain, logits only of the chain, as TRL's own reference pass has it; eight rows at once, none padded."""
    model = _their_student(folder).eval()
    rows = torch.tensor([bundle.prompt + chain for bundle in _scored(8 * steps) for chain in bundle.completions])

    def score(some: torch.Tensor) -> None:
        for batch in some.split(8):
            with torch.inference_mode():
                logits = model(input_ids=batch, logits_to_keep=CHAIN + 1, use_cache=False).logits[:, :-1]
                logits.log_softmax(-1).gather(-1, batch[:, -CHAIN:, None]).sum()

    score(rows[:2])
    return {"rate": len(rows) / timed(lambda: score(rows))}


READINGS: dict[tuple[str, str], Callable[[Path, int], dict[str, float]]] = {
    ("sft", "ours"): our_sft,
    ("sft", "theirs"): their_sft,
    ("drafts", "ours"): our_drafts,
    ("drafts", "theirs"): their_drafts,
    ("log-probs", "ours"): our_log_probs,
    ("log-probs", "theirs"): their_log_probs,
}

if __name__ == "__main__":
    main()
