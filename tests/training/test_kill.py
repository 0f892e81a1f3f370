"""Training killed with SIGKILL, or out of disk, in real processes: whatever the moment, the next run ends as an undisturbed one."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.contracts.failures import JobFailed
from tasks.contracts.jobs import Job, Step
from tasks.contracts.recipes import Phase
from tasks.contracts.rows import Exam
from tasks.training import worker
from tasks.training.checkpoints import MARKER, MarkComplete, newest_complete
from tasks.training.progress import Failure, Progress, read_event
from tests.training.jobs import PLAIN, align_recipe, align_step, examples, pairs, reference_step, requests, sft_step

PHASES = (
    PLAIN.model_copy(update={"beta": 0.05}),
    Phase(epochs=2, beta=0.1, cal="batch_mean", dr="none", drop_quantile=0.0),
    Phase(epochs=1, beta=0.1, cal="batch_mean", dr="paper", drop_quantile=0.25),
)
STEPS, AN_EPOCH = 12, 3  # of both kinds of training here
WATCHED = {"open", "os.rename", "os.remove", "shutil.rmtree"}
KINDS = ("sft", "align")
# Workers are forked from a process that has torch and the trainers loaded: a dozen starts cost what one does.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tasks.training.align", "tasks.training.worker"])


@dataclass(frozen=True)
class Trained:
    """Where a kind of training finds its inputs, and how it ends undisturbed."""

    step: Step
    inputs: Path
    loss: float
    losses: list[float]
    selection: list[dict[str, Any]]

    def folder(self, path: Path) -> Path:
        """A fresh job folder with the same inputs."""
        for source in self.inputs.iterdir():
            (path / source.name).symlink_to(source)
        return path


def exams() -> list[Exam]:
    asked = [replace(row, prefix="Final answer:", yes_choices=(" Yes",), no_choices=(" No",)) for row in requests(2)]
    return [Exam(**asdict(row), answer="yes") for row in asked]


@pytest.fixture(scope="module")
def inputs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both kinds of training read: rows, and an adapter whose log-probabilities the pairs carry."""
    folder = tmp_path_factory.mktemp("inputs")
    first = sft_step(folder, tiny, examples(20))
    assert work(folder, first, reference_step(folder, tiny, pairs(20))) == 0
    align_step(folder, tiny, exams(), align_recipe())
    for name in ("job.json", "result-0.json", "result-1.json", "log.txt"):
        (folder / name).unlink()
    return folder


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tiny: Path, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    rows = tmp_path_factory.mktemp("rows")
    if request.param == "sft":  # with dropout, so the random state must come back
        step: Any = sft_step(rows, tiny, examples(20), exams="exams.parquet", steps=STEPS, out="trained")
    else:
        step = align_step(rows, tiny, exams(), align_recipe(*PHASES, nll_weight=0.2, learning_rate=5e-3), out="trained")
    plan = Trained(step, inputs, 0.0, [], [])
    folder = plan.folder(tmp_path_factory.mktemp("straight"))
    assert work(folder, step) == 0
    summary = result(folder)
    assert summary["resumed_from_step"] == 0
    assert summary["steps"] == STEPS
    return replace(plan, loss=summary["final_loss"], losses=losses(summary), selection=summary["selection"])


