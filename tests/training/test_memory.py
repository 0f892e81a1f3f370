"""The fit oracle's choices; its figures are compared with a GPU's in tests/bench/engine."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from tasks.contracts.failures import GuardError
from tasks.training import attention
from tasks.training.adapted import lean
from tasks.training.completions import packed_log_probs
from tasks.training.memory import GIB, Load, choose, shape_of
from tasks.training.packing import Bundle, pack
from tasks.training.windows import WindowTrainer
from tests.training.jobs import examples, sft_step, silent

LLAMA = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000, tie_word_embeddings=False)
PHI = Phi3Config(hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, num_attention_heads=32, vocab_size=32064)
LOAD = Load(shape=shape_of(LLAMA), adapter=39_976_960, four_bit=True, width=2, compiled=True)


def fit(memory: float, **changes):
    settings = {"recompute": "auto", "tokens": None, "longest": 400, "window": 6000, "setting": "execution.train.gpu_memory_gib", **changes}
    return choose(LOAD, memory=memory * GIB, **settings)


def test_the_shape_counts_the_weights_of_known_models(tiny):
    assert LOAD.shape.linear == 6_476_005_376  # Llama-2-7B without tables and norms
    assert shape_of(PHI).linear == 32 * (4 * 3072 * 3072 + 3 * 3072 * 8192)
    grouped = shape_of(AutoConfig.from_pretrained(tiny))
    assert grouped.keys < grouped.queries


@pytest.mark.parametrize(
    ("config", "tokens", "measured", "way"),
    [
        (LLAMA, 6144, 47.14, "roomy"),
        (LLAMA, 1408, 23.29, "roomy"),
        (LLAMA, 9344, 55.31, "roomy pairs"),
        (LLAMA, 5888, 52.56, "roomy plain"),
        (LLAMA, 832, 6.84, "capped"),
        (LLAMA, 767, 6.85, "capped pairs"),
        (LLAMA, 448, 6.71, "capped plain"),
        (LLAMA, 5888, 5.35, "again"),
        (LLAMA, 4096, 5.00, "capped again"),
        (LLAMA, 5888, 5.61, "capped again plain"),
        (PHI, 6144, 31.22, "roomy"),
        (PHI, 1408, 14.31, "roomy"),
        (PHI, 9216, 38.06, "roomy pairs"),
        (PHI, 5888, 35.31, "roomy plain"),
        (PHI, 5888, 3.42, "again"),
        (PHI, 5888, 3.63, "capped again plain"),
    ],
)
def test_the_count_is_within_5_percent_of_what_an_h200_measured(config, tokens, measured, way):
    shape = shape_of(config)
    load = Load(
        shape=shape,
        adapter=shape.adapter(16),
        four_bit=True,
        width=2,
        compiled="plain" not in way,
        dropout="pairs" not in way,
        keys=1.283 if "pairs" in way else 1.0,
        workspaces=4 * 2**20 * (8 if "capped" in way else 32),
    )
    assert load.peak(tokens, recompute="again" in way, roomy="roomy" in way) / GIB == pytest.approx(measured, rel=0.05)


class _Kernel(torch.autograd.Function):
    """Keeps for its backward what the kernel for attention over segments keeps."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = torch.zeros(q.shape, dtype=q.dtype)
        ctx.save_for_backward(q, k, v, out)
        return out


@pytest.mark.parametrize("roomy", [False, True])
@pytest.mark.parametrize("key_heads", [8, 2])
@pytest.mark.parametrize("family", [(LlamaConfig, LlamaForCausalLM), (Phi3Config, Phi3ForCausalLM)])
def test_a_layer_that_is_not_compiled_keeps_what_is_counted(family, key_heads, roomy, monkeypatch):
    kernel = SimpleNamespace(varlen_attn=lambda q, k, v, *_, **__: _Kernel.apply(q, k, v))
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", kernel)
    monkeypatch.setattr(attention, "_one_by_one", lambda *given: attention._one_kernel(*given[:5], 0, 0, *given[5:]))
    config, network = family
    sizes = {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": key_heads}
    base = network(config(**sizes, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, attn_implementation="packed")).bfloat16()
    model = get_peft_model(base, LoraConfig(r=1, target_modules="all-linear", lora_dropout=0.1)).train()
    lean(model)
    model.noise.kept = roomy
    model.noise.shake(seed=0, step=0, device=torch.device("cpu"))
    own = [*model.parameters(), *model.buffers(), *(module.columns for module in model.modules() if hasattr(module, "columns"))]

    def kept(tokens: int) -> int:
        found = {}

        def see(tensor):
            found[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
            packed_log_probs(model, pack([Bundle(prompt=(5,) * 100, completions=((6,) * (tokens - 99),))]))
        for each in own:
            found.pop(each.untyped_storage().data_ptr(), None)
        return sum(each.untyped_storage().nbytes() for each in found.values())

    load = Load(shape=shape_of(base.config), adapter=0, four_bit=False, width=2, compiled=False)
    scored = 256 * 2  # slopes of the head
    each = (kept(800) - kept(400)) / 400 - scored
    assert load._layer(roomy=roomy) * 4 == pytest.approx(each, rel=0.02)


def test_with_less_memory_it_keeps_less_then_computes_less_at_once_then_recomputes():
    ways = [fit(memory) for memory in (130.0, 40.0, 7.2, 5.2)]
    assert [(way.roomy, way.recompute) for way in ways] == [(True, False), (False, False), (False, False), (False, True)]
    assert ways[0].tokens == ways[1].tokens == 6000 > ways[2].tokens > 400
    assert all(way.peak <= memory * GIB for way, memory in zip(ways, (130.0, 40.0, 7.2, 5.2), strict=True))


def test_what_is_asked_for_is_taken_as_it_is():
    assert fit(130.0, recompute="always").recompute
    assert fit(40.0, tokens=900).tokens == 900
    assert fit(7.2, tokens=3000).recompute  # 3,000 tokens at once do not fit otherwise


@pytest.mark.parametrize("changes", [{"recompute": "never", "longest": 5000}, {"tokens": 6000, "recompute": "never"}, {"longest": 60_000, "window": 60_000}])
def test_what_cannot_fit_is_refused_with_figures(changes):
    with pytest.raises(GuardError, match=r"Training would take [\d.]+ GiB of GPU memory where 7.2 are free, by execution.train.gpu_memory_gib: use shorter"):
        fit(7.2, **changes)


def test_where_memory_runs_out_the_budget_halves_the_losses_stay_and_the_record_says_so(tiny, tmp_path, monkeypatch):
    from tasks.training.sft import run_sft

    calm = run_sft(sft_step(tmp_path, tiny, examples(20)), tmp_path, silent)
    window = WindowTrainer._window

    def short(self, model, rows):
        if max(len(batch.packed.ids) for batch in rows.batches) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return window(self, model, rows)

    monkeypatch.setattr(WindowTrainer, "_window", short)
    tight = run_sft(sft_step(tmp_path, tiny, examples(20), out="tight"), tmp_path, silent)
    assert tight["machine"]["halved_for_memory"] == 1
    assert tight["machine"]["batch_tokens"] == 80
    assert [point["loss"] for point in tight["history"]] == pytest.approx([point["loss"] for point in calm["history"]], abs=1e-5)


def test_memory_that_does_not_hold_one_row_is_said_in_one_sentence(tiny, tmp_path, monkeypatch):
    from tasks.training.sft import run_sft

    def never(self, model, rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(WindowTrainer, "_window", never)
    with pytest.raises(GuardError, match="even with one row at a time"):
        run_sft(sft_step(tmp_path, tiny, examples(8)), tmp_path, silent)
