"""How a packed batch is computed on this machine: compiled decoder layers and recorded CUDA graphs, where they pay; the same numbers everywhere.

A step of QLoRA is thousands of small kernels; launching them from Python takes longer than running them. So the forward and the backward of
each batch size are recorded once and replayed. Sizes are rounded up to a grain and filled, so that a few recordings serve all batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from tasks.contracts.jobs import Machine
from tasks.training.adapted import can_compile, expand_once, expanded_bytes, narrow_into
from tasks.training.completions import packed_log_probs
from tasks.training.device import free_bytes, workspace_bytes
from tasks.training.memory import GIB, Fit, Load, choose, grain, shape_of
from tasks.training.order import WindowOrder
from tasks.training.packing import Bundle, Packed, fill, pack, to_device
from tasks.training.processes import join, world
from tasks.training.recompute import recompute_layers
from tasks.training.student import Student

PAYS = 1e16  # weights x tokens of a run from which compiling saves more than it takes: 260 steps of 5,800 tokens for a 7B student
CPU_TOKENS = 1024
ROOM = 0.93  # of the memory: the allocator's blocks are larger than what they hold (7.37 GiB for 6.98), and the count may be 2 % short
GRAPHS = 24  # recordings kept; sizes beyond them run without
STATIC = ("ids", "positions", "rows", "ends_q", "ends_k", "keys", "places", "source", "target")


class Sizes(NamedTuple):
    """What a recording fixes; the words are those of `fill`."""

    tokens: int
    segments: int
    scored: int
    keys: int
    longest: int


def sizes_for(packed: Packed, *, segments: int, longest: int) -> Sizes:
    """The sizes that a batch is filled up to. Filling costs a per cent or two of a large batch, more of a small one, where launching costs most.

    `segments` and `longest` are those of any batch of the run: a compiled layer would be compiled again for others.
    """
    shared = packed.keys is not None  # they are filled by a text, which must have a token
    step = grain(len(packed.ids) + shared)
    tokens = _up(len(packed.ids) + shared, step)
    extra = tokens - len(packed.ids)
    keys = _up(len(packed.keys) + extra, 2 * step) if packed.keys is not None else tokens
    return Sizes(tokens=tokens, segments=segments + 1, scored=_up(len(packed.source), 4 * step), keys=keys, longest=_up(max(longest, 4 * step), 256))


@dataclass
class Engine:
    """Log-probabilities of packed batches under a model in training."""

    model: Any
    fixed: bool  # batches are filled to a few sizes: on CUDA in bfloat16; attention in float32 goes segment by segment, which the host must see
    graphs: bool = False  # and recorded
    frugal: bool = True  # memory matters more than a few kernels
    segments: int = 0  # of any batch at most
    longest: int = 0  # segment of any batch, in tokens
    flat: Tensor = field(init=False)  # all gradients, one after another; a recording writes to fixed addresses

    def __post_init__(self) -> None:
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.flat = torch.zeros(sum(each.numel() for each in self.parameters), device=self.parameters[0].device)
        pieces = torch.split(self.flat, [each.numel() for each in self.parameters])
        self.views = [piece.view_as(parameter) for piece, parameter in zip(pieces, self.parameters, strict=True)]
        self._recorded: dict[Sizes, _Recording] = {}
        self._pool = torch.cuda.graph_pool_handle() if self.graphs else None
        self._anchor = torch.zeros((), requires_grad=True, device=self.flat.device)
        self._moments: Tensor | None = None
        self._narrow: Tensor | None = None  # `whole` in the precision of activations

    @cached_property
    def whole(self) -> torch.nn.Parameter:
        """All adapter weights as one parameter, so that an optimiser's step is one kernel instead of hundreds of small ones."""
        joined = torch.nn.Parameter(torch.zeros_like(self.flat))
        joined.grad = self.flat
        return joined

    def bind(self) -> None:
        """Move the adapter's weights, as they are now, into `whole`. The trainer may have moved or loaded them since they were made."""
        pieces = torch.split(self.whole.data, [each.numel() for each in self.parameters])
        for piece, parameter in zip(pieces, self.parameters, strict=True):
            piece.copy_(parameter.detach().flatten())
            parameter.data = piece.view_as(parameter)
        if self.fixed and self._narrow is None:
            self._narrow = torch.empty_like(self.flat, dtype=torch.bfloat16)
            copies = torch.split(self._narrow, [each.numel() for each in self.parameters])
            narrow_into(self.model, {id(each): copy.view_as(each) for each, copy in zip(self.parameters, copies, strict=True)})

    def start(self, *, seed: int, step: int) -> None:
        """Begin an optimiser step: draw new dropout, narrow the adapters once for all its batches, and put zeroed gradients where recordings expect them.

        The trainer removes gradients after each step.
        """
        self.model.noise.shake(seed=seed, step=step, device=self.flat.device)
        if self._narrow is not None:
            self._narrow.copy_(self.whole.detach())
            self.model.noise.narrow = True
        self.flat.zero_()
        for parameter, view in zip(self.parameters, self.views, strict=True):
            parameter.grad = view

    def finish(self) -> None:
        """End an optimiser step's forwards and backwards: what comes next may change the adapters."""
        self.model.noise.narrow = False

    def stage(self, packed: Packed) -> Packed:
        """A batch made ready on the host; may run in another thread, beside the device's work."""
        if not self.fixed:
            return packed
        filled = fill(packed, **sizes_for(packed, segments=self.segments, longest=self.longest)._asdict())
        return replace(packed, filled=replace(filled, **{name: value.pin_memory() for name in STATIC if (value := getattr(filled, name)) is not None}))

    def send(self, values: Tensor) -> Tensor:
        """Values [..] of the host on the device, without waiting for it."""
        return to_device(values, self.flat.device)

    def log_probs(self, packed: Packed) -> Tensor:
        """Natural-log probability of every scored token [N] of a staged batch, differentiable."""
        filled = packed.filled
        if filled is None:
            return packed_log_probs(self.model, packed.to(self.flat.device))
        sizes = Sizes(len(filled.ids), len(filled.ends_q), len(filled.source), len(filled.ids if filled.keys is None else filled.keys), filled.longest)
        if sizes not in self._recorded:
            if not self.graphs or len(self._recorded) >= GRAPHS:
                return packed_log_probs(self.model, filled.to(self.flat.device))[: len(packed.source)]
            self._recorded[sizes] = _Recording(self, filled.to(self.flat.device))
        recording = self._recorded[sizes]
        recording.load(filled)
        return _Replay.apply(self._anchor, recording)[: len(packed.source)]  # type: ignore[no-any-return, no-untyped-call]

    def warm(self, bundles: Sequence[Bundle]) -> None:
        """Compute the bundles, and about half of them, once and forget the results: what is compiled or chosen at first sight must not be while recording.

        The room of the optimiser's moments, which come later, is held until `make_room`. Raises OutOfMemoryError where it is not there.
        """
        if not self.fixed:
            return
        self._moments = torch.empty(2 * self.flat.numel(), device=self.flat.device)
        half = bundles[: len(bundles) // 2] or [_halved(bundles[0])]
        for group in (bundles, half):
            filled = self.stage(pack(group)).filled
            assert filled is not None
            packed_log_probs(self.model, filled.to(self.flat.device)).sum().backward()  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()

    def make_room(self) -> None:
        """Give the optimiser the room that is held for its moments."""
        self._moments = None

    def forget(self) -> None:
        """Free the memory of all recordings."""
        self._recorded.clear()
        self._moments = None
        if self.graphs:
            torch.cuda.empty_cache()
            self._pool = torch.cuda.graph_pool_handle()


class _Scorer(torch.nn.Module):
    """`packed_log_probs` as a module, so that its parameters can be stood in for."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, packed: Packed) -> Tensor:
        return packed_log_probs(self.model, packed)


class _Recording:
    """Forward and backward of one batch size as CUDA graphs. All recordings share one pool: only one is between its forward and its backward."""

    def __init__(self, engine: Engine, packed: Packed) -> None:
        self.static = packed
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # Fresh leaves over the same memory: the real ones may still belong to a live graph on another stream, which no recording may touch.
        leaves: dict[str, Tensor] = {f"model.{name}": torch.nn.Parameter(each.detach()) for name, each in engine.model.named_parameters() if each.requires_grad}
        # "thread_local": another thread makes the next batch meanwhile, and may ask the driver for host memory.
        with torch.cuda.graph(self.forward, pool=engine._pool, capture_error_mode="thread_local"):
            self.found = functional_call(_Scorer(engine.model), leaves, (packed,))
        self.slopes = torch.zeros_like(self.found)
        with torch.cuda.graph(self.backward, pool=engine._pool, capture_error_mode="thread_local"):
            if engine.frugal:  # each gradient is added and freed as soon as it is known
                for leaf, view in zip(leaves.values(), engine.views, strict=True):
                    leaf.grad = view
                torch.autograd.backward([self.found], [self.slopes])
            else:  # all at the end, in a few kernels
                torch._foreach_add_(engine.views, list(torch.autograd.grad([self.found], list(leaves.values()), [self.slopes])))
        self.found = self.found.detach()

    def load(self, packed: Packed) -> None:
        """Put another batch of the same size in place."""
        for name in STATIC:
            place = getattr(self.static, name)
            if place is not None:
                place.copy_(getattr(packed, name), non_blocking=True)


class _Replay(torch.autograd.Function):
    """A recording as one differentiable function; its backward adds to the engine's gradients by itself."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, recording: _Recording) -> Tensor:
        ctx.recording = recording
        recording.forward.replay()
        found: Tensor = recording.found.clone()
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        ctx.recording.slopes.copy_(gradients[0])
        ctx.recording.backward.replay()
        return None, None


def _halved(bundle: Bundle) -> Bundle:
    return replace(bundle, prompt=bundle.prompt[: -(-len(bundle.prompt) // 2)], completions=tuple(each[: -(-len(each) // 2)] for each in bundle.completions))


def prepare(student: Student, machine: Machine, *, steps: int, order: WindowOrder, bundles: Sequence[Bundle], dropout: bool) -> tuple[Engine, Fit]:
    """The engine for a run of `steps` windows of an order over bundles, the same in all processes."""
    if student.device.type != "cuda":
        fit = Fit(tokens=machine.batch_tokens or CPU_TOKENS, recompute=machine.recompute == "always", peak=0.0)
        if fit.recompute:
            recompute_layers(student.model)
        # Small batches repeat the expansion for little arithmetic; a machine that could not hold a copy keeps the 4 bits.
        if 2 * expanded_bytes(student.model) < free_bytes(student.device):
            expand_once(student.model)
        return Engine(student.model, fixed=False), fit
    windows = [sum(order.sizes[index] for index in window) for window in order.windows(0)]
    parameters = list(student.model.parameters())
    load = Load(
        shape=shape_of(student.model.config),
        adapter=sum(each.numel() for each in parameters if each.requires_grad),
        four_bit=any(each.dtype == torch.uint8 for each in parameters),
        width=student.model.get_input_embeddings().weight.element_size(),
        compiled=_compiles(student, machine, tokens=steps * sum(windows) / len(windows) / world()),
        dropout=dropout,
        workspaces=4 * workspace_bytes(),  # forward and backward have a thread each, launched and recorded work a stream each
        keys=sum(len(bundle.prompt) * len(bundle.completions) + bundle.size - len(bundle.prompt) for bundle in bundles) / sum(order.sizes),
    )
    available = torch.cuda.mem_get_info(student.device)[0] + torch.cuda.memory_reserved(student.device)
    fit = choose(
        load,
        recompute=machine.recompute,
        tokens=machine.batch_tokens,
        longest=max(order.sizes),
        window=_up(-(-max(windows) // world()), 128),
        memory=min(available, (machine.gpu_memory_gib or math.inf) * GIB) * ROOM,
        setting="execution.train.gpu_memory_gib" if machine.gpu_memory_gib else "what the driver says",
    )
    fits = join([fit])
    fit = replace(fit, tokens=min(each.tokens for each in fits), recompute=any(each.recompute for each in fits), roomy=all(each.roomy for each in fits))
    if load.compiled:
        compile_layers(student.model, frugal=not fit.roomy)
    if fit.recompute:
        recompute_layers(student.model)
    if fit.roomy:
        expand_once(student.model)
        student.model.noise.kept = True
    segments = _up(order.window * max(len(bundle.completions) for bundle in bundles) + 1, 32)
    torch.cuda.reset_peak_memory_stats(student.device)
    longest = max(len(bundle.prompt) + len(each) for bundle in bundles for each in bundle.completions)
    # Layers that are recomputed have large batches, whose launching costs little, and states in host memory, which a recording could not place.
    fixed = load.width == 2
    return Engine(student.model, fixed=fixed, graphs=fixed and not fit.recompute, frugal=not fit.roomy, segments=segments, longest=longest), fit


def compile_for_scoring(student: Student, machine: Machine, *, tokens: int) -> None:
    """Compile the decoder layers where so many tokens, read without gradients, repay it."""
    if _compiles(student, machine, tokens=tokens / 3):  # reading is a third of training
        compile_layers(student.model, frugal=False)


def compile_layers(model: Any, *, frugal: bool) -> None:
    """Compile the decoder layers, all as one code; the first two batch sizes take half a minute.

    `frugal`: what can be computed again from what is kept anyway (norms, activations) is not kept: 3.0 instead of 4.2 MB a token for a 7B model.
    """
    import torch._functorch.config as partitioner

    partitioner.ban_recompute_materialized_backward = not frugal
    torch._dynamo.config.recompile_limit = 64  # one code for all layers, once for each mix of training, scoring, shared prompts and fresh leaves
    network = model.get_base_model() if hasattr(model, "get_base_model") else model
    for layer in network.get_decoder().layers:
        layer.forward = torch.compile(layer.forward)


def _compiles(student: Student, machine: Machine, *, tokens: float) -> bool:
    """Whether to compile for a run of so many tokens."""
    wanted = machine.compile == "always" or (machine.compile == "auto" and shape_of(student.model.config).linear * tokens > PAYS)
    return wanted and student.device.type == "cuda" and can_compile()


def _up(count: int, grain: int) -> int:
    return -(-count // grain) * grain
