"""Something that is no record in the pipe of completions: the front end ends, rather than lose answers in silence."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios

import pytest

from predictd.server.frontend.fatal import TornPipeError
from predictd.server.transport.records import RECORD_BYTES
from tests.fixtures.frontend import doubled
from tests.native.hot_rig import HotRig, call, play, predict, started, tickets, until


def waiting_bytes(fd: int) -> int:
    waiting = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, waiting)
    return waiting[0]


@pytest.mark.parametrize("size", [1, RECORD_BYTES - 1, RECORD_BYTES + 1])
def test_what_is_no_record_is_told_to_python_which_ends_the_front_end(size: int) -> None:
    async def scenario(rig: HotRig) -> None:
        pool, worker = await started(rig, 1, 2)
        loop, records = asyncio.get_running_loop(), rig.hot.records.read_fd
        loop.remove_reader(records)
        asked = call(rig, predict(3, 4))
        found = await tickets(pool, 1)
        os.write(rig.completions.write_fd, b"\xff" * size)
        await until(lambda: waiting_bytes(records) % RECORD_BYTES)
        with pytest.raises(TornPipeError):
            rig.dispatcher.on_completions()
        loop.add_reader(records, rig.dispatcher.on_completions)
        worker.answer(found)
        assert (await asked).outputs[0].data == doubled(3, 4)

    play(scenario)
