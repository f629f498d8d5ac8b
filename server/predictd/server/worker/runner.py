"""One batch from claim to completion: gather, run, scatter, answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from predictd.engines.api import (
    DeviceLostError,
    Engine,
    EngineError,
    InvalidInputError,
    RunsRows,
    Signature,
    TensorSpec,
)
from predictd.server.config.lane import LaneConfig
from predictd.server.observe.recorder import DropReason, WorkerRecorder
from predictd.server.transport.allocator import Block
from predictd.server.transport.blocks import HEADER_BYTES, ResponseLayout, encode_error
from predictd.server.transport.claims import ClaimWriter
from predictd.server.transport.records import Records, Status, TicketFlag
from predictd.server.worker.batch import Batch, batch_of
from predictd.server.worker.completions import CompletionWriter, Outcome
from predictd.server.worker.efficiency import Efficiency
from predictd.server.worker.engine_errors import EngineErrors
from predictd.server.worker.engine_memory import EngineMemory
from predictd.server.worker.gather import Gatherer
from predictd.server.worker.request_memory import FrontendMemory
from predictd.server.worker.response_memory import NoResponseMemoryError, ResponseMemory
from predictd.server.worker.run_times import RunTimes
from predictd.server.worker.scatter import EncodedOutputs, fixed_layout, output_views

Array = npt.NDArray[Any]
_LAYOUTS_KEPT = 1024
# Blocks come back in time for reuse, and the release pipe never fills up.
RUNS_BETWEEN_RELEASES = 16


@dataclass(slots=True)
class LoadedLane:
    """A warm model.

    Attributes:
        signature: As clients see it; `batches` is what warm-up confirmed.
        labels: Digests of the labels files, by output.
        layouts: What `layout` remembers.
        efficiency: What is learned about the size of its batches; None where the configuration decides alone, or
            where rows of different requests cost differently.
        memory: What is known of the memory that its engine holds; None for an engine that cannot give any back.
        run_times: What is learned about how long its runs take.
        loaded: The engine itself, without what fits it to the configuration.
        by_rows: The engine, where it cuts batches by itself.
    """

    config: LaneConfig
    engine: Engine
    signature: Signature
    labels: dict[str, str] = field(default_factory=dict)
    layouts: dict[int, ResponseLayout | None] = field(default_factory=dict)
    efficiency: Efficiency | None = None
    memory: EngineMemory | None = None
    run_times: RunTimes = field(default_factory=RunTimes)
    loaded: Engine | None = None
    by_rows: RunsRows | None = field(init=False)

    def __post_init__(self) -> None:
        self.by_rows = self.engine if isinstance(self.engine, RunsRows) else None

    def layout(self, rows: int) -> ResponseLayout | None:
        """Where the outputs of a batch of `rows` go, None when only the run can tell."""
        if not self.signature.batches:
            return None
        if rows not in self.layouts:
            if len(self.layouts) >= _LAYOUTS_KEPT:
                self.layouts.clear()
            self.layouts[rows] = fixed_layout(self.config.lane, self.signature.outputs, rows)
        return self.layouts[rows]


class Runner:
    """Runs claimed batches. Owns nothing but the order of the steps."""

    def __init__(
        self,
        worker: int,
        memory: FrontendMemory,
        responses: ResponseMemory,
        claims: ClaimWriter,
        recorder: WorkerRecorder,
    ) -> None:
        self._gatherer = Gatherer(memory)
        self._completions = CompletionWriter(worker, memory.completion_fds)
        self._responses = responses
        self._claims = claims
        self._recorder = recorder
        self._errors = EngineErrors()
        self._runs = 0

    def run(self, lane: LoadedLane, batch: Batch) -> int:
        """Answer every ticket of a claimed batch, exactly once each.

        Returns:
            Nanoseconds that the engine ran.
        """
        self._claims.start()
        started_ns = time.monotonic_ns()
        answer = self._answer(lane, batch)
        compute_ns = answer.compute_ns
        if answer.status in (Status.INVALID_INPUT, Status.ENGINE_FAILED) and len(batch.tickets) > 1:
            # One request may have spoilt the run of its batch mates: each gets a run of its own.
            if answer.block is not None:
                self._responses.discard(answer.block)
            for index in range(len(batch.tickets)):
                single = batch_of(batch.tickets[index : index + 1], uniform=True)
                self._claims.busy()
                alone = self._answer(lane, single)
                self._complete(lane, single, alone, started_ns)
                compute_ns += alone.compute_ns
        else:
            self._complete(lane, batch, answer, started_ns)
        self._claims.clear()
        self._runs += 1
        if self._runs % RUNS_BETWEEN_RELEASES == 0:
            self._responses.collect_releases()
        return compute_ns

    def drop(self, tickets: Records, status: Status, now_ns: int, *, hopeless: bool = False) -> None:
        """Complete tickets without a run.

        Args:
            tickets: Of any lanes.
            status: Why.
            now_ns: CLOCK_MONOTONIC.
            hopeless: They are before their deadline, which is too near for a run.
        """
        self._completions.drop(tickets, status, now_ns)
        if status in (Status.EXPIRED, Status.CANCELLED):
            ended = (
                tickets[(tickets["flags"] & TicketFlag.DELAY) == 0] if status is Status.EXPIRED else tickets
            )
            reason: DropReason = (
                "cancelled" if status is Status.CANCELLED else "too_near" if hopeless else "expired"
            )
            for lane in np.unique(ended["lane"]):
                count = int((ended["lane"] == lane).sum())
                self._recorder.dropped(int(lane), reason, count)

    def _answer(self, lane: LoadedLane, batch: Batch) -> Outcome:
        """Run a batch and put its outputs, or the reason why there are none, into a response block."""
        started_ns = time.monotonic_ns()
        try:
            inputs = self._gatherer.inputs(batch)
            block = self._compute(lane, inputs, batch.rows if lane.signature.batches else 0)
        except (NoResponseMemoryError, MemoryError) as error:
            status, text = Status.NO_MEMORY, str(error) or "out of memory"
        except DeviceLostError:
            raise
        except InvalidInputError as error:
            status, text = Status.INVALID_INPUT, self._errors.refused(lane.config, error)
        except (EngineError, ValueError) as error:
            status, text = Status.ENGINE_FAILED, self._errors.failed(lane.config, error, expected=True)
        except Exception as error:  # noqa: BLE001 - an engine of the user's own may raise anything
            status, text = Status.ENGINE_FAILED, self._errors.failed(lane.config, error, expected=False)
        else:
            compute_ns = time.monotonic_ns() - started_ns
            self._recorder.ran(lane.config.lane, batch.rows, len(batch.tickets), compute_ns)
            return Outcome(Status.OK, block, compute_ns)
        return Outcome(status, self._error_block(text), time.monotonic_ns() - started_ns)

    def _compute(self, lane: LoadedLane, inputs: Sequence[Array | None], rows: int) -> Block:
        """Run the engine, straight into a response block where the sizes are known before."""
        layout = lane.layout(rows) if rows else None
        limit = lane.signature.max_rows
        by_rows = lane.by_rows
        if layout is not None and (limit is None or rows <= limit or by_rows is not None):
            block = self._responses.block(layout.size_bytes)
            try:
                view = self._responses.view(block)
                out = output_views(layout, view)
                results = lane.engine.run(inputs, out) if by_rows is None else by_rows.run_rows(inputs, out)
                _check_count(results, lane.signature.outputs)
                for destination, result, spec in zip(out, results, lane.signature.outputs, strict=True):
                    if result is not destination:
                        _check_type(result, spec)
                        _check_shape(spec.name, result.shape, destination.shape)
                        np.copyto(destination, result)
                view[: len(layout.head)] = layout.head
            except BaseException:
                self._responses.discard(block)
                raise
            return block
        if by_rows is not None and rows:
            results = by_rows.run_rows(inputs)
        else:
            results = _run_in_slices(lane.engine, inputs, rows, limit)
        _check_count(results, lane.signature.outputs)
        for result, spec in zip(results, lane.signature.outputs, strict=True):
            _check_type(result, spec)
        if lane.signature.batches:
            for result, spec in zip(results, lane.signature.outputs, strict=True):
                if not result.shape or result.shape[0] != rows:
                    raise EngineError(
                        f"output '{spec.name}' has shape {list(result.shape)} for a batch of {rows} rows"
                    )
        encoded = EncodedOutputs(
            lane.config.lane, rows, lane.signature.outputs, results, batches=lane.signature.batches
        )
        block = self._responses.block(encoded.layout.size_bytes)
        view = self._responses.view(block)
        view[: len(encoded.layout.head)] = encoded.layout.head
        encoded.write(view)
        return block

    def _error_block(self, text: str) -> Block | None:
        encoded = encode_error(text)
        try:
            block = self._responses.block(max(len(encoded), HEADER_BYTES))
        except NoResponseMemoryError:
            return None
        self._responses.view(block)[: len(encoded)] = encoded
        return block

    def _complete(self, lane: LoadedLane, batch: Batch, outcome: Outcome, started_ns: int) -> None:
        """Tell each front end where its answers are."""
        parts = self._completions.parts(batch)
        if outcome.block is not None and parts:
            self._responses.hold(outcome.block, {part.frontend: part.answers for part in parts})
        elif outcome.block is not None:
            self._responses.discard(outcome.block)
        self._completions.answer(batch, parts, outcome, started_ns, batches=lane.signature.batches)


def _check_count(results: Sequence[Array], outputs: Sequence[TensorSpec]) -> None:
    if len(results) != len(outputs):
        raise EngineError(
            f"the engine gave {len(results)} outputs, the model's signature says {len(outputs)}"
        )


def _check_type(result: Array, spec: TensorSpec) -> None:
    """An engine gives what its signature says, or its answers would be read as something else."""
    if result.dtype != spec.dtype.numpy:
        raise EngineError(
            f"output '{spec.name}' has type {result.dtype}, the model's signature says {spec.dtype.name}"
        )


def _check_shape(name: str, actual: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if actual != expected:
        raise EngineError(
            f"output '{name}' has shape {list(actual)}, the model's signature says {list(expected)}"
        )


def _run_in_slices(
    engine: Engine, inputs: Sequence[Array | None], rows: int, limit: int | None
) -> list[Array]:
    """Run a batch that may have more rows than the engine takes at once."""
    if limit is None or rows <= limit:
        return engine.run(inputs)
    parts = [
        engine.run([None if array is None else array[at : at + limit] for array in inputs])
        for at in range(0, rows, limit)
    ]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