def work(folder: Path, *steps: Step, fault: Callable[[], None] | None = None) -> int:
    """Do the steps in a worker process with a fault built in; returns its exit code."""
    (folder / "job.json").write_text(Job(steps=steps).model_dump_json())
    child = FORKS.Process(target=_worker, args=(folder, fault))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _worker(folder: Path, fault: Callable[[], None] | None) -> None:
    for path, descriptor in ((_events(folder), 1), (folder / "log.txt", 2)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    torch.set_num_threads(1)
    if fault is not None:
        fault()
    sys.exit(worker.main([str(folder)]))


def _events(folder: Path) -> Path:
    """Where the worker's standard output goes: beside the folder, as it is a pipe otherwise and needs no disk."""
    return folder.with_name(f"{folder.name}.events")


def failure(folder: Path) -> Failure:
    """The one failure that the workers of a folder reported."""
    events = [read_event(line) for line in _events(folder).read_text().splitlines()]
    (told,) = [event for event in events if isinstance(event, Failure)]
    return told


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result-0.json").read_text())["result"]["summary"]


def losses(summary: dict[str, Any]) -> list[float]:
    return [point["loss"] for point in summary["history"]]


def complete(folder: Path) -> list[int]:
    """Steps of the checkpoints that have their marker."""
    return sorted(int(marker.parent.name.partition("-")[2]) for marker in folder.glob(".trained.work/checkpoint-*/complete.json"))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(step: int, action: Callable[[], None]) -> None:
    """Do something the moment an optimiser step is reported, in the worker, before it goes on."""
    write = worker.write_event

    def told(stream: Any, event: Any) -> None:
        write(stream, event)
        if isinstance(event, Progress) and (event.done, event.total) == (step, STEPS):
            action()

    worker.write_event = told


def watch(hook: Callable[[str, Path], None]) -> None:
    """Call `hook` with the name of a system call and the path it is about to create, write, replace or remove."""
    sys.addaudithook(lambda event, args: hook(event, Path(args[event == "os.rename"])) if event in WATCHED and isinstance(args[0], str | Path) else None)


def die_at(call: str, path: str) -> None:
    """Be killed as such a call on a path with this ending is about to be made."""
    watch(lambda event, at: die() if event == call and at.match(path) else None)


def die_removing(path: str) -> None:
    """Be killed when a folder is being removed and one of its files is gone."""
    gone: list[Path] = []

    def hook(event: str, at: Path) -> None:
        if event == "shutil.rmtree" and at.match(path):
            gone.append(at)
        elif event == "os.remove" and gone:
            gone.append(at)
            if len(gone) == 3:
                die()

    watch(hook)


def on_full_disk(path: Path) -> None:
    """Let a file lie on a full disk: every write to it fails as the kernel makes it fail."""
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/full")


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def check_end(folder: Path, trained: Trained, *, resumed_from: int) -> None:
    summary = result(folder)
    assert summary["resumed_from_step"] == resumed_from
    assert summary["final_loss"] == pytest.approx(trained.loss, abs=1e-5)
    assert losses(summary) == pytest.approx(trained.losses, abs=1e-5)
    assert summary["selection"] == trained.selection
    assert not list(folder.glob(".trained*"))


def test_killed_in_the_middle_of_an_epoch(trained, tmp_path):
    folder = trained.folder(tmp_path)
    assert work(folder, trained.step, fault=partial(at_step, 8, die)) == -signal.SIGKILL
    assert complete(folder) == [3, 6]
    assert work(folder, trained.step) == 0
    check_end(folder, trained, resumed_from=6)


def test_killed_while_a_checkpoint_is_written_and_again_before_its_marker(trained, tmp_path):
    folder = trained.folder(tmp_path)
    assert work(folder, trained.step, fault=partial(die_at, "open", "checkpoint-6/trainer_state.json")) == -signal.SIGKILL
    assert (folder / ".trained.work" / "checkpoint-6" / "optimizer.pt").is_file()
    assert complete(folder) == [3]
    assert work(folder, trained.step, fault=partial(die_at, "os.rename", "checkpoint-6/complete.json")) == -signal.SIGKILL
    assert (folder / ".trained.work" / "checkpoint-6" / "trainer_state.json").is_file()
    assert complete(folder) == [3]
    assert work(folder, trained.step) == 0
    check_end(folder, trained, resumed_from=3)


def test_killed_between_the_last_checkpoint_and_the_result(trained, tmp_path):
    folder = trained.folder(tmp_path)
    assert work(folder, trained.step, fault=partial(die_at, "os.rename", "trained")) == -signal.SIGKILL
    assert complete(folder) == [9, 12]
    assert work(folder, trained.step) == 0
    check_end(folder, trained, resumed_from=12)


def test_killed_while_an_old_checkpoint_is_removed_and_again_before_the_next_marker(trained, tmp_path):
    folder = trained.folder(tmp_path)
    assert work(folder, trained.step, fault=partial(die_removing, "checkpoint-3")) == -signal.SIGKILL
    found = {path.name: path for path in (folder / ".trained.work").glob("checkpoint-*")}
    assert found.keys() >= {"checkpoint-3", "checkpoint-6"}  # the first one in part
    for name in found.keys() - {"checkpoint-3"}:
        os.utime(found[name], (0, 0))  # it was removed from last, so to a file system it is the newest, by as long as epochs take
    assert work(folder, trained.step, fault=partial(die_at, "os.rename", "checkpoint-*/complete.json")) == -signal.SIGKILL
    assert work(folder, trained.step) == 0
    check_end(folder, trained, resumed_from=9)


@pytest.mark.parametrize("name", ["optimizer.pt", "trainer_state.json"])
def test_a_checkpoint_that_cannot_be_written_in_full_leaves_the_one_before(trained, tmp_path, name):
    folder = trained.folder(tmp_path)
    filled = partial(on_full_disk, folder / ".trained.work" / "checkpoint-6" / name)
    assert work(folder, trained.step, fault=partial(at_step, 4, filled)) == worker.TOLD
    told = failure(folder)
    assert told.error == "JobFailed"
    assert told.message == f"The disk of {folder} is full. Free some space there and run again; training resumes after checkpoint-3, which is complete."
    assert complete(folder) == [3]
    assert work(folder, trained.step) == 0
    check_end(folder, trained, resumed_from=3)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=32m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("this user cannot mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_without_a_byte_left_ends_the_run_with_one_message(trained, small_disk):
    (folder := small_disk / "job").mkdir()
    trained.folder(folder)
    (folder / "log.txt").touch()
    ballast = folder / "ballast"
    assert work(folder, trained.step, fault=partial(at_step, 5, partial(fill, ballast))) == worker.TOLD
    assert failure(folder).message.startswith(f"The disk of {folder} is full.")
    assert complete(folder) == [3]
    ballast.unlink()
    assert work(folder, trained.step) == 0
    check_end(folder, trained, resumed_from=3)


def test_a_checkpoint_in_which_any_file_is_missing_or_changed_does_not_count(trained, tmp_path):
    folder = trained.folder(tmp_path)
    assert work(folder, trained.step, fault=partial(at_step, 8, die)) == -signal.SIGKILL
    whole = folder / ".trained.work"
    identity = json.loads((whole / "checkpoint-6" / MARKER).read_text())["identity"]
    names = {path.name for path in (whole / "checkpoint-6").iterdir()}
    assert names > {"adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", MARKER}
    for name in names:
        for harm in (lose, change):
            copy = Path(shutil.copytree(whole, tmp_path / "copy"))
            harm(copy / "checkpoint-6" / name)
            found = newest_complete(copy, identity=identity)
            assert found is not None
            assert found.folder == copy / "checkpoint-3", f"{name} {harm.__name__}"
            assert not (copy / "checkpoint-6").exists()
            shutil.rmtree(copy)
    assert newest_complete(whole, identity="another run") is None
    assert complete(folder) == []


def lose(path: Path) -> None:
    path.unlink()


def change(path: Path) -> None:
    if path.name == MARKER:
        path.write_text(path.read_text().replace("identity", "identitx"))
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")


def test_the_adapter_in_memory_must_be_the_one_that_was_saved(tmp_path):
    model = torch.nn.Linear(2, 2)
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    moment = {
        "args": SimpleNamespace(output_dir=str(tmp_path)),
        "state": SimpleNamespace(global_step=5, is_world_process_zero=True),
        "control": None,
        "model": model,
    }
    marks = MarkComplete(identity="this run", notes=dict)
    marks.on_save(**moment)
    marks.on_train_begin(**moment)
    model.to(torch.bfloat16).to(torch.float32)  # what a cast on the way leaves behind
    with pytest.raises(JobFailed, match="checkpoint-5 is not the one that was saved there; delete"):
        marks.on_train_begin(**moment)
