"""The kernel as the product sees it in a simulated world: real pipes and memory, simulated time, waits and locks.

Modules of the product get stand-ins for `os`, `select`, `threading`, `queue` and `fcntl`. Whatever another process
could see the effect of is a point at which others may run, or the process may be killed: just before and just after.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

from typing_extensions import override

from predictd.server.frontend import completion_pipe
from predictd.server.frontend import main as frontend_main
from predictd.server.observe import error_ids
from predictd.server.supervise import keeper, starter, supervisor, watching
from predictd.server.transport.claims import ClaimWriter
from predictd.server.worker import completions, intake, loading, response_memory, token, waiting
from predictd.server.worker import main as worker_main
from tests.simulation.strand import Strand

_close = os.close


class Machine(Protocol):
    """What the stand-ins ask of the world."""

    def look_ns(self) -> int:
        """Read the clock."""

    def point(self, strand: Strand, name: str) -> None:
        """Something that others see is about to happen, or has just happened."""

    def wait(self, strand: Strand, name: str, ready: Callable[[], bool], seconds: float | None) -> None:
        """Let others run until something is so, or for so long."""

    def opened(self, *fds: int) -> None:
        """The process that runs has new descriptors."""

    def closing(self, fd: int) -> None:
        """The process that runs closes a descriptor."""

    def lock(self, file: int) -> bool:
        """Take the record lock of a file for the process that runs."""

    def unlock(self, file: int) -> None:
        """Give it up."""

    def begin(self, name: str, target: Callable[[], None]) -> None:
        """Start one more thread of the process that runs."""

    def exited(self, status: int) -> None:
        """The process that runs ended itself."""

    def completed(self, records: bytes) -> None:
        """The front end that runs has read completions."""

    def replacements(self) -> list[tuple[object, str, object]]:
        """What else stands in: module, name, stand-in."""


class Powered:
    """For so long, the product runs in a simulated world."""

    machine: Machine

    @classmethod
    @contextlib.contextmanager
    def by(cls, machine: Machine) -> Iterator[None]:
        """Make a world the one that runs."""
        cls.machine = machine
        with contextlib.ExitStack() as stack:
            for target, name, stand_in in (*_replacements(), *machine.replacements()):
                stack.enter_context(mock.patch.object(target, name, stand_in))
            try:
                yield
            finally:
                del cls.machine


def _point(name: str) -> None:
    if Strand.current is not None:
        Powered.machine.point(Strand.current, name)


class _Os:
    """Stands for the module `os` where workers run."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @staticmethod
    def read(fd: int, size: int) -> bytes:
        _point("before read")
        data = os.read(fd, size)
        _point("after read")
        return data

    @staticmethod
    def write(fd: int, data: Any) -> int:
        _point("before write")
        written = os.write(fd, data)
        _point("after write")
        return written

    @staticmethod
    def _exit(status: int) -> None:
        Powered.machine.exited(status)


class _FrontendOs:
    """Stands for the module `os` where front ends read what was completed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @staticmethod
    def read(fd: int, size: int) -> bytes:
        data = os.read(fd, size)
        Powered.machine.completed(data)
        return data


class _Poll:
    """Stands for `select.poll` (milliseconds) and `select.epoll` (seconds)."""

    def __init__(self, unit_seconds: float) -> None:
        self._unit_seconds = unit_seconds
        self._poll = select.poll()

    def register(self, fd: int, events: int) -> None:
        self._poll.register(fd, events)

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        strand = Strand.current
        if strand is not None and not self._poll.poll(0):
            seconds = None if timeout is None else timeout * self._unit_seconds
            Powered.machine.wait(strand, "poll", lambda: bool(self._poll.poll(0)), seconds)
        return self._poll.poll(0)


class _Event:
    """Stands for `threading.Event`."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        if Strand.current is not None and not self._set:
            Powered.machine.wait(Strand.current, "event", self.is_set, timeout)
        return self._set


