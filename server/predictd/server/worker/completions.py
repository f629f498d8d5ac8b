"""Telling front ends what became of their tickets: one record, repeated for each but for what differs."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from predictd.server.transport.allocator import Block
from predictd.server.transport.records import (
    COMPLETION_STRUCT,
    NO_SEGMENT,
    PIPE_BUF_BYTES,
    RECORD_BYTES,
    Records,
    Status,
    chunks,
    words,
)
from predictd.server.worker.batch import Batch

Columns = npt.NDArray[np.int64]
Selection = npt.NDArray[np.intp] | slice

_COMPLETION = struct.Struct(COMPLETION_STRUCT)
# Words of a completion. Of two fields in one the second is the upper half.
_SLOT_AND_GENERATION, _FIRST_ROW_AND_ROWS, _ANSWERS_AND_LANE, _QUEUE_NS = 0, 1, 4, 5
_UPPER = 32
_SLOT_AND_GENERATION_OF_TICKET = 4
_ALL = slice(None)


class Outcome(NamedTuple):
    """Where a batch was answered, or why it was not."""

    status: Status
    block: Block | None
    compute_ns: int


class Part(NamedTuple):
    """The tickets of one front end among others."""

    frontend: int
    answers: int
    selection: Selection


class CompletionWriter:
    """Writes completions of one worker.

    Args:
        worker: Its id.
        completion_fds: Pipes of the front ends that live, which changes.
    """

    def __init__(self, worker: int, completion_fds: Mapping[int, int]) -> None:
        self._worker = worker
        self._fds = completion_fds

    def parts(self, batch: Batch) -> list[Part]:
        """The tickets of a batch by front end, the dead left out."""
        if batch.together:
            frontend = batch.first.frontend
            return [Part(frontend, len(batch.tickets), _ALL)] if frontend in self._fds else []
        return self._by_frontend(batch.tickets)

    def answer(
        self, batch: Batch, parts: list[Part], outcome: Outcome, started_ns: int, *, batches: bool
    ) -> None:
        """Complete the tickets of a batch.

        Args:
            batch: That was run.
            parts: Of it.
            outcome: Of the run.
            started_ns: When the tickets ended to wait.
            batches: The model has rows.
        """
        first, block = batch.first, outcome.block
        segment, index = (NO_SEGMENT, 0) if block is None else (block.segment, block.index)
        rows, batch_rows = (first.rows, batch.rows) if batches else (0, 0)
        tail = (outcome.compute_ns, outcome.status)
        if len(batch.tickets) == 1:
            place = (0, rows, self._worker, segment, index, batch_rows, 1, first.lane)
            queue_ns = max(started_ns - first.enqueued_ns, 0)
            record = _COMPLETION.pack(first.slot, first.generation, *place, queue_ns, *tail)
            for frontend, _, _ in parts:
                self._write(frontend, record)
            return
        record = _COMPLETION.pack(
            0, 0, 0, 0, self._worker, segment, index, batch_rows, 0, first.lane, 0, *tail
        )
        columns = _repeat(record, batch.tickets, started_ns)
        if batches:
            columns[:, _FIRST_ROW_AND_ROWS] = _rows(batch)
        for frontend, answers, selection in parts:
            columns[selection, _ANSWERS_AND_LANE] += answers
            self._write(frontend, columns[selection].tobytes())

    def drop(self, tickets: Records, status: Status, now_ns: int) -> None:
        """Complete tickets of any lanes without an answer."""
        record = _COMPLETION.pack(0, 0, 0, 0, self._worker, NO_SEGMENT, 0, 0, 0, 0, 0, 0, status)
        columns = _repeat(record, tickets, now_ns)
        columns[:, _ANSWERS_AND_LANE] = tickets["lane"].astype(np.int64) << _UPPER
        for frontend, _, selection in self._by_frontend(tickets):
            self._write(frontend, columns[selection].tobytes())

    def _by_frontend(self, tickets: Records) -> list[Part]:
        frontends = tickets["frontend"]
        parts = []
        for frontend in map(int, np.unique(frontends)):
            if frontend in self._fds:
                selection = np.flatnonzero(frontends == frontend)
                parts.append(Part(frontend, len(selection), selection))
        return parts

    def _write(self, frontend: int, completions: bytes) -> None:
        """Its in-flight limit keeps the pipe of a front end from filling up."""
        fd = self._fds[frontend]
        try:
            if len(completions) <= PIPE_BUF_BYTES:
                os.write(fd, completions)
                return
            for chunk in chunks(completions):
                os.write(fd, chunk)
        except BrokenPipeError:
            # A front end that just died takes no answers; its clients are gone with it.
            return


def _repeat(record: bytes, tickets: Records, now_ns: int) -> Columns:
    """The record for each ticket, as words: with its slot and generation, and with how long it has waited."""
    columns = np.frombuffer(bytearray(record * len(tickets)), np.int64).reshape(-1, RECORD_BYTES // 8)
    columns[:, _SLOT_AND_GENERATION] = words(tickets)[:, _SLOT_AND_GENERATION_OF_TICKET]
    waited_ns = columns[:, _QUEUE_NS]
    np.subtract(now_ns, tickets["enqueued_ns"], out=waited_ns)
    np.maximum(waited_ns, 0, out=waited_ns)
    return columns


def _rows(batch: Batch) -> Columns:
    """Of each ticket, where its rows begin in the answer, and how many they are."""
    count = len(batch.tickets)
    if batch.uniform:
        rows = batch.first.rows
        return np.arange(count, dtype=np.int64) * rows + (rows << _UPPER)
    each = batch.tickets["rows"].astype(np.int64)
    return np.cumsum(each) - each + (each << _UPPER)
