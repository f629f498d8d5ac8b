"""From tickets to answers: every request gets its own rows, whatever it shared its run with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from predictd.engines.api import DType, TensorSpec
from predictd.server.transport.pipes import depth
from predictd.server.transport.records import Status, TicketFlag
from tests.unit.worker.harness import WORKER, running
from tests.unit.worker.lanes import Array, double, doubling_lane, engine_of, make_lane
from tests.unit.worker.tensors import LARGE_WIDTH, rows_of


def texts(*rows: Sequence[bytes]) -> Array:
    result = np.empty((len(rows), len(rows[0])), object)
    for at, row in enumerate(rows):
        result[at] = row
    return result


# Batches ------------------------------------------------------------------------------------------------------


def test_one_request_is_run_where_it_lies() -> None:
    lane = doubling_lane(uses_out=True)
    with running(lane) as worker:
        frontend = worker.frontend()
        sent = frontend.ask(lane, rows_of(1, 2))
        assert worker.serve() == 1
        (answer,) = frontend.answers()
        assert (answer.slot, answer.generation, answer.status) == (sent.slot, sent.generation, Status.OK)
        np.testing.assert_array_equal(answer.outputs[0], 2 * rows_of(1, 2))
        assert engine_of(lane).given_out == [True]


def test_equal_requests_of_several_segments_and_front_ends_share_a_run() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        one, other = worker.frontend(1), worker.frontend(2)
        expected = {}
        for at, (frontend, apart) in enumerate([(one, False), (other, True), (one, True), (one, False)]):
            sent = frontend.ask(lane, rows_of(at, 2), new_segment=apart)
            expected[frontend.id, sent.slot] = 2 * rows_of(at, 2)
        assert worker.serve() == 1
        assert worker.batches[0].uniform
        answers = [(frontend, answer) for frontend in (one, other) for answer in frontend.answers()]
        assert {(frontend.id, answer.slot) for frontend, answer in answers} == set(expected)
        for frontend, answer in answers:
            np.testing.assert_array_equal(answer.outputs[0], expected[frontend.id, answer.slot])
            assert answer.completion["batch_rows"] == 8
            assert answer.completion["answers"] == (3 if frontend is one else 1)
            assert answer.completion["lane"] == 1
            assert answer.completion["worker"] == WORKER


def test_large_tensors_of_several_segments_share_a_run() -> None:
    lane = doubling_lane(width=LARGE_WIDTH)
    with running(lane) as worker:
        frontend = worker.frontend()
        for at in range(4):
            frontend.ask(lane, rows_of(at, 1, LARGE_WIDTH), new_segment=at == 2)
        assert worker.serve() == 1
        for at, answer in enumerate(frontend.answers()):
            np.testing.assert_array_equal(answer.outputs[0], 2 * rows_of(at, 1, LARGE_WIDTH))


def test_requests_of_different_rows_share_a_run() -> None:
    lane = doubling_lane(max_batch_size=16)
    with running(lane) as worker:
        frontend = worker.frontend()
        for at, rows in enumerate([1, 3, 0, 2]):
            frontend.ask(lane, rows_of(at, rows))
        assert worker.serve() == 1
        assert not worker.batches[0].uniform
        answers = frontend.answers()
        assert [int(answer.completion["first_row"]) for answer in answers] == [0, 1, 4, 4]
        assert [int(answer.completion["rows"]) for answer in answers] == [1, 3, 0, 2]
        for at, answer in enumerate(answers):
            np.testing.assert_array_equal(answer.outputs[0], 2 * rows_of(at, [1, 3, 0, 2][at]))


def test_requests_without_rows_are_answered() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(0, 0))
        frontend.ask(lane, rows_of(0, 0))
        worker.serve()
        assert [answer.outputs[0].shape for answer in frontend.answers()] == [(0, 3), (0, 3)]


def test_other_inner_shapes_never_share_a_run() -> None:
    spec = [TensorSpec("x", DType.FP32, (-1, -1))]
    lane = make_lane(1, spec, [TensorSpec("y", DType.FP32, (-1, -1))], double)
    with running(lane) as worker:
        frontend = worker.frontend()
        widths = [3, 4, 3, 4, 5]
        for at, width in enumerate(widths):
            frontend.ask(lane, rows_of(at, 1, width))
        assert worker.serve() == 3
        answers = {answer.slot: answer for answer in frontend.answers()}
        for at, width in enumerate(widths):
            np.testing.assert_array_equal(answers[at].outputs[0], 2 * rows_of(at, 1, width))


def test_several_inputs_of_every_type_are_gathered_each_from_its_place() -> None:
    dtypes = [dtype for dtype in DType if dtype is not DType.BYTES]
    specs = [TensorSpec(dtype.name, dtype, (-1, 2)) for dtype in dtypes]
    lane = make_lane(1, specs, specs, lambda inputs: [one for one in inputs if one is not None])
    random = np.random.default_rng(1)
    with running(lane) as worker:
        frontend = worker.frontend()
        expected = []
        for rows in (1, 1, 2):
            values = [
                random.integers(0, 2, (rows, 2)).astype(dtype.numpy)
                if dtype is DType.BOOL
                else random.integers(0, 100, (rows, 2)).astype(dtype.numpy)
                for dtype in dtypes
            ]
            frontend.ask(lane, *values)
            expected.append(values)
        assert worker.serve() == 1
        for answer, values in zip(frontend.answers(), expected, strict=True):
            for found, value in zip(answer.outputs, values, strict=True):
                assert found.dtype == value.dtype
                np.testing.assert_array_equal(found, value)


def shout(inputs: Sequence[Array | None]) -> list[Array]:
    assert inputs[0] is not None
    result = np.empty(inputs[0].shape, object)
    for at, element in np.ndenumerate(inputs[0]):
        result[at] = element.upper()
    return [result, np.array([len(b"".join(row)) for row in inputs[0]], np.int64)]


def test_strings_are_gathered_and_cut_by_row() -> None:
    outputs = [TensorSpec("loud", DType.BYTES, (-1, 2)), TensorSpec("length", DType.INT64, (-1,))]
    lane = make_lane(1, [TensorSpec("text", DType.BYTES, (-1, 2))], outputs, shout)
    asked = [
        texts([b"a", b""]),
        texts([b"bb", b"c"], [b"", b""]),
        texts([b"d" * 5000, b"e"]),
        np.empty((0, 2), object),
    ]
    with running(lane) as worker:
        frontend = worker.frontend()
        for one in asked:
            frontend.ask(lane, one)
        assert worker.serve() == 1
        for answer, one in zip(frontend.answers(), asked, strict=True):
            assert answer.status == Status.OK
            assert [list(row) for row in answer.outputs[0]] == [[e.upper() for e in row] for row in one]
            assert list(answer.outputs[1]) == [len(b"".join(row)) for row in one]


def test_an_absent_optional_input_arrives_as_none() -> None:
    inputs = [TensorSpec("x", DType.FP32, (-1, 3)), TensorSpec("bias", DType.FP32, (-1, 3), optional=True)]

    def add(given: Sequence[Array | None]) -> list[Array]:
        assert given[0] is not None
        return [given[0] if given[1] is None else given[0] + given[1]]

    lane = make_lane(1, inputs, [TensorSpec("y", DType.FP32, (-1, 3))], add)
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1, 1), None, shape_key=1)
        frontend.ask(lane, rows_of(2, 1), rows_of(3, 1), shape_key=2)
        frontend.ask(lane, rows_of(4, 1), None, shape_key=1)
        assert worker.serve() == 2
        answers = {answer.slot: answer.outputs[0] for answer in frontend.answers()}
        np.testing.assert_array_equal(answers[0], rows_of(1, 1))
        np.testing.assert_array_equal(answers[1], rows_of(2, 1) + rows_of(3, 1))
        np.testing.assert_array_equal(answers[2], rows_of(4, 1))


def test_a_model_that_does_not_batch_runs_each_request_alone() -> None:
    spec = [TensorSpec("x", DType.FP32, (-1, 3))]
    outputs = [TensorSpec("sum", DType.FP32, ()), TensorSpec("all", DType.FP32, (-1, 3))]

    def total(inputs: Sequence[Array | None]) -> list[Array]:
        assert inputs[0] is not None
        return [inputs[0].sum(dtype=np.float32), inputs[0]]

    lane = make_lane(
        1, spec, outputs, lambda inputs: [np.asarray(one) for one in total(inputs)], batches=False
    )
    with running(lane) as worker:
        frontend = worker.frontend()
        for at in range(3):
            frontend.ask(lane, rows_of(at, 2))
        assert worker.serve() == 3
        for at, answer in enumerate(frontend.answers()):
            assert answer.outputs[0].shape == ()
            assert answer.outputs[0] == rows_of(at, 2).sum(dtype=np.float32)
            np.testing.assert_array_equal(answer.outputs[1], rows_of(at, 2))
            assert [int(answer.completion[name]) for name in ("rows", "batch_rows", "first_row")] == [0, 0, 0]


def test_a_batch_beyond_the_engines_limit_runs_in_slices() -> None:
    lane = doubling_lane(max_rows=3)
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1, 2))
        frontend.ask(lane, rows_of(2, 5))
        assert worker.serve() == 1
        sizes = [one[0].shape[0] for one in engine_of(lane).runs if one[0] is not None]
        assert sizes == [3, 3, 1]
        for answer, expected in zip(frontend.answers(), (rows_of(1, 2), rows_of(2, 5)), strict=True):
            np.testing.assert_array_equal(answer.outputs[0], 2 * expected)


@pytest.mark.parametrize("shape", [(-1, 3), (-1, -1)])
def test_an_engine_that_cuts_batches_gets_them_whole(shape: tuple[int, int]) -> None:
    specs = [TensorSpec("x", DType.FP32, (-1, 3))], [TensorSpec("y", DType.FP32, shape)]
    lane = make_lane(1, *specs, double, max_rows=3, cuts=True, uses_out=True)
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1, 2))
        frontend.ask(lane, rows_of(2, 5))
        assert worker.serve() == 1
        assert [one[0].shape[0] for one in engine_of(lane).runs if one[0] is not None] == [7]
        for answer, expected in zip(frontend.answers(), (rows_of(1, 2), rows_of(2, 5)), strict=True):
            np.testing.assert_array_equal(answer.outputs[0], 2 * expected)


def test_a_request_larger_than_a_batch_runs_alone() -> None:
    lane = doubling_lane(max_batch_size=4)
    with running(lane) as worker:
        frontend = worker.frontend()
        for at, rows in enumerate([1, 9, 1]):
            frontend.ask(lane, rows_of(at, rows))
        worker.serve()
        assert [batch.rows for batch in worker.batches] == [1, 9, 1]
        found = {answer.slot: answer.outputs[0] for answer in frontend.answers()}
        for at, rows in enumerate([1, 9, 1]):
            np.testing.assert_array_equal(found[at], 2 * rows_of(at, rows))


def test_an_output_of_varying_size_is_cut_by_its_rows() -> None:
    lane = make_lane(
        1,
        [TensorSpec("x", DType.FP32, (-1, 3))],
        [TensorSpec("y", DType.FP32, (-1, -1))],
        lambda inputs: [np.tile(one, 2) for one in inputs if one is not None],
    )
    with running(lane) as worker:
        frontend = worker.frontend()
        for at in range(3):
            frontend.ask(lane, rows_of(at, 1 + at % 2))
        assert worker.serve() == 1
        for at, answer in enumerate(frontend.answers()):
            np.testing.assert_array_equal(answer.outputs[0], np.tile(rows_of(at, 1 + at % 2), 2))
        assert engine_of(lane).given_out == [False]


# Books --------------------------------------------------------------------------------------------------------


def test_the_answers_of_a_front_end_that_died_are_nobodys() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        living, dead = worker.frontend(1), worker.frontend(2)
        living.ask(lane, rows_of(1, 1))
        dead.ask(lane, rows_of(2, 1))
        batch = worker.take()
        assert batch is not None
        assert len(batch.tickets) == 2
        worker.memory.completion_fds.pop(2)
        dead_pipe_depth = depth(dead.pipe.read_fd)
        worker.runner.run(lane, batch)
        (answer,) = living.answers()
        np.testing.assert_array_equal(answer.outputs[0], 2 * rows_of(1, 1))
        assert depth(dead.pipe.read_fd) == dead_pipe_depth == 0
        worker.responses.collect_releases()
        assert worker.responses._arena.used_blocks == 0


def test_runs_and_drops_are_counted() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1, 2))
        frontend.ask(lane, rows_of(1, 1))
        frontend.cancel(frontend.ask(lane, rows_of(1, 1)))
        frontend.ask(lane, rows_of(1, 1), deadline_ns=1)
        # It only changes its queue.
        frontend.ask(lane, rows_of(1, 1), deadline_ns=1, flags=int(TicketFlag.DELAY))
        worker.serve()
        (series,) = worker.recorder.take().runs
        assert (series.lane, series.tickets, series.rows) == (1, 2, 3)
        assert series.dropped == {"cancelled": 1, "expired": 1}


def test_queue_and_compute_times_are_told_with_each_answer() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1, 1), enqueued_ns=5)
        frontend.ask(lane, rows_of(1, 1), enqueued_ns=2**62)
        worker.serve()
        first, second = frontend.answers()
        assert first.completion["queue_ns"] > 0
        # A clock that runs ahead counts as no wait at all.
        assert second.completion["queue_ns"] == 0
        assert first.completion["compute_ns"] == second.completion["compute_ns"] > 0


def test_released_blocks_serve_again_and_the_arena_does_not_grow() -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        grown = set()
        for _ in range(300):
            sent = frontend.ask(lane, rows_of(1, 1))
            worker.serve()
            frontend.answers()
            frontend.arena.free(sent.block)
            grown.add(worker.responses.total_bytes)
        assert len(grown) == 1
        assert depth(worker.release.read_fd) < 20
