"""The stage decorator: the one place that spells a cache key.

A stage is an async function `body(work, *, ...)`. Refs and paths among its arguments are inputs, by content; every other argument is
recipe. Together with the stage's name and version they make its address. The artifact at that address is verified first; Prefect
keeps its own JSON result beside it and is told to refresh when the artifact does not verify. A lock in the body dies with its holder,
so a killed run never blocks the next one.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

from filelock import FileLock
from prefect import task
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from tasks.contracts.artifacts import Address, ArtifactRoot, ModelRef, TableRef, content_digest, write_rows
from tasks.contracts.execution import Execution
from tasks.contracts.failures import SocratuneError
from tasks.contracts.jobs import AnswerStep, Job, Machine, Step, StepResult, Weights
from tasks.contracts.recipes import Student
from tasks.contracts.rows import Request
from tasks.foresee import foreseen
from tasks.logic.stage_words import key_figures
from tasks.watch import Progress, State, in_one_line, reporting, tell

P = ParamSpec("P")
R = TypeVar("R")
LOCK = "lock"
YEARS = 1e9  # seconds


@dataclass(frozen=True)
class Context:
    """Where and how a run works. Never part of an address."""

    root: ArtifactRoot
    execution: Execution


@dataclass
class Work:
    """What a stage body may use besides its arguments."""

    context: Context
    address: Address
    label: str
    _latest: Progress | None = field(default=None, init=False)

    @property
    def root(self) -> ArtifactRoot:
        """The artifact root."""
        return self.context.root

    @property
    def execution(self) -> Execution:
        """The execution half of the profile."""
        return self.context.execution

    @property
    def folder(self) -> Path:
        """Scratch folder; kept after a crash, so that training resumes in it."""
        return self.root.work_folder(self.address)

    def clear(self) -> None:
        """Empty the scratch folder; the lock stays, others may be waiting for it."""
        for item in self.folder.iterdir():
            if item.is_dir():
                shutil.rmtree(item)
            elif item.name != LOCK:
                item.unlink()

    def progress(self, done: int, total: int, note: str = "", *, share: float | None = None) -> None:
        """Note how far the stage is; cheap, from any thread, as often as you like. `share` of the whole stage, where done / total is that of a part."""
        self._latest = Progress(self.label, done, total, note, share=done / total if share is None and total else share)

    async def run(self, *steps: Step) -> list[StepResult]:
        """Run training steps in a child process that ends when this one does; its progress is this stage's progress."""
        from tasks.training.launch import run_job
        from tasks.training.progress import ASIDE

        shares = [0.0]

        def hear(each: Any) -> None:
            if not each.note.startswith(ASIDE):
                shares.append((each.step + each.done / max(each.total, 1)) / len(steps))
            self.progress(each.done, each.total, each.note, share=shares[-1])

        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(run_job, Job(steps=steps), self.folder, on_progress=hear, cancelled=cancelled)
        finally:
            cancelled.set()

    def weights(self, student: ModelRef, adapter: ModelRef | None, numbers: Student) -> Weights:
        """The student's weights, with an adapter on top where given."""
        return Weights(
            model=str(self.root.absolute(student)),
            adapter=str(self.root.absolute(adapter)) if adapter else "",
            quantization=numbers.quantization,
            dtype=numbers.number_format,
        )

    def answering(
        self, requests: Sequence[Request], *, name: str, weights: Weights, max_new_tokens: int, seed: int, temperature: float = 0.0, allow: tuple[str, ...] = ()
    ) -> AnswerStep:
        """A step that replies to these requests, which are written for it; no two of a stage have the same name."""
        file = name.replace(",", "").replace(" ", "-")
        write_rows(self.folder / f"{file}.parquet", requests, Request)
        return AnswerStep(
            name=name,
            weights=weights,
            requests=f"{file}.parquet",
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            allow=allow,
            seed=seed,
            machine=self.machine,
            out=f"{file}-completions.parquet",
        )

    @property
    def machine(self) -> Machine:
        """How training may use this machine."""
        return Machine(**self.execution.train.model_dump())

    def take(self) -> Progress | None:
        """The newest progress since the last call."""
        latest, self._latest = self._latest, None
        return latest


class Table(NamedTuple, Generic[R]):
    """What a table stage returns: rows, their class and the figures worth showing. A `partial` table is made again by the next run."""

    rows: list[R]
    row_type: type[R]
    summary: Mapping[str, object]
    partial: bool = False


class Model(NamedTuple):
    """What a model stage returns: a finished folder, the full model it sits on ("" = none) and the figures worth showing."""

    folder: Path
    base: str
    summary: Mapping[str, object]


def table_stage(
    name: str, *, version: int, run_name: str
) -> Callable[[Callable[Concatenate[Work, P], Awaitable[Table[R]]]], Callable[Concatenate[Context, P], Awaitable[TableRef[R]]]]:
    """Make a Prefect stage of a function that returns rows. `run_name` may name its arguments: "draft {split}"."""

    def decorate(body: Callable[Concatenate[Work, P], Awaitable[Table[R]]]) -> Callable[Concatenate[Context, P], Awaitable[TableRef[R]]]:
        async def make(work: Work, *args: P.args, **kwargs: P.kwargs) -> TableRef[R]:
            started = time.monotonic()
            made = await body(work, *args, **kwargs)
            seconds = time.monotonic() - started
            return work.root.save_table(work.address, made.rows, made.row_type, summary=made.summary, seconds=seconds, partial=made.partial)

        def find(root: ArtifactRoot, address: Address) -> TableRef[R] | None:
            return root.find_table(address)

        return _staged(body, make, find, kind="data", name=name, version=version, run_name=run_name)

    return decorate


