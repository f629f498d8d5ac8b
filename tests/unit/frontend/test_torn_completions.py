"""Something that is no record in the pipe of completions: the front end ends, rather than lose answers in silence."""

from __future__ import annotations

import os

import pytest

from predictd.server.frontend.fatal import TornPipeError
from predictd.server.transport.records import RECORD_BYTES
from tests.fixtures.scripted_workers import Rig, answered, play, send, settle, start


@pytest.mark.parametrize("size", [1, RECORD_BYTES - 1, RECORD_BYTES + 1])
def test_what_is_no_record_is_said_in_words(size: int) -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        task = send(rig, 1, 2)
        await settle(rig)
        tickets = pool.read()
        os.write(rig.completions.write_fd, bytes(size))
        with pytest.raises(TornPipeError, match="no completion is in the pipe of the workers"):
            rig.dispatcher.on_completions()
        await answered(rig, worker, tickets, task, 1, 2)

    play(scenario)
