"""The pipe by which all workers tell a front end what became of its tickets."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from predictd.server.frontend.fatal import TornPipeError
from predictd.server.transport.records import COMPLETION_STRUCT, RECORD_BYTES

_COMPLETION = struct.Struct(COMPLETION_STRUCT)
_READ_BYTES = 1024 * RECORD_BYTES


def read_completions(fd: int) -> Iterator[tuple[int, ...]] | None:
    """The fields of the completions that one read gives; None when there was nothing.

    Raises:
        TornPipeError: Something else is in the pipe.
    """
    try:
        data = os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return None
    try:
        return _COMPLETION.iter_unpack(data)
    except struct.error:
        raise TornPipeError(
            "what is no completion is in the pipe of the workers, one of which is broken or was taken over: "
            "answers may be lost, so all that is in flight is given up"
        ) from None
