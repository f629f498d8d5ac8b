"""The fake GPU catches what a real one would punish, or worse, let pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.fakes import cuda_driver, pycuda_driver
from tests.fakes.gpu import BrokenContractError, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def cuda(world: World) -> Any:
    return pycuda_driver.make(world)


@pytest.fixture
def stream(cuda: Any) -> Any:
    cuda.Device(0).retain_primary_context().push()
    return cuda.Stream(1)


def broken(match: str) -> Any:
    return pytest.raises(BrokenContractError, match=match)


def test_an_answer_that_is_read_too_early_is_not_there(cuda: Any, stream: Any) -> None:
    memory, source, target = (
        cuda.mem_alloc(4),
        cuda.pagelocked_empty(4, np.uint8),
        cuda.pagelocked_empty(4, np.uint8),
    )
    source[:] = 7
    cuda.memcpy_htod_async(int(memory), source, stream)
    cuda.memcpy_dtoh_async(target, int(memory), stream)
    done = cuda.Event(cuda.event_flags.DISABLE_TIMING).record(stream)
    assert not target.any()
    done.synchronize()
    assert (target == 7).all()


def test_memory_in_flight_may_neither_change_nor_go(cuda: Any, stream: Any) -> None:
    memory, source = cuda.mem_alloc(4), cuda.pagelocked_empty(4, np.uint8)
    cuda.memcpy_htod_async(int(memory), source, stream)
    with broken("freed in flight"):
        source.base.free()
    source[0] = 1
    with broken("changed while a copy"):
        stream.synchronize()


def test_copies_are_from_and_to_pinned_memory(world: World, cuda: Any, stream: Any) -> None:
    memory, plain = cuda.mem_alloc(4), np.zeros(4, np.uint8)
    with broken("not pinned"):
        cuda.memcpy_htod_async(int(memory), plain, stream)
    with broken("not pinned"):
        cuda.memcpy_dtoh_async(plain, int(memory), stream)
    calls = cuda_driver.make(world)
    calls.cuMemHostRegister(plain.ctypes.data, plain.nbytes, 9)
    cuda.memcpy_htod_async(int(memory), plain, stream)
    with broken("unregistered in flight"):
        calls.cuMemHostUnregister(plain.ctypes.data)
    with broken("not pinned"):
        cuda.memcpy_dtoh_async(plain, int(memory), stream)


def test_copies_are_no_larger_than_the_memory(cuda: Any, stream: Any) -> None:
    memory, source = cuda.mem_alloc(4), cuda.pagelocked_empty(8, np.uint8)
    with broken("more bytes"):
        cuda.memcpy_htod_async(int(memory), source, stream)


def test_every_call_needs_a_context(cuda: Any) -> None:
    with broken("without a current context"):
        cuda.mem_alloc(4)
    with broken("not pushed"):
        cuda.Context.pop()


def test_what_is_left_is_noticed(world: World, cuda: Any, stream: Any) -> None:
    memory = cuda.mem_alloc(4)
    with broken("1 pieces of GPU memory"):
        world.nothing_left()
    memory.free()
    with broken("still current"):
        world.nothing_left()
    assert stream.handle
