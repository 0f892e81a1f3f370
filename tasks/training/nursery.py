"""Warm starts: one process that has torch and the trainers loaded forks a child for each job, so that they are loaded once and not for every job.

The nursery, `python -m tasks.training.nursery`, takes orders from a Unix socket, its standard input. When that closes, because its parent is gone,
it ends as soon as its children have, and at once while it loads. A child does what `python -m tasks.training.worker JOB_DIR --until-stdin-closes` does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# What every step imports sooner or later, and what those of a kind do. Loaded when a job first needs it: one question must not wait for the trainers.
COMMON = ("pandas", "bitsandbytes", "peft")
NEEDS = {
    "convert": "tasks.training.student",
    "answer": "tasks.training.generation",
    "reference": "tasks.training.reference",
    "score": "tasks.training.reference",
    "sft": "tasks.training.sft",
    "align": "tasks.training.align",
    "consult": "tasks.training.consulting",
    "attribute": "tasks.training.attribution",
}
ALLOCATOR = "JE_ARROW_MALLOC_CONF"
MESSAGE_BYTES = 65536
THREADS_END_SECONDS = 2.0
LOOK_EVERY_SECONDS = 0.5
MOST_LOST = 2  # one that was killed is an accident; a library that cannot be loaded, or leaves a thread, ends each


class NurseryError(Exception):
    """The nursery forked no child, or did not live to see its end."""


class Nursery:
    """The parent's end. Children have the environment and the folder that the nursery was started with: libraries read them while they are imported."""

    def __init__(self, *, cwd: Path, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tasks.training.nursery", str(os.getpid())]
            process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd, env=environment)
        threading.Thread(target=process.wait, daemon=True).start()  # collects it whenever it ends

    def fork(self, folder: Path, *, kinds: Iterable[str], log: IO[bytes]) -> ForkedChild:
        """A child for the job of `folder`, whose steps are of these kinds. Returns at once, while the nursery may still be loading what they need."""
        stdin, stdout, reply = os.pipe(), os.pipe(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = json.dumps([str(folder), [*COMMON, *sorted({NEEDS[kind] for kind in kinds})]]).encode()
        with contextlib.suppress(OSError):  # the nursery is gone; who waits for the child is told
            socket.send_fds(self._orders, [order], [stdin[0], stdout[1], log.fileno(), reply[1].fileno()])
        os.close(stdin[0])
        os.close(stdout[1])
        reply[1].close()
        return ForkedChild(os.fdopen(stdin[1], "w"), os.fdopen(stdout[0], encoding="utf-8"), reply[0])

    def close(self) -> None:
        """Place no more orders. Children under way are seen to their end."""
        self._orders.close()


class Nurseries:
    """This process's nursery: the latest one, for a job in another environment needs another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: Nursery | None = None
        self._closed = False
        self._lost = 0

    def fork(self, folder: Path, *, kinds: Iterable[str], log: IO[bytes], cwd: Path, environment: Mapping[str, str]) -> ForkedChild | None:
        """A child for the job of `folder`, or None after `close`."""
        with self._lock:
            if self._closed:
                return None
            if self._latest is not None and self._latest.environment != environment:
                self._latest.close()
                self._latest = None
            self._latest = self._latest or Nursery(cwd=cwd, environment=environment)
            return self._latest.fork(folder, kinds=kinds, log=log)

    def lose(self) -> bool:
        """The latest nursery has ended: the next job gets another one, until so many have ended that it is no accident. Says whether it will."""
        with self._lock:
            self._lost += 1
            if self._latest is not None:
                self._latest.close()
                self._latest = None
            self._closed = self._closed or self._lost >= MOST_LOST
            return not self._closed

    def close(self) -> None:
        """Fork no more. Children under way are seen to their end."""
        with self._lock:
            self._closed = True
            if self._latest is not None:
                self._latest.close()
                self._latest = None


class ForkedChild:
    """A child of the nursery: as much of `subprocess.Popen` as following a job needs."""

    def __init__(self, stdin: IO[str], stdout: IO[str], reply: socket.socket) -> None:
        self.stdin, self.stdout, self._reply = stdin, stdout, reply
        self._handle: int | None = None  # a pidfd: it never stands for another process, as a number may
        self._code: int | None = None

    def kill(self) -> None:
        """SIGKILL, where it still runs. One that is not born yet ends by itself once it is, for then its standard input has closed."""
        if self._code is None and not self._is_born(socket.MSG_DONTWAIT):
            self._end(-signal.SIGKILL)
        elif self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def wait(self) -> int:
        """Exit code, or minus the signal that killed it. Raises NurseryError where nobody can tell; the child has ended then, too."""
        if self._code is None:
            told = self._reply.recv(MESSAGE_BYTES) if self._is_born() else b""
            if not told:
                self.kill()
            self._end(int(told or -signal.SIGKILL))
            if not told:
                raise NurseryError("the process that keeps torch loaded has ended")
        assert self._code is not None
        return self._code

    def _is_born(self, flags: int = 0) -> bool:
        if self._handle is None:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                self._handle = next(iter(socket.recv_fds(self._reply, MESSAGE_BYTES, 1, flags)[1]), None)
        return self._handle is not None

    def _end(self, code: int) -> None:
        if self._code is None:
            self._code = code
            self._reply.close()
            if self._handle is not None:
                select.select([self._handle], [], [])  # until it has ended
                os.close(self._handle)
                self._handle = None


def main() -> None:
    """Take orders. Each child comes out of here as a worker."""
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; what follows from it the parent decides
    os.close(os.pidfd_open(os.getpid()))  # fails before anything is forked where the kernel has no such thing
    os.environ[ALLOCATOR] = "background_thread:false"  # else pyarrow starts a thread when it is imported
    try:
        folder = _serve(socket.socket(fileno=os.dup(0)), parent=int(sys.argv[1]))
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # at once: an orderly end would wait for threads that a library may have left
    del os.environ[ALLOCATOR]
    signal.signal(signal.SIGINT, interrupted)
    _draw_apart()
    sys.argv[1:] = [folder, "--until-stdin-closes"]
    runpy.run_module("tasks.training.worker", run_name="__main__", alter_sys=True)


@dataclass(frozen=True)
class _Order:
    """What a child is to do, and the descriptors that came with it. `reply` is told a pidfd of the child, and later its exit code."""

    folder: str
    modules: list[str]
    stdin: int
    stdout: int
    log: int
    reply: socket.socket


def _serve(orders: socket.socket, *, parent: int) -> str:
    """Fork a child for each order and tell how it ended. Returns in the children, with the folder of their job."""
    listening: list[socket.socket | int] = [orders]
    children: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: the pid, and who is told
    while listening or children:
        ready, _, _ = select.select([*listening, *children], [], [])
        for handle in children.keys() & ready:
            pid, reply = children.pop(handle)
            _tell(reply, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
            reply.close()
            os.close(handle)
        if orders not in ready:
            continue
        order = _take(orders)
        if order is None:
            listening.clear()
            continue
        with _ending_with(parent):
            _load(order)
        pid = _fork(order)
        if pid == 0:
            for handle in children:
                os.close(handle)
            for each in (orders, order.reply, *(reply for _, reply in children.values())):
                each.close()
            return order.folder
        handle = os.pidfd_open(pid)
        children[handle] = pid, order.reply
        _tell(order.reply, "born", handle)
    os._exit(0)  # nothing here is worth an orderly end


def _take(orders: socket.socket) -> _Order | None:
    """The next order; None where no more will come."""
    message, descriptors, _, _ = socket.recv_fds(orders, MESSAGE_BYTES, 4)
    if not message:
        return None
    folder, modules = json.loads(message)
    stdin, stdout, log, reply = descriptors
    return _Order(folder, modules, stdin, stdout, log, socket.socket(fileno=reply))


def _tell(reply: socket.socket, message: str, *descriptors: int) -> None:
    with contextlib.suppress(ConnectionError):  # who asked may have ended, or lost interest
        socket.send_fds(reply, [message.encode()], descriptors)


@contextlib.contextmanager
def _ending_with(parent: int) -> Iterator[None]:
    """End with the parent while the block runs, which takes seconds in which nobody sees that the orders are closed. By a timer: no thread may be left."""

    def look(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    before = signal.signal(signal.SIGALRM, look)
    signal.siginterrupt(signal.SIGALRM, False)  # no library need know
    signal.setitimer(signal.ITIMER_REAL, LOOK_EVERY_SECONDS, LOOK_EVERY_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _load(order: _Order) -> None:
    os.dup2(order.log, 2)  # what goes wrong from here on stands in the job's log
    for name in order.modules:
        importlib.import_module(name)


def _fork(order: _Order) -> int:
    """The child's pid; 0 in the child itself."""
    _wait_until_alone()
    gc.freeze()  # what is loaded stays: no child's collector needs to look at it, and so to copy its pages
    pid = os.fork()
    if pid == 0:
        os.dup2(order.stdin, 0)
        os.dup2(order.stdout, 1)
    else:
        os.dup2(1, 2)
    for descriptor in (order.stdin, order.stdout, order.log):
        os.close(descriptor)
    return pid


def _wait_until_alone() -> None:
    """Only the thread that forks lives on in a child, and what others held stays held. BLAS libraries start threads when they are imported and put
    them away before a fork, all by themselves, so one that leads nowhere comes first; any thread that is left is one we do not know."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    limit = time.monotonic() + THREADS_END_SECONDS
    while threads := len(os.listdir("/proc/self/task")) - 1:
        if time.monotonic() > limit:
            raise NurseryError(f"threads beside the one that is to fork: {threads}")
        time.sleep(0.01)  # the kernel still lists a thread for a moment after it has ended


def _draw_apart() -> None:
    """Give this child random states of its own, as a fresh process has; Python does so for its own module."""
    import numpy as np
    import torch

    np.random.seed()
    torch.seed()


if __name__ == "__main__":
    main()
