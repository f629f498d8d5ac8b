"""Runs that fail: which requests are told so, in which words, and that no other notices."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from predictd.engines.api import DeviceLostError, DType, EngineError, InvalidInputError, TensorSpec
from predictd.server.transport.records import NO_SEGMENT, Status
from predictd.server.worker.runner import LoadedLane
from tests.unit.worker.harness import LIMIT_BYTES, Answer, running
from tests.unit.worker.lanes import Array, Compute, double, doubling_lane, engine_of, make_lane
from tests.unit.worker.tensors import LARGE_WIDTH, rows_of


def lane_of(compute: Compute, outputs: tuple[int, ...] = (-1, 3)) -> LoadedLane:
    """FP32[-1, 3] in, and FP32 of some shape out."""
    spec = [TensorSpec("x", DType.FP32, (-1, 3))]
    return make_lane(1, spec, [TensorSpec("y", DType.FP32, outputs)], compute)


def answer_of(lane: LoadedLane, rows: Array, limit_bytes: int = LIMIT_BYTES) -> Answer:
    """What becomes of a request that is alone."""
    with running(lane, limit_bytes=limit_bytes) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows)
        worker.serve()
        (answer,) = frontend.answers()
        return answer


def refuse_negatives(inputs: Sequence[Array | None]) -> list[Array]:
    assert inputs[0] is not None
    if (inputs[0] < 0).any():
        raise InvalidInputError("a value is negative")
    return double(inputs)


def test_one_bad_request_does_not_spoil_its_batch() -> None:
    lane = lane_of(refuse_negatives)
    with running(lane) as worker:
        frontend = worker.frontend()
        for at in range(4):
            frontend.ask(lane, rows_of(at, 1) if at != 2 else -rows_of(at, 1))
        assert worker.serve() == 1
        answers = frontend.answers()
        assert [answer.slot for answer in answers] == [0, 1, 2, 3]
        expected = [Status.OK, Status.OK, Status.INVALID_INPUT, Status.OK]
        assert [answer.status for answer in answers] == expected
        assert answers[2].error == "a value is negative"
        for at in (0, 1, 3):
            np.testing.assert_array_equal(answers[at].outputs[0], 2 * rows_of(at, 1))
        assert len(engine_of(lane).runs) == 5
        assert worker.responses._arena.used_blocks == 4
        worker.responses.collect_releases()
        assert worker.responses._arena.used_blocks == 0


def raising(kind: type[Exception], *arguments: str) -> Compute:
    def compute(_inputs: Sequence[Array | None]) -> list[Array]:
        raise kind(*arguments)

    return compute


@pytest.mark.parametrize(
    ("compute", "status", "text"),
    [
        (raising(InvalidInputError, "dimensions contradict"), Status.INVALID_INPUT, "dimensions contradict"),
        (raising(MemoryError), Status.NO_MEMORY, "out of memory"),
    ],
)
def test_an_engine_that_raises_is_answered_with_its_reason(
    compute: Compute, status: Status, text: str
) -> None:
    lane = lane_of(compute)
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1, 1))
        frontend.ask(lane, rows_of(2, 1))
        worker.serve()
        answers = frontend.answers()
        assert [(answer.status, answer.error) for answer in answers] == [(status, text)] * 2
        worker.responses.collect_releases()
        assert worker.responses._arena.used_blocks == 0


def test_a_lost_device_is_answered_by_whoever_comes_next() -> None:
    lane = lane_of(raising(DeviceLostError, "no more"))
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1, 1))
        with pytest.raises(DeviceLostError, match="no more"):
            worker.serve()
        assert frontend.answers() == []


def reason(answer: Answer, caplog: pytest.LogCaptureFixture) -> str:
    """What the log says of the id that a client was told in place of an engine's words."""
    match = re.fullmatch(r".*\(error ([0-9a-f]{8})\)", answer.error)
    assert match is not None, answer.error
    (line,) = {text for text in caplog.messages if f"error {match[1]}:" in text}
    caplog.clear()
    return line


