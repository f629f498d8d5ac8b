"""Shared memory has one writer, and the kernel sees to it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from predictd.server.transport.memory import F_ADD_SEALS, F_SEAL_SHRINK, create_shared, map_shared

SIZE_BYTES = 3 * mmap.PAGESIZE
F_GET_SEALS = 1034


@pytest.fixture
def shared() -> Iterator[tuple[int, mmap.mmap]]:
    fd, mapping = create_shared("predictd-test", SIZE_BYTES)
    yield fd, mapping
    os.close(fd)
    mapping.close()


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def test_readers_see_what_the_maker_writes(shared: tuple[int, mmap.mmap]) -> None:
    fd, mapping = shared
    with map_shared(fd, SIZE_BYTES) as reader:
        mapping[100:104] = b"here"
        assert reader[100:104] == b"here"


def test_the_memory_is_there_before_it_is_touched(shared: tuple[int, mmap.mmap]) -> None:
    assert os.fstat(shared[0]).st_blocks * 512 >= SIZE_BYTES


def test_all_seals_are_set(shared: tuple[int, mmap.mmap]) -> None:
    # FUTURE_WRITE, GROW, SHRINK, SEAL (fcntl(2)).
    assert fcntl.fcntl(shared[0], F_GET_SEALS) & 0x1F == 0x10 | 0x04 | 0x02 | 0x01


def test_nobody_can_map_it_for_writing(shared: tuple[int, mmap.mmap]) -> None:
    with pytest.raises(PermissionError):
        mmap.mmap(shared[0], SIZE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def test_nobody_can_write_to_it(shared: tuple[int, mmap.mmap]) -> None:
    with pytest.raises(PermissionError):
        os.write(shared[0], b"mine")
    with pytest.raises(PermissionError):
        os.pwrite(shared[0], b"mine", 64)
    assert shared[1][:4] == b"\0\0\0\0"


def test_opening_it_anew_does_not_help(shared: tuple[int, mmap.mmap]) -> None:
    again = os.open(f"/proc/self/fd/{shared[0]}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.write(again, b"mine")
        with pytest.raises(PermissionError):
            mmap.mmap(again, SIZE_BYTES, mmap.MAP_SHARED, mmap.PROT_WRITE)
    finally:
        os.close(again)


def test_a_read_only_mapping_cannot_be_made_writable(shared: tuple[int, mmap.mmap]) -> None:
    with map_shared(shared[0], SIZE_BYTES) as reader:
        view = np.frombuffer(reader, np.uint8)
        address = view.ctypes.data
        del view
        libc = ctypes.CDLL(None, use_errno=True)
        protect = mmap.PROT_READ | mmap.PROT_WRITE
        result = libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), protect)
        assert result == -1
        assert ctypes.get_errno() == errno.EACCES


@pytest.mark.parametrize("size_bytes", [0, SIZE_BYTES - 1, SIZE_BYTES + mmap.PAGESIZE])
def test_nobody_can_change_its_size(shared: tuple[int, mmap.mmap], size_bytes: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(shared[0], size_bytes)


def test_no_seal_can_be_added(shared: tuple[int, mmap.mmap]) -> None:
    with pytest.raises(PermissionError):
        fcntl.fcntl(shared[0], F_ADD_SEALS, F_SEAL_SHRINK)


def test_what_readers_map_is_read_only(shared: tuple[int, mmap.mmap]) -> None:
    with map_shared(shared[0], SIZE_BYTES) as reader:
        with pytest.raises(TypeError):
            reader[0] = 1
        array = np.frombuffer(reader, np.uint8)
        assert not array.flags.writeable
        del array


def test_the_descriptor_may_be_closed_once_it_is_mapped() -> None:
    fd, mapping = create_shared("predictd-test", SIZE_BYTES)
    with mapping, map_shared(fd, SIZE_BYTES) as reader:
        os.close(fd)
        mapping[0:2] = b"ok"
        assert reader[0:2] == b"ok"


def test_less_memory_than_announced_is_refused(shared: tuple[int, mmap.mmap]) -> None:
    with pytest.raises(ValueError, match=f"has {SIZE_BYTES} bytes, {SIZE_BYTES + 1} were announced"):
        map_shared(shared[0], SIZE_BYTES + 1)


def test_memory_that_cannot_be_had_is_an_error_and_leaves_nothing() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = descriptors()
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE_BYTES, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            create_shared("predictd-test", SIZE_BYTES + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert descriptors() == before
