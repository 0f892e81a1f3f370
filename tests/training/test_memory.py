"""The fit oracle's choices; its figures are compared with a GPU's in tests/bench/engine."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, LlamaConfig, Phi3Config

from tasks.contracts.failures import GuardError
from tasks.training.memory import GIB, Load, choose, shape_of
from tasks.training.windows import WindowTrainer
from tests.training.jobs import examples, sft_step, silent

LLAMA = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000, tie_word_embeddings=False)
LOAD = Load(shape=shape_of(LLAMA), adapter=39_976_960, four_bit=True, width=2, compiled=True)


def fit(memory: float, **changes):
    settings = {"recompute": "auto", "tokens": None, "longest": 400, "window": 6000, "setting": "execution.train.gpu_memory_gib", **changes}
    return choose(LOAD, memory=memory * GIB, **settings)


def test_the_shape_counts_the_weights_of_known_models(tiny):
    assert LOAD.shape.linear == 6_476_005_376  # Llama-2-7B without tables and norms
    phi = Phi3Config(hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, num_attention_heads=32, vocab_size=32064)
    assert shape_of(phi).linear == 32 * (4 * 3072 * 3072 + 3 * 3072 * 8192)
    grouped = shape_of(AutoConfig.from_pretrained(tiny))
    assert grouped.keys < grouped.queries


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