@pytest.mark.parametrize("kind", [EngineError, ValueError, RuntimeError])
def test_how_an_engine_failed_is_logged_and_not_told(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    lane = lane_of(raising(kind, "a secret"))
    answer = answer_of(lane, rows_of(1, 1))
    assert answer.status == Status.ENGINE_FAILED
    assert re.fullmatch(r"the engine failed \(error [0-9a-f]{8}\)", answer.error)
    # Of what no engine should raise, where it came from, too.
    assert ("Traceback" in caplog.text) == (kind is RuntimeError)
    assert reason(answer, caplog).endswith("the engine failed on model model-1: a secret")


def test_why_an_input_was_refused_is_told_without_what_is_inside_the_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    said = "Gather node '/encoder/secret': index 7 at /srv/models/m.onnx, op.cc:12 (0x7f0012345678)"
    lane = lane_of(raising(InvalidInputError, said))
    answer = answer_of(lane, rows_of(1, 1))
    assert answer.status == Status.INVALID_INPUT
    assert answer.error.startswith("Gather: index 7 at m.onnx, … (…) (error ")
    assert reason(answer, caplog).endswith(said)


FIXED, VARYING = (-1, 3), (-1, -1)


@pytest.mark.parametrize("shape", [FIXED, VARYING])
@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ([np.zeros((2, 3), np.float32)], "has shape [2, 3]"),
        ([np.zeros((), np.float32)], "has shape []"),
        ([np.zeros((1, 3), np.float64)], "has type float64, the model's signature says FP32"),
        ([], "gave 0 outputs, the model's signature says 1"),
        ([np.zeros((1, 3), np.float32)] * 2, "gave 2 outputs, the model's signature says 1"),
    ],
)
def test_an_output_that_is_not_what_the_signature_says_is_refused(
    shape: tuple[int, ...], outputs: list[Array], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    lane = lane_of(lambda _: outputs, shape)
    answer = answer_of(lane, rows_of(1, 1))
    assert answer.status == Status.ENGINE_FAILED
    assert text in reason(answer, caplog)


def test_a_block_that_does_not_hold_what_its_ticket_says_fails_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        frontend.ask(lane, rows_of(1, 1))
        bad = frontend.request(lane, rows_of(2, 3))
        frontend.arena.view(bad.block)[:64] = bytes(64)
        frontend.send(bad)
        frontend.ask(lane, rows_of(3, 2))
        worker.serve()
        answers = frontend.answers()
        assert [answer.status for answer in answers] == [Status.OK, Status.ENGINE_FAILED, Status.OK]
        assert reason(answers[1], caplog).endswith("the block holds no request")


def test_a_ticket_that_does_not_name_the_size_of_its_request_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lane = doubling_lane()
    with running(lane) as worker:
        frontend = worker.frontend()
        sent = frontend.request(lane, rows_of(1, 2))
        sent.ticket = bytearray(sent.ticket)
        sent.ticket[12] = 1
        frontend.send(sent)
        worker.serve()
        (answer,) = frontend.answers()
        assert answer.status == Status.ENGINE_FAILED
        assert "does not hold what its ticket says" in reason(answer, caplog)


def test_without_memory_for_the_answer_the_requests_are_told() -> None:
    lane = doubling_lane(width=LARGE_WIDTH)
    answer = answer_of(lane, rows_of(1, 1, LARGE_WIDTH), limit_bytes=4096)
    assert answer.status == Status.NO_MEMORY
    assert "arena_limit" in answer.error


def test_without_memory_even_for_the_reason_the_requests_are_told_without_one() -> None:
    lane = doubling_lane()
    answer = answer_of(lane, rows_of(1, 1), limit_bytes=0)
    assert answer.status == Status.NO_MEMORY
    assert answer.completion["segment"] == NO_SEGMENT
