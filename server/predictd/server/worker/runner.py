"""One batch from claim to completion: gather, run, scatter, answer."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from predictd.engines.api import Engine, EngineError, InvalidInputError, Signature
from predictd.server.config.lane import LaneConfig
from predictd.server.observe.recorder import WorkerRecorder
from predictd.server.transport.allocator import Block
from predictd.server.transport.blocks import HEADER_BYTES, ResponseLayout, encode_error
from predictd.server.transport.claims import ClaimWriter
from predictd.server.transport.records import COMPLETION, NO_SEGMENT, Records, Status, chunks
from predictd.server.worker.gather import Gatherer
from predictd.server.worker.request_memory import FrontendMemory
from predictd.server.worker.response_memory import NoResponseMemoryError, ResponseMemory
from predictd.server.worker.scatter import EncodedOutputs, fixed_layout, output_views

Array = npt.NDArray[Any]
_LAYOUTS_KEPT = 1024


@dataclass(slots=True)
class LoadedLane:
    """A warm model. `signature.batches` is what warm-up confirmed."""

    config: LaneConfig
    engine: Engine
    signature: Signature
    layouts: dict[int, ResponseLayout | None] = field(default_factory=dict)

    def layout(self, rows: int) -> ResponseLayout | None:
        """Where the outputs of a batch of `rows` go, None when only the run can tell."""
        if not self.signature.batches:
            return None
        if rows not in self.layouts:
            if len(self.layouts) >= _LAYOUTS_KEPT:
                self.layouts.clear()
            self.layouts[rows] = fixed_layout(self.config.lane, self.signature.outputs, rows)
        return self.layouts[rows]


@dataclass(frozen=True, slots=True)
class _Answer:
    """Where a batch was answered, or why it was not."""

    status: Status
    block: Block | None
    compute_ns: int


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
        self._worker = worker
        self._memory = memory
        self._gatherer = Gatherer(memory)
        self._responses = responses
        self._claims = claims
        self._recorder = recorder

    def run(self, lane: LoadedLane, batch: Records) -> int:
        """Answer every ticket of a claimed batch, exactly once each.

        Returns:
            Nanoseconds that the engine ran.
        """
        self._claims.start()
        started_ns = time.monotonic_ns()
        answer = self._answer(lane, batch)
        if answer.status in (Status.INVALID_INPUT, Status.ENGINE_FAILED) and len(batch) > 1:
            # One request may have spoilt the run of its batch mates: each gets a run of its own.
            if answer.block is not None:
                self._responses.discard(answer.block)
            compute_ns = answer.compute_ns
            for index in range(len(batch)):
                single = batch[index : index + 1]
                alone = self._answer(lane, single)
                self._complete(lane, single, alone, started_ns)
                compute_ns += alone.compute_ns
        else:
            self._complete(lane, batch, answer, started_ns)
            compute_ns = answer.compute_ns
        self._claims.clear()
        self._responses.collect_releases()
        return compute_ns

    def drop(self, tickets: Records, status: Status, now_ns: int) -> None:
        """Complete tickets without a run."""
        completions = _completions(tickets, self._worker, now_ns)
        completions["status"] = status
        completions["segment"] = NO_SEGMENT
        self._send(tickets, completions)
        if status in (Status.EXPIRED, Status.CANCELLED):
            for lane in np.unique(tickets["lane"]):
                count = int((tickets["lane"] == lane).sum())
                self._recorder.dropped(
                    int(lane), "expired" if status is Status.EXPIRED else "cancelled", count
                )

    def _answer(self, lane: LoadedLane, batch: Records) -> _Answer:
        """Run a batch and put its outputs, or the reason why there are none, into a response block."""
        started_ns = time.monotonic_ns()
        try:
            inputs = self._gatherer.inputs(batch)
            block = self._compute(lane, inputs, int(batch["rows"].sum()) if lane.signature.batches else 0)
        except (NoResponseMemoryError, MemoryError) as error:
            status, text = Status.NO_MEMORY, str(error) or "out of memory"
        except InvalidInputError as error:
            status, text = Status.INVALID_INPUT, str(error)
        except (EngineError, ValueError) as error:
            status, text = Status.ENGINE_FAILED, str(error)
        except Exception:
            logging.getLogger(__name__).exception(
                "engine %s failed on model %s", lane.engine.name, lane.config.model
            )
            status, text = Status.ENGINE_FAILED, "the engine failed"
        else:
            compute_ns = time.monotonic_ns() - started_ns
            self._recorder.ran(lane.config.lane, int(batch["rows"].sum()), len(batch), compute_ns)
            return _Answer(Status.OK, block, compute_ns)
        return _Answer(status, self._error_block(text), time.monotonic_ns() - started_ns)

    def _compute(self, lane: LoadedLane, inputs: Sequence[Array | None], rows: int) -> Block:
        """Run the engine, straight into a response block where the sizes are known before."""
        layout = lane.layout(rows) if rows else None
        limit = lane.signature.max_rows
        if layout is not None and (limit is None or rows <= limit):
            block = self._responses.block(layout.size_bytes)
            try:
                view = self._responses.view(block)
                out = output_views(layout, view)
                results = lane.engine.run(inputs, out)
                for destination, result, spec in zip(out, results, lane.signature.outputs, strict=True):
                    if result is not destination:
                        _check_shape(spec.name, result.shape, destination.shape)
                        np.copyto(destination, result)
                view[: len(layout.head)] = layout.head
            except BaseException:
                self._responses.discard(block)
                raise
            return block
        results = _run_in_slices(lane.engine, inputs, rows, limit)
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

    def _complete(self, lane: LoadedLane, batch: Records, answer: _Answer, started_ns: int) -> None:
        """Tell each front end where its answers are."""
        completions = _completions(batch, self._worker, started_ns)
        completions["status"] = answer.status
        completions["compute_ns"] = answer.compute_ns
        if lane.signature.batches:
            rows = batch["rows"]
            completions["rows"] = rows
            completions["first_row"][1:] = np.cumsum(rows)[:-1]
            completions["batch_rows"] = rows.sum()
        if answer.block is None:
            completions["segment"] = NO_SEGMENT
            self._send(batch, completions)
            return
        completions["segment"] = answer.block.segment
        completions["block"] = answer.block.index
        frontends = [int(f) for f in np.unique(batch["frontend"])]
        answers = {
            f: int((batch["frontend"] == f).sum()) for f in frontends if f in self._memory.completion_fds
        }
        if not answers:
            self._responses.discard(answer.block)
            return
        for frontend, count in answers.items():
            completions["answers"][batch["frontend"] == frontend] = count
        self._responses.hold(answer.block, answers)
        self._send(batch, completions)

    def _send(self, tickets: Records, completions: Records) -> None:
        """Write completions to their front ends. In-flight limits keep a completion pipe from filling up."""
        frontends = tickets["frontend"]
        for frontend in np.unique(frontends):
            fd = self._memory.completion_fds.get(int(frontend))
            if fd is not None:
                # A front end that just died takes no answers; its clients are gone with it.
                with contextlib.suppress(BrokenPipeError):
                    for chunk in chunks(completions[frontends == frontend].tobytes()):
                        os.write(fd, chunk)


def _completions(tickets: Records, worker: int, now_ns: int) -> Records:
    completions = np.zeros(len(tickets), COMPLETION)
    for name in ("slot", "generation", "lane"):
        completions[name] = tickets[name]
    completions["worker"] = worker
    completions["queue_ns"] = np.maximum(now_ns - tickets["enqueued_ns"], 0)
    return completions


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