def model_stage(
    name: str, *, version: int, run_name: str
) -> Callable[[Callable[Concatenate[Work, P], Awaitable[Model]]], Callable[Concatenate[Context, P], Awaitable[ModelRef]]]:
    """Make a Prefect stage of a function that returns a model folder."""

    def decorate(body: Callable[Concatenate[Work, P], Awaitable[Model]]) -> Callable[Concatenate[Context, P], Awaitable[ModelRef]]:
        async def make(work: Work, *args: P.args, **kwargs: P.kwargs) -> ModelRef:
            started = time.monotonic()
            made = await body(work, *args, **kwargs)
            return work.root.save_model(work.address, made.folder, base=made.base, summary=made.summary, seconds=time.monotonic() - started)

        def find(root: ArtifactRoot, address: Address) -> ModelRef | None:
            return root.find_model(address)

        return _staged(body, make, find, kind="models", name=name, version=version, run_name=run_name)

    return decorate


def _staged(
    body: Callable[..., Awaitable[Any]],
    make: Callable[..., Awaitable[Any]],
    find: Callable[[ArtifactRoot, Address], Any],
    *,
    kind: str,
    name: str,
    version: int,
    run_name: str,
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(body)
    async def call(context: Context, **arguments: Any) -> Any:
        address = _address(name, version, arguments)
        label = run_name.format(**arguments)
        stored = None if "" in address.inputs.values() else find(context.root, address)
        if (plan := foreseen()) is not None:
            plan.stages.append((label, stored is not None, context.root.record(stored)["seconds"] if stored else 0.0))
            empty = {"stage": name, "key": "", "digest": "", "path": ""}
            return stored or (ModelRef(**empty, base="") if kind == "models" else TableRef(**empty, rows=0))
        folder = context.root.folder(kind, address)
        if stored is not None:
            _say(context.root, label, stored, State.REUSED)

        async def run() -> Any:
            work = Work(context, address, label)
            # Taken in one thread, released in another; a finite wait, because an endless one is taken for a deadlock where threads are shared.
            lock = FileLock(context.root.work_folder(address) / LOCK, timeout=YEARS, thread_local=False)
            await asyncio.to_thread(lock.acquire)
            try:
                made_meanwhile = find(context.root, address)
                if made_meanwhile is not None:
                    if stored is None:
                        _say(context.root, label, made_meanwhile, State.REUSED)
                    return made_meanwhile
                get_run_logger().info("%s: started; %s", label, _reason(folder))
                async with reporting(work.label, work.take):
                    made = await make(work, **arguments)
                _say(context.root, label, made, State.DONE)
                work.clear()
                return made
            finally:
                lock.release()

        run.__name__ = name.replace("-", "_")
        run.__doc__ = body.__doc__
        # No tags: for each tagged task run Prefect asks the server for concurrency limits, which took a third of a run that only reuses.
        prefect_task = task(
            name=name,
            task_run_name=label,
            persist_result=True,
            result_storage=folder,
            result_storage_key="result.json",
            result_serializer="json",
            refresh_cache=stored is None,
        )(run)
        return await prefect_task()

    return call


def _address(stage: str, version: int, arguments: Mapping[str, Any]) -> Address:
    """Split arguments into inputs (refs and paths, by content) and recipe (all else)."""
    inputs: dict[str, str] = {}
    recipe: dict[str, Any] = {}
    for name, value in arguments.items():
        digests = _digests(name, value)
        if digests is None:
            recipe[name] = value
        else:
            inputs.update(digests)
    return Address(stage=stage, version=version, recipe=recipe, inputs=inputs)


def _digests(name: str, value: Any) -> dict[str, str] | None:
    """Content digests of an argument that is a ref, a path, or a collection of these; None for plain values."""
    if isinstance(value, (TableRef, ModelRef)):
        return {name: value.digest}
    if isinstance(value, Path):
        if not value.exists():
            raise SocratuneError(f"{value} does not exist; check the path in the profile")
        return {name: content_digest(value)}
    if isinstance(value, Mapping) and value and all(isinstance(item, (TableRef, ModelRef, Path)) for item in value.values()):
        return {key: digest for part, item in value.items() for key, digest in (_digests(f"{name}.{part}", item) or {}).items()}
    if isinstance(value, tuple) and value and all(isinstance(item, (TableRef, ModelRef, Path)) for item in value):
        return {key: digest for part, item in enumerate(value) for key, digest in (_digests(f"{name}.{part}", item) or {}).items()}
    return None


def _say(root: ArtifactRoot, label: str, ref: TableRef[Any] | ModelRef, state: State) -> None:
    """One line in the flow run's log and one word to the terminal: what a stage came to, or that it is reused."""
    record = root.record(ref)
    said = Progress(label, 1, 1, key_figures(record), state, seconds=float(record["seconds"]))
    with suppress(MissingContextError):  # a stage called outside a run has no log
        get_run_logger().info("%s", in_one_line(said))
    tell(said)


def _reason(folder: Path) -> str:
    if (folder / "artifact.json").is_file():
        return f"the artifact in {folder} is damaged or incomplete, recomputing it"
    return f"nothing stored for these inputs and this recipe yet, computing {folder.name}"