class _Thread:
    """Stands for `threading.Thread`."""

    def __init__(self, *, target: Callable[[], None], name: str, daemon: bool) -> None:
        assert daemon
        self._target, self._name = target, name

    def start(self) -> None:
        Powered.machine.begin(self._name, self._target)


class _SimpleQueue:
    """Stands for `queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def __class_getitem__(cls, item: object) -> type[_SimpleQueue]:
        return cls

    def put(self, item: object) -> None:
        self._items.append(item)

    def get(self) -> Any:
        while not self._items:
            assert Strand.current is not None
            Powered.machine.wait(Strand.current, "queue", lambda: bool(self._items), None)
        return self._items.popleft()


class _Fcntl:
    """Stands for the module `fcntl`: here all processes are one, so that record locks would exclude nobody."""

    LOCK_EX, LOCK_NB, LOCK_UN = fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_UN

    @staticmethod
    def lockf(fd: int, operation: int) -> None:
        file = os.fstat(fd).st_ino
        if operation == fcntl.LOCK_UN:
            _point("before unlock")
            Powered.machine.unlock(file)
            _point("after unlock")
        elif not Powered.machine.lock(file):
            _point("lock held")
            raise BlockingIOError
        else:
            _point("after lock")


class Claims(ClaimWriter):
    """A claim table whose writes others may see one by one."""

    @override
    def hold(self, tickets: bytes) -> None:
        _point("before claim")
        super().hold(tickets)
        _point("after claim")

    @override
    def start(self) -> None:
        super().start()
        _point("after start")

    @override
    def clear(self) -> None:
        _point("before clear")
        super().clear()
        _point("after clear")


def _replacements() -> list[tuple[object, str, object]]:
    stand_in_os = _Os()
    polls = SimpleNamespace(
        poll=lambda: _Poll(1e-3),
        epoll=lambda: _Poll(1.0),
        POLLIN=select.POLLIN,
        EPOLLIN=select.EPOLLIN,
    )
    threads = SimpleNamespace(Event=_Event, Thread=_Thread, Lock=threading.Lock)
    no_collections = SimpleNamespace(collect=lambda: 0, freeze=lambda: None, set_threshold=lambda *_: None)
    machine = Powered.machine
    return [
        *(
            (module, "os", stand_in_os)
            for module in (worker_main, intake, completions, response_memory, token)
        ),
        (frontend_main, "os", stand_in_os),
        (completion_pipe, "os", _FrontendOs()),
        *((module, "select", polls) for module in (worker_main, waiting, response_memory)),
        *((module, "threading", threads) for module in (worker_main, loading, response_memory)),
        *((module, "gc", no_collections) for module in (worker_main, frontend_main)),
        (error_ids, "secrets", SimpleNamespace(token_hex=lambda size: "0" * 2 * size)),
        (frontend_main, "watch_collections", lambda _: None),
        (loading, "queue", SimpleNamespace(SimpleQueue=_SimpleQueue)),
        (worker_main, "ClaimWriter", Claims),
        (token, "fcntl", _Fcntl),
        (time, "monotonic_ns", machine.look_ns),
        *((os, name, _opening(name)) for name in ("memfd_create", "eventfd", "dup", "pipe2")),
        (os, "close", _closing),
    ]


def _opening(name: str) -> Callable[..., Any]:
    """A system call that gives descriptors, which belong to the process that runs."""
    real: Callable[..., Any] = getattr(os, name)

    def call(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        Powered.machine.opened(*(result if isinstance(result, tuple) else (result,)))
        return result

    return call


def _closing(fd: int) -> None:
    Powered.machine.closing(fd)
    _close(fd)


MODULES = SimpleNamespace(
    starter=starter,
    supervisor=supervisor,
    keeper=keeper,
    watching=watching,
    loading=loading,
    worker_main=worker_main,
    frontend_main=frontend_main,
)
