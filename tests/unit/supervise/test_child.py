"""Real, tiny children: what they say, what they are told, and how they end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from predictd.server.control.messages import (
    Ack,
    AnyMessage,
    Collect,
    Hello,
    LaneFailed,
    Stop,
)
from predictd.server.supervise import child as child_module
from predictd.server.supervise.child import Child, describe_exit

SECONDS = 30
Heard = Callable[[Child, AnyMessage], None]


class Watch:
    """A child and everything that was heard of it."""

    def __init__(self, what: str, hear: Heard | None = None) -> None:
        self.messages: list[AnyMessage] = []
        self.status: int | None = None
        self._hear = hear
        self._changed = asyncio.Event()
        self.child = Child(
            7,
            "small child",
            "tests.fixtures.small_child",
            environment={**os.environ, "SMALL_CHILD": what, "PYTHONPATH": os.getcwd()},  # noqa: PTH109
            cpus=sorted(os.sched_getaffinity(0)),
            on_message=self._message,
            on_exit=self._exit,
        )

    def _message(self, child: Child, message: AnyMessage, fds: list[int]) -> None:
        assert child is self.child
        for fd in fds:
            os.close(fd)
        self.messages.append(message)
        self._changed.set()
        if self._hear is not None:
            self._hear(child, message)

    def _exit(self, child: Child, status: int) -> None:
        assert child is self.child
        assert self.status is None, "a child ends once"
        self.status = status
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> int:
        await self.until(lambda: self.status is not None)
        assert self.status is not None
        return self.status


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario; nothing of its child may stay open."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    asyncio.run(scenario())
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_messages_and_descriptors_go_there_and_answers_come_back() -> None:
    async def scenario() -> None:
        watch = Watch("echo")
        read_fd, write_fd = os.pipe()
        watch.child.send(Collect(seq=4), [write_fd])
        os.close(write_fd)
        watch.child.send(Collect(seq=5))
        await watch.until(lambda: len(watch.messages) == 3)
        assert watch.messages == [Hello(pid=watch.child.pid, abi=os.getpid()), Ack(seq=4), Ack(seq=5)]
        assert os.read(read_fd, 16) == b"hello"
        os.close(read_fd)
        assert watch.child.spent_cpu_seconds == 0
        watch.child.send(Stop())
        assert await watch.end() == 0
        assert 0.01 <= watch.child.spent_cpu_seconds < SECONDS
        watch.child.send(Stop(), [0])
        watch.child.kill()

    run(scenario)


def test_last_words_are_heard_before_the_end() -> None:
    async def scenario() -> None:
        watch = Watch("exit")
        assert await watch.end() == 3
        assert watch.messages[1:] == [LaneFailed(lane=1, reason="last words")]

    run(scenario)


def test_a_child_that_is_killed_has_the_signal_as_its_status() -> None:
    async def scenario() -> None:
        assert await Watch("die").end() == -signal.SIGTERM
        watch = Watch("echo")
        watch.child.kill()
        assert await watch.end() == -signal.SIGKILL

    run(scenario)


def test_messages_wait_in_order_for_a_child_that_does_not_read() -> None:
    async def scenario() -> None:
        watch = Watch("echo")
        await watch.until(lambda: watch.messages)
        watch.child.kill(signal.SIGSTOP)
        os.waitid(os.P_PID, watch.child.pid, os.WSTOPPED | os.WNOWAIT)  # noqa: ASYNC222 - it is stopping already
        number = 0
        while len(watch.child._outbox) < 20:
            watch.child.send(Collect(seq=number))
            number += 1
        watch.child.kill(signal.SIGCONT)
        await watch.until(lambda: len(watch.messages) == number + 1)
        assert watch.messages[1:] == [Ack(seq=seq) for seq in range(number)]
        watch.child.send(Stop())
        assert await watch.end() == 0

    run(scenario)


def test_a_child_that_never_reads_is_killed_before_its_messages_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child_module, "OUTBOX_LIMIT", 50)

    async def scenario() -> None:
        watch = Watch("deaf")
        await watch.until(lambda: watch.messages)
        read_fd, write_fd = os.pipe()
        for seq in range(20_000):
            watch.child.send(Collect(seq=seq), [write_fd])
        assert not watch.child._outbox
        assert await watch.end() == -signal.SIGKILL
        for fd in (read_fd, write_fd):
            os.close(fd)

    run(scenario)
    assert [record.message.partition(") ")[2] for record in caplog.records] == [
        "does not read its messages and is killed"
    ]


def test_a_child_that_talks_nonsense_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        assert await Watch("nonsense").end() == -signal.SIGKILL

    run(scenario)
    assert "sent what cannot be read" in caplog.text


def test_a_child_that_talks_on_and_on_keeps_nothing_else_waiting() -> None:
    turns: list[int] = []

    async def scenario() -> None:
        watch = Watch("flood")
        heard = 0
        while len(watch.messages) < 10_000:
            turns.append(len(watch.messages) - heard)
            heard = len(watch.messages)
            await asyncio.sleep(0)
        watch.child.kill()
        assert await watch.end() == -signal.SIGKILL

    run(scenario)
    assert max(turns) <= child_module._MESSAGES_AT_ONCE


def test_a_message_that_cannot_be_handled_ends_the_child_loudly_and_not_the_supervisor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Child, message: AnyMessage) -> None:
        if isinstance(message, Ack):
            raise KeyError("a bug")

    async def scenario() -> None:
        watch = Watch("echo", fail)
        watch.child.send(Collect(seq=1))
        watch.child.send(Collect(seq=2))
        assert await watch.end() == -signal.SIGKILL
        assert watch.messages[1:] == [Ack(seq=1)], "nothing is handled after the failure"

    run(scenario)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "small child sent Ack, which failed" in caplog.text
    assert "KeyError: 'a bug'" in caplog.text


def test_a_child_that_cannot_be_started_leaves_nothing_open() -> None:
    async def scenario() -> None:
        with pytest.raises(OSError, match="Invalid argument"):
            Child(
                *(1, "nowhere", "tests.fixtures.small_child"),
                environment={},
                cpus=[100_000],
                on_message=lambda *_: None,
                on_exit=lambda *_: None,
            )

    run(scenario)


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_end_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words


def logged_by(what: str, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and message of what is logged of a child until its end."""
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        await Watch(what).end()

    run(scenario)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_what_a_child_prints_is_logged_and_its_last_words_again(caplog: pytest.LogCaptureFixture) -> None:
    assert logged_by("print", caplog) == [("INFO", "said"), ("ERROR", "last words, exit status 3")]
    event = caplog.records[-1].predictd_relayed.event  # type: ignore[attr-defined]
    assert event.blocks == {"stack": "Fatal Python error: a test", "last_output": "said\nlast \x1b[31m"}


@pytest.mark.parametrize("what", ["murmur", "murmur deeply", "murmur of the end of time"])
def test_an_event_that_cannot_be_read_is_told(what: str, caplog: pytest.LogCaptureFixture) -> None:
    ((level, message),) = logged_by(what, caplog)
    assert level == "WARNING"
    assert message.startswith("logged what cannot be read: ")


def test_a_process_that_keeps_the_pipe_of_a_dead_child_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert logged_by("leave the pipe open", caplog) == [("INFO", "said")]
