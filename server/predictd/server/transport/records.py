"""The 64-byte records that pass through pipes, and the constants of the ABI.

Every record is little-endian and exactly RECORD_BYTES long, so that any number of writers may share a pipe:
writes of at most PIPE_BUF are neither split nor mixed (pipe(7)).
"""

from __future__ import annotations

import enum
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from predictd.server.transport.abi import ABI_VERSION as ABI_VERSION  # noqa: PLC0414 - one of these constants

RECORD_BYTES = 64
PIPE_BUF_BYTES = 4096
RECORDS_PER_WRITE = PIPE_BUF_BYTES // RECORD_BYTES

NO_DEADLINE_NS = 2**63 - 1
NO_SEGMENT = 0xFFFFFFFF

Records = npt.NDArray[Any]

# The order of the fields lets a reader compare what must be equal in a batch (words 1 to 3), or in one slab
# (word 0), and copy what a completion repeats (word 4) without touching single fields.
TICKET: np.dtype[Any] = np.dtype(
    [
        ("frontend", "<u4"),
        ("segment", "<u4"),
        ("lane", "<u4"),
        ("rows", "<u4"),
        ("shape_key", "<u8"),
        ("bytes", "<u4"),
        ("priority", "u1"),
        ("flags", "u1"),
        ("attempt", "u1"),
        ("reserved", "u1"),
        ("slot", "<u4"),
        ("generation", "<u4"),
        ("block", "<u4"),
        ("reserved2", "<u4"),
        ("enqueued_ns", "<i8"),
        ("deadline_ns", "<i8"),
    ]
)
TICKET_STRUCT = "<4IQI3BxIII4xqq"
_TICKET = struct.Struct(TICKET_STRUCT)


class Ticket(NamedTuple):
    """The fields of one ticket, for those who look at a single one: an array of one record costs several times that."""

    frontend: int
    segment: int
    lane: int
    rows: int
    shape_key: int
    size_bytes: int
    priority: int
    flags: int
    attempt: int
    slot: int
    generation: int
    block: int
    enqueued_ns: int
    deadline_ns: int

    @classmethod
    def unpack(cls, record: bytes) -> Ticket:
        """Read an encoded ticket."""
        return cls._make(_TICKET.unpack(record))


COMPLETION: np.dtype[Any] = np.dtype(
    [
        ("slot", "<u4"),
        ("generation", "<u4"),
        ("first_row", "<u4"),
        ("rows", "<u4"),
        ("worker", "<u4"),
        ("segment", "<u4"),
        ("block", "<u4"),
        ("batch_rows", "<u4"),
        ("answers", "<u4"),
        ("lane", "<u4"),
        ("queue_ns", "<u8"),
        ("compute_ns", "<u8"),
        ("status", "<u2"),
        ("reserved", "u1", (6,)),
    ]
)
COMPLETION_STRUCT = "<10IQQH6x"

RELEASE: np.dtype[Any] = np.dtype(
    [
        ("frontend", "<u4"),
        ("segment", "<u4"),
        ("block", "<u4"),
        ("count", "<u4"),
        ("reserved", "u1", (48,)),
    ]
)
RELEASE_STRUCT = "<4I48x"


class TicketFlag(enum.IntFlag):
    """What is special about a ticket."""

    ALONE = 1
    """Must not share a run: it was in a batch that killed its worker."""
    PROBE = 2
    """No request: it comes back once every older ticket of its queue was taken by a living worker."""
    VARYING = 4
    """Its tensors have no fixed size (strings), so it is gathered by itself."""
    DELAY = 8
    """Expired is not its end: its front end will put it into the last queue."""
    PATIENCE = 16
    """Its deadline says how long it may wait to be taken, not when it must be answered."""


class Status(enum.IntEnum):
    """How a ticket ended."""

    OK = 0
    EXPIRED = 1
    CANCELLED = 2
    INVALID_INPUT = 3
    ENGINE_FAILED = 4
    NO_MEMORY = 5
    UNKNOWN_LANE = 6
    PROBE = 7


def words(records: Records) -> npt.NDArray[np.uint64]:
    """The same memory as (records, 8) words."""
    # A view would ask, in Python, whether it is a safe one.
    return np.ndarray((len(records), 8), np.uint64, records)


def agree(records: Records, start: int, stop: int) -> bool:
    """Whether all records are the same from word `start` to word `stop`. There must be one."""
    columns = words(records)[:, start:stop]
    # As bytes: arrays that are compared cost three times that.
    first: bytes = columns[0].tobytes()
    return columns.tobytes() == first * len(columns)


def chunks(records: bytes) -> list[bytes]:
    """Cut encoded records into writes that a pipe keeps whole."""
    return [records[at : at + PIPE_BUF_BYTES] for at in range(0, len(records), PIPE_BUF_BYTES)]
