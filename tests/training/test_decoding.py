"""The decoding loop against transformers' own, on the CPU; the shapes that CUDA graphs need run here without graphs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from tasks.contracts.recipes import Lora
from tasks.training import decoding
from tasks.training.decoding import Decoder, Sampling, decode, decoding_weights, perturb
from tasks.training.student import add_new_adapter

LENGTHS = (3, 17, 9, 30, 9, 1, 22)
VOCABULARY = 400  # fewer than the tiny student has
NEW = 40


@pytest.fixture
def model(tiny: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()


def adapted(model: Any) -> Any:
    """With an adapter that changes every layer."""
    tuned = add_new_adapter(model, Lora(rank=4, alpha=8, dropout=0.1)).eval()
    torch.manual_seed(3)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.2)
    return tuned


def prompts(lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(7, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def one_by_one(model: Any, rows: Sequence[Sequence[int]], stops: Sequence[int]) -> list[list[int]]:
    """Greedy continuations by transformers, a row at a time and so without padding."""
    replies = []
    for row in rows:
        ids = torch.tensor([row])
        settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": list(stops) or None, "pad_token_id": 0}
        replies.append(model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0, len(row) :].tolist())
    return replies


def stops_of(model: Any) -> list[int]:
    """Tokens that end some rows early, one of them at once, and leave others to run to the end."""
    free = one_by_one(model, prompts(), [])
    return [free[0][0], free[1][5], free[3][11]]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_greedy_tokens_are_those_of_generate_row_by_row_with_early_stops(model, fixed, batch_size):
    stops = stops_of(model)
    want = one_by_one(model, prompts(), stops)
    assert 1 in map(len, want)
    assert NEW in map(len, want)
    assert decode(model, prompts(), max_new_tokens=NEW, stops=stops, pad=0, batch_size=batch_size, fixed=fixed) == want


def test_samples_of_one_prompt_share_its_prefill_and_rows_keep_their_order(model, monkeypatch):
    rows = [prompts()[place] for place in (3, 0, 3, 1, 3, 0)]
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    got = decode(model, rows, max_new_tokens=NEW, stops=[], pad=0, batch_size=8)
    assert seen[0] == (3, 30)
    assert set(seen[1:]) == {(6, 1)}
    assert got == one_by_one(model, rows, [])
    monkeypatch.setattr(decoding, "_PREFILL_TOKENS", 40)  # now every distinct prompt is a prefill of its own, at its own width
    assert decode(model, rows, max_new_tokens=NEW, stops=[], pad=0, batch_size=8) == got


@pytest.mark.parametrize("fixed", [False, True])
def test_finished_rows_leave_the_batch(model, fixed):
    rows = prompts([5] * 40)
    free = one_by_one(model, rows, [])
    stops = sorted({reply[2] for reply in free} - set(free[7]))
    widths = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: widths.append(inputs[0].shape))
    got = decode(model, rows, max_new_tokens=NEW, stops=stops, pad=0, batch_size=64, fixed=fixed)
    assert got == one_by_one(model, rows, stops)
    assert len(got[7]) == NEW
    batches = [shape[0] for shape in widths if shape[1] == 1]
    assert batches[0] == 40
    assert min(batches[: NEW - 1]) <= (8 if fixed else max(1, sum(len(reply) == NEW for reply in got)))


@pytest.mark.parametrize("merged", [False, True])
def test_an_adapter_speaks_merged_or_not(model, merged):
    plain = one_by_one(model, prompts(), [])
    tuned = adapted(model)
    want = one_by_one(tuned, prompts(), [])
    assert want != plain
    if not merged:
        assert decode(tuned, prompts(), max_new_tokens=NEW, stops=[], pad=0, batch_size=4) == want
        return
    with decoding_weights(tuned, cached_tokens=0) as spelled_out:
        assert not any(hasattr(module, "lora_A") for module in spelled_out.modules())
        assert decode(spelled_out, prompts(), max_new_tokens=NEW, stops=[], pad=0, batch_size=4) == want


def test_merging_leaves_weights_adapters_and_gradients_as_they_were(model):
    tuned = adapted(model)
    tuned(input_ids=torch.tensor([prompts()[1]])).logits.square().mean().backward()
    modules = dict(tuned.named_modules())
    state = {name: (weight, weight.detach().clone(), None if weight.grad is None else weight.grad.clone()) for name, weight in tuned.named_parameters()}
    assert sum(grad is not None for _, _, grad in state.values()) > 0

    def fail() -> None:
        with decoding_weights(tuned, cached_tokens=0) as spelled_out:
            decode(spelled_out, prompts(), max_new_tokens=2, stops=[], pad=0, batch_size=4)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert dict(tuned.named_modules()) == modules
    after = dict(tuned.named_parameters())
    assert after.keys() == state.keys()
    for name, (weight, value, grad) in state.items():
        assert after[name] is weight
        assert torch.equal(weight, value)
        assert (weight.grad is None) if grad is None else torch.equal(weight.grad, grad)


def test_without_memory_for_a_copy_the_model_is_decoded_as_it_is(model, caplog):
    tuned = adapted(model)
    with decoding_weights(tuned, cached_tokens=10**15) as same:
        assert any(hasattr(module, "lora_A") for module in same.modules())
    assert "adapters apart" in caplog.text


def test_four_bit_layers_are_spelled_out_with_their_adapter_in_float32(model):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    tuned = adapted(model)
    name, layer = next((name, module) for name, module in tuned.named_modules() if hasattr(module, "lora_A"))
    base = layer.get_base_layer()
    packed = bitsandbytes.nn.Linear4bit(base.in_features, base.out_features, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    packed.weight = bitsandbytes.nn.Params4bit(base.weight.data.clone(), requires_grad=False, quant_type="nf4").to("cpu")
    packed.support_avx512bf16_for_cpu = False
    layer.base_layer = packed
    want = bitsandbytes.functional.dequantize_4bit(packed.weight.data, packed.weight.quant_state).float()
    want = want + 2.0 * (layer.lora_B["default"].weight @ layer.lora_A["default"].weight)  # alpha / rank
    before = packed.weight.data.clone()
    with decoding_weights(tuned, cached_tokens=0):
        assert torch.allclose(tuned.get_submodule(name).weight, want, atol=1e-6)
    assert torch.equal(packed.weight.data, before)
    assert tuned.get_submodule(name).get_base_layer() is packed


@pytest.mark.parametrize("fixed", [False, True])
def test_samples_do_not_depend_on_the_batch_or_its_shapes(model, fixed):
    rows = [row for row in prompts() for _ in range(3)]
    noise = Sampling(temperature=0.9, seeds=[(1 << 61) + 977 * index for index in range(len(rows))])
    stops = stops_of(model)
    alone = [
        decode(model, [row], max_new_tokens=NEW, stops=stops, pad=0, batch_size=1, noise=Sampling(temperature=0.9, seeds=[seed]))[0]
        for row, seed in zip(rows, noise.seeds, strict=True)
    ]
    assert decode(model, rows, max_new_tokens=NEW, stops=stops, pad=0, batch_size=16, noise=noise, fixed=fixed) == alone
    assert len(set(map(tuple, alone))) == len(alone)


def test_noise_draws_from_the_softmax():
    # Chi-square over 40 classes and 60,000 seeds: mean 39, standard deviation 8.8; 4 of them above the mean is 75.
    scores = torch.randn(40, generator=torch.Generator().manual_seed(1))
    count, temperature = 60_000, 0.7
    want = (scores / temperature).softmax(dim=0) * count
    seeds = torch.arange(count) * 0x9E3779B97F4A7C15 % (1 << 62)
    for which, step in ((seeds, torch.tensor([0])), (torch.arange(count), torch.tensor([5])), (seeds[:1].expand(count), torch.arange(count))):
        drawn = perturb(scores.expand(count, -1), seeds=which, step=step, temperature=temperature).argmax(dim=1).bincount(minlength=40)
        assert ((drawn - want).square() / want).sum() < 75


def test_noise_of_rows_steps_and_neighbours_is_unrelated():
    rows = perturb(torch.zeros(64, 4096), seeds=torch.arange(64), step=torch.tensor([3]), temperature=1.0)
    later = perturb(torch.zeros(64, 4096), seeds=torch.arange(64), step=torch.tensor([4]), temperature=1.0)
    assert rows.isfinite().all()
    assert abs(float(rows.mean()) - 0.5772) < 4 * 1.2825 / 512  # Gumbel: mean Euler's constant, standard deviation pi / sqrt 6; 512^2 draws
    assert float(rows.std()) == pytest.approx(math.pi / math.sqrt(6), abs=0.02)
    both = torch.cat([rows, later])
    related = torch.corrcoef(both) - torch.eye(128)
    assert float(related.abs().max()) < 6 / math.sqrt(4096)
    assert abs(float(torch.corrcoef(torch.stack([rows[:, 1:].flatten(), rows[:, :-1].flatten()]))[0, 1])) < 4 / 512


def test_no_row_has_the_noise_of_another_in_another_order():
    # Were a row's key xor-ed to the index and no more, 2,000 rows of 2^14 entries would have 8 such pairs: keys that agree in their upper 18 bits.
    rows = torch.zeros(200, 1 << 14)
    drawn = [perturb(rows, seeds=torch.arange(start, start + 200), step=torch.tensor([0]), temperature=1.0) for start in range(0, 2000, 200)]
    assert len({tuple(largest) for part in drawn for largest in part.topk(3).values.tolist()}) == 2000


def test_attention_over_a_window_is_left_to_transformers():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = MistralForCausalLM(MistralConfig(vocab_size=VOCABULARY, sliding_window=16, initializer_range=0.2, **sizes)).eval()
    want = one_by_one(model, prompts(), [])
    assert decode(model, prompts(), max_new_tokens=NEW, stops=[], pad=0, batch_size=4) == want
    wide = {"temperature": 0.9, "seeds": list(range(len(LENGTHS)))}
    drawn = decode(model, prompts(), max_new_tokens=6, stops=[], pad=0, batch_size=4, noise=Sampling(**wide))
    model.config.sliding_window = 64
    short = [drawn[5], drawn[0]]  # texts within either window: both loops draw the same
    again = decode(model, prompts(), max_new_tokens=6, stops=[], pad=0, batch_size=4, noise=Sampling(**wide))
    assert [again[5], again[0]] == short


def test_all_layers_and_widths_share_what_is_compiled(model, monkeypatch):
    rows = prompts([30, 9, 4])
    want = one_by_one(model, rows, [])
    graphs = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiler, advance, widths = torch.compile, Decoder._advance, set()

    def compiled_advance(self: Decoder, steps: int, rows: int, width: int) -> None:
        widths.add(width)
        with decoding._compiled_layers(self.model, wanted=True):
            advance(self, steps, rows, width)

    monkeypatch.setattr(torch, "compile", lambda function, **settings: compiler(function, backend=backend, **settings))
    monkeypatch.setattr(Decoder, "_advance", compiled_advance)
    numbers = [layer.self_attn.layer_idx for layer in model.model.layers]
    assert decode(model, rows, max_new_tokens=NEW, stops=[], pad=0, batch_size=8, fixed=True) == want
    assert len(widths) == 2
    assert 0 < len(graphs) < 2 * len(numbers)  # a layer is cut in a few pieces around its attention; each was compiled once
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == numbers
    assert all("forward" not in layer.__dict__ for layer in model.model.layers)


def test_warming_up_for_a_graph_changes_no_token(model, monkeypatch):
    """Graphs themselves need a GPU; here a graph is a note of the steps to take, and what is around it is the real thing."""
    stops = stops_of(model)
    noise = Sampling(temperature=0.9, seeds=list(range(len(LENGTHS))))
    want = decode(model, prompts(), max_new_tokens=NEW, stops=stops, pad=0, batch_size=16, noise=noise)
    create, forward = Decoder.__init__, Decoder._forward
    recording: list[Graph] = []
    warm = []

    class Graph:
        def __init__(self) -> None:
            self.step: Any = None

        def replay(self) -> None:
            self.step()

    def graphed(self: Decoder, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        self.graphed = True

    def recorded(self: Decoder, rows: int, width: int) -> None:
        if recording:
            recording[0].step = lambda: forward(self, rows, width)
        else:
            warm.append((rows, width))
            forward(self, rows, width)

    @contextmanager
    def capture(graph: Graph, **_: Any) -> Iterator[None]:
        recording.append(graph)
        yield
        recording.clear()

    stream = SimpleNamespace(wait_stream=lambda _: None)
    for name, fake in (("CUDAGraph", Graph), ("graph", capture), ("Stream", lambda: stream), ("current_stream", lambda: stream), ("stream", nullcontext)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(Decoder, "__init__", graphed)
    monkeypatch.setattr(Decoder, "_forward", recorded)
    assert decode(model, prompts(), max_new_tokens=NEW, stops=stops, pad=0, batch_size=16, noise=noise, fixed=True) == want
    assert len(warm) == 3 * len(set(warm))  # every shape was warmed up once, and after that only replayed
    assert len(set(warm)) >= 2


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("sampled", [False, True])
def test_cuda_graphs_give_the_tokens_of_plain_steps(model, caplog, compiled, sampled):
    model = model.cuda()
    stops = [3]
    noise = Sampling(temperature=0.9, seeds=list(range(len(LENGTHS) * 6))) if sampled else None
    rows = prompts(LENGTHS * 6)
    plain = decode(model, rows, max_new_tokens=NEW, stops=stops, pad=0, batch_size=64, noise=noise, fixed=False)
    assert decode(model, rows, max_new_tokens=NEW, stops=stops, pad=0, batch_size=64, noise=noise, compiled=compiled) == plain
    assert "without" not in caplog.text
