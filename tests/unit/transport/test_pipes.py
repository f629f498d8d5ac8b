"""Pipes as the kernel grants them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from predictd.server.transport.pipes import Pipe, capacity, depth, make_pipe
from predictd.server.transport.records import PIPE_BUF_BYTES, RECORD_BYTES

RECORD = bytes(range(RECORD_BYTES))
NOBODY = 65534


@contextmanager
def pipe(records: int | None = None) -> Iterator[Pipe]:
    made = make_pipe() if records is None else make_pipe(records)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's exemption from limits."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def setting(name: str) -> int:
    return int(Path("/proc/sys/fs", name).read_text())


def fill(made: Pipe, write: bytes) -> int:
    """Write until the kernel says "full"; the records that went in."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            count += os.write(made.write_fd, write) // RECORD_BYTES
    return count


def test_both_ends_never_block_and_are_not_inherited() -> None:
    with pipe() as made:
        for fd in (made.read_fd, made.write_fd):
            assert not os.get_blocking(fd)
            assert not os.get_inheritable(fd)
        with pytest.raises(BlockingIOError):
            os.read(made.read_fd, RECORD_BYTES)


def test_a_pipe_holds_as_many_records_as_it_says() -> None:
    with pipe() as made:
        assert made.records == capacity(made.read_fd)
        assert fill(made, RECORD) == made.records
        assert made.depth() == depth(made.write_fd) == made.records


def test_a_full_pipe_takes_one_more_record_only_once_a_page_is_empty() -> None:
    with pipe() as made:
        fill(made, RECORD)
        os.read(made.read_fd, PIPE_BUF_BYTES - RECORD_BYTES)
        with pytest.raises(BlockingIOError):
            os.write(made.write_fd, RECORD)
        os.read(made.read_fd, RECORD_BYTES)
        assert os.write(made.write_fd, RECORD) == RECORD_BYTES


def test_writes_that_do_not_fill_their_pages_still_fill_half_of_the_pipe() -> None:
    """What the in-flight limit of a front end rests on."""
    with pipe() as made:
        written = 0
        with suppress(BlockingIOError):
            while True:
                written += os.write(made.write_fd, RECORD * 33) // RECORD_BYTES
        assert made.records // 2 <= written < made.records


def test_the_depth_counts_what_was_written_and_not_read() -> None:
    with pipe() as made:
        assert made.depth() == 0
        os.write(made.write_fd, RECORD * 5)
        assert made.depth() == 5
        assert os.read(made.read_fd, 2 * RECORD_BYTES) == RECORD * 2
        assert made.depth() == 3


def test_a_larger_pipe_is_granted_where_it_is_asked_for() -> None:
    with pipe(4096) as made:
        assert made.records == 4096
        assert fill(made, RECORD * 64) == 4096


def test_a_size_between_two_powers_is_rounded_up() -> None:
    with pipe(1025) as made:
        assert made.records == 2048


def test_fewer_records_than_the_default_leave_the_default() -> None:
    with pipe() as default, pipe(10) as made:
        assert made.records == default.records


def test_beyond_the_largest_size_an_unprivileged_user_gets_the_largest() -> None:
    largest = setting("pipe-max-size") // RECORD_BYTES
    with unprivileged(), pipe(largest * 6) as made:
        assert largest // 2 < made.records <= largest


def test_with_the_quota_used_up_a_pipe_is_small_but_works() -> None:
    pages = setting("pipe-user-pages-soft")
    if not 0 < pages <= 1 << 16:
        pytest.skip("this machine has no small quota of pipe pages")
    largest_bytes = setting("pipe-max-size")
    made: list[Pipe] = []
    with unprivileged():
        try:
            while len(made) < pages // (largest_bytes // 4096) + 2:
                made.append(make_pipe(largest_bytes // RECORD_BYTES))
            made.append(make_pipe(4096))
            last = made[-1]
            assert 64 <= last.records < 4096
            assert fill(last, RECORD) == last.records == last.depth()
        finally:
            for one in made:
                one.close()


def test_an_absurd_wish_gets_what_the_kernel_has() -> None:
    with unprivileged(), pipe(2**50) as made:
        assert made.records * RECORD_BYTES <= setting("pipe-max-size")
