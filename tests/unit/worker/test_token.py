"""The leader token excludes other processes, and dies with its holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from predictd.server.transport.pipes import Pipe, make_pipe
from predictd.server.worker.token import LeaderToken

# Holds the token until its standard input ends; then gives it up, and ends when it reads the end of that too.
HOLDER = """
import sys
from predictd.server.worker.token import LeaderToken
token = LeaderToken(*map(int, sys.argv[1:]), contended=True)
print(token.try_acquire(), flush=True)
for line in sys.stdin:
    if line == "release\\n":
        token.release()
    elif line == "acquire\\n":
        print(token.try_acquire(), flush=True)
    print("done", flush=True)
"""


@contextmanager
def lock() -> Iterator[tuple[int, Pipe]]:
    fd = os.memfd_create("test-leader", os.MFD_CLOEXEC)
    baton = make_pipe()
    try:
        yield fd, baton
    finally:
        baton.close()
        os.close(fd)


@contextmanager
def holder(fd: int, baton: Pipe) -> Iterator[subprocess.Popen[str]]:
    """Another process with the same descriptors."""
    fds = (fd, baton.read_fd, baton.write_fd)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, fds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=fds,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def test_a_token_is_taken_and_given_up() -> None:
    with lock() as (fd, baton):
        token = LeaderToken(fd, baton.read_fd, baton.write_fd, contended=True)
        assert token.baton_fd == baton.read_fd
        assert token.try_acquire()
        token.release()
        assert token.try_acquire()


def test_only_one_process_holds_it() -> None:
    with lock() as (fd, baton), holder(fd, baton) as other:
        token = LeaderToken(fd, baton.read_fd, baton.write_fd, contended=True)
        assert hear(other) == "True"
        assert not token.try_acquire()
        say(other, "release")
        assert hear(other) == "done"
        assert token.try_acquire()
        say(other, "acquire")
        assert hear(other) == "False"


def test_it_dies_with_its_holder() -> None:
    with lock() as (fd, baton), holder(fd, baton) as other:
        token = LeaderToken(fd, baton.read_fd, baton.write_fd, contended=True)
        assert hear(other) == "True"
        assert not token.try_acquire()
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=30)
        assert token.try_acquire()


def test_a_child_of_the_holder_does_not_inherit_it() -> None:
    with lock() as (fd, baton):
        token = LeaderToken(fd, baton.read_fd, baton.write_fd, contended=True)
        assert token.try_acquire()
        with holder(fd, baton) as child:
            assert hear(child) == "False"
        # The child's exit closed its descriptor of the same file, which must not cost us the token.
        with holder(fd, baton) as child:
            assert hear(child) == "False"


def test_a_release_wakes_a_waiting_worker_with_a_baton_that_the_next_holder_takes() -> None:
    with lock() as (fd, baton):
        token = LeaderToken(fd, baton.read_fd, baton.write_fd, contended=True)
        token.try_acquire()
        for _ in range(3):
            token.release()
        assert len(os.read(baton.read_fd, 64)) == 3
        token.release()
        assert token.try_acquire()
        assert baton.depth() == 0


def test_who_tries_in_vain_takes_the_baton_and_sleeps_on() -> None:
    with lock() as (fd, baton), holder(fd, baton) as other:
        token = LeaderToken(fd, baton.read_fd, baton.write_fd, contended=True)
        assert hear(other) == "True"
        os.write(baton.write_fd, b"\0")
        assert not token.try_acquire()
        assert baton.depth() == 0
        with pytest.raises(BlockingIOError):
            os.read(baton.read_fd, 1)


def test_batons_that_nobody_takes_never_block_a_release() -> None:
    with lock() as (fd, baton):
        token = LeaderToken(fd, baton.read_fd, baton.write_fd, contended=True)
        os.write(baton.write_fd, bytes(64 * baton.records))
        token.release()
        assert baton.depth() == baton.records


def test_a_worker_that_is_alone_wakes_nobody() -> None:
    with lock() as (fd, baton):
        token = LeaderToken(fd, baton.read_fd, baton.write_fd, contended=False)
        assert token.try_acquire()
        token.release()
        os.set_blocking(baton.read_fd, False)
        assert os.fstat(baton.read_fd).st_size == 0
        assert baton.depth() == 0


def test_a_worker_that_is_alone_keeps_it_until_it_resigns() -> None:
    with lock() as (fd, baton):
        token = LeaderToken(fd, baton.read_fd, baton.write_fd, contended=False)
        assert token.try_acquire()
        token.release()
        assert token.try_acquire()
        with holder(fd, baton) as other:
            assert hear(other) == "False"
        token.resign()
        with holder(fd, baton) as other:
            assert hear(other) == "True"
