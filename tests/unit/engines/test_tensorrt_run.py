"""Plans run on fakes that keep the contracts of CUDA and TensorRT, and on a real GPU where there is one."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from predictd.engines.api import (
    DeviceLostError,
    DType,
    EngineError,
    EngineOptions,
    InvalidInputError,
    RegistersHost,
    RunsRows,
)
from predictd.engines.tensorrt import engine as engine_module
from predictd.engines.tensorrt import load
from tests.fakes.plans import NUMPY, PlanSpec, Tensor
from tests.fakes.stack import ALL, FAKES, Stack, make_stack


@pytest.fixture(params=ALL)
def stack(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    return make_stack(request.param, tmp_path, monkeypatch)


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    return make_stack(request.param, tmp_path, monkeypatch)


def batches(operation: str = "double", dtype: str = "FLOAT", width: int = 4, most: int = 8) -> PlanSpec:
    shapes = ((1, width), (max(1, most // 2), width), (most, width))
    return PlanSpec(
        operation,
        (Tensor("x", (-1, width), dtype),),
        (Tensor("y", (-1, width), dtype),),
        ((shapes,),),
    )


def rows(count: int, width: int = 4) -> np.ndarray:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


def test_a_run_of_every_size(stack: Stack) -> None:
    with stack.engine(batches()) as engine:
        assert engine.name == "tensorrt"
        assert engine.signature.batches
        assert engine.signature.max_rows == 8
        for count in (1, 8, 3, 8, 3, 3, 1):
            (result,) = engine.run([rows(count)])
            assert (result == rows(count) * 2).all()


def test_a_run_into_the_callers_memory(stack: Stack) -> None:
    with stack.engine(batches()) as engine:
        target = np.zeros((3, 4), np.float32)
        (result,) = engine.run([rows(3)], [target])
        assert result is target
        assert (target == rows(3) * 2).all()


def test_a_result_is_not_changed_by_the_next_run(stack: Stack) -> None:
    with stack.engine(batches()) as engine:
        (first,) = engine.run([rows(3)])
        engine.run([rows(3) + 1])
        assert (first == rows(3) * 2).all()


@pytest.mark.parametrize("dtype", ["FLOAT", "HALF", "BF16", "INT8", "INT32", "INT64", "BOOL", "UINT8"])
def test_every_type(stack: Stack, dtype: str) -> None:
    if stack.version == "real" and dtype in ("INT8", "UINT8", "BOOL"):
        pytest.skip("the builder wants more than an identity of it")
    data: np.ndarray = np.array([[0, 1, 1, 0], [1, 0, 0, 1]]).astype(NUMPY[dtype])
    with stack.engine(batches("echo", dtype)) as engine:
        assert engine.signature.inputs[0].dtype.numpy == data.dtype
        (result,) = engine.run([data])
        assert result.dtype == data.dtype
        assert (result == data).all()


def test_several_inputs_and_outputs(stack: Stack) -> None:
    ranges = (((1, 4), (2, 4), (4, 4)),) * 2
    spec = PlanSpec(
        "sum_and_difference",
        (Tensor("a", (-1, 4)), Tensor("b", (-1, 4))),
        (Tensor("sum", (-1, 4)), Tensor("difference", (-1, 4))),
        (ranges,),
    )
    with stack.engine(spec) as engine:
        assert [output.name for output in engine.signature.outputs] == ["sum", "difference"]
        target = np.empty((3, 4), np.float32)
        total, difference = engine.run([rows(3) * 3, rows(3)], [None, target])
        assert (total == rows(3) * 4).all()
        assert difference is target
        assert (target == rows(3) * 2).all()


def test_a_plan_of_one_shape_does_not_batch(stack: Stack) -> None:
    spec = PlanSpec("double", (Tensor("x", (2, 4)),), (Tensor("y", (2, 4)),))
    with stack.engine(spec) as engine:
        assert not engine.signature.batches
        assert engine.signature.max_rows is None
        assert (engine.run([rows(2)])[0] == rows(2) * 2).all()
        with pytest.raises(InvalidInputError, match=r"input 'x' has shape \[3, 4\]; the plan takes \[2, 4\]"):
            engine.run([rows(3)])


def test_inputs_that_no_profile_takes_are_named(stack: Stack) -> None:
    with stack.engine(batches()) as engine:
        with pytest.raises(InvalidInputError) as caught:
            engine.run([rows(9)])
        assert str(caught.value) == "input 'x' has shape [9, 4]; the plan takes [1, 4] to [8, 4]"
        with pytest.raises(InvalidInputError, match="input 'x' is missing"):
            engine.run([None])
        assert (engine.run([rows(2)])[0] == rows(2) * 2).all()


def test_the_profile_that_was_optimized_for_the_nearest_shape_runs(stack: Stack) -> None:
    one = ((1, 4), (1, 4), (1, 4))
    many = ((1, 4), (32, 4), (32, 4))
    spec = PlanSpec("double", (Tensor("x", (-1, 4)),), (Tensor("y", (-1, 4)),), ((one,), (many,)))
    with stack.engine(spec) as engine:
        assert engine.signature.max_rows == 32
        for count in (1, 32, 1, 7):
            assert (engine.run([rows(count)])[0] == rows(count) * 2).all()


def test_outputs_whose_shape_depends_on_the_data(stack: Stack) -> None:
    if stack.version == "rtx":
        pytest.skip("TensorRT-RTX has no such operators")
    spec = PlanSpec(
        "nonzero",
        (Tensor("x", (-1, 4)),),
        (Tensor("y", (2, -1), "INT64"),),
        ((((1, 4), (2, 4), (8, 4)),),),
    )
    with stack.engine(spec) as engine:
        assert not engine.signature.batches
        for data in (np.eye(4), np.zeros((3, 4)), np.ones((8, 4)), np.eye(4)):
            (result,) = engine.run([data.astype(np.float32)])
            assert (result == np.stack(np.nonzero(data))).all()
            assert result.shape[1] == np.count_nonzero(data)


@pytest.mark.parametrize("count", [1, 8, 9, 17, 64])
def test_rows_that_do_not_fit_run_in_equal_parts(stack: Stack, count: int) -> None:
    with stack.engine(batches()) as engine:
        assert isinstance(engine, RunsRows)
        target = np.zeros((count, 4), np.float32)
        assert engine.run_rows([rows(count)], [target])[0] is target
        assert (target == rows(count) * 2).all()
        assert (engine.run_rows([rows(count)])[0] == rows(count) * 2).all()


def test_registered_memory_is_copied_from_where_it_lies(stack: Stack) -> None:
    memory = np.arange(4096, dtype=np.uint8)
    memory.flags.writeable = False
    given = memory[256 : 256 + 3 * 16].view(np.float32).reshape(3, 4)
    with stack.engine(batches("echo")) as engine:
        assert isinstance(engine, RegistersHost)
        registered = engine.register_host(memory)
        assert (engine.run([given])[0].view(np.uint32) == given.view(np.uint32)).all()
        if registered:
            engine.unregister_host(memory)


# Of the fakes alone: what a real GPU does not tell.


def test_parts_of_a_large_batch_overlap(fake: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "WORTH_CUTTING_BYTES", 64)
    with fake.engine(batches(), parts="4", cuda_graphs="false") as engine:
        assert fake.world is not None
        fake.world.trace.clear()
        assert (engine.run_rows([rows(8)])[0] == rows(8) * 2).all()
        if fake.version == "8.6":
            # Its contexts cannot share a profile: no second slot, and so nothing is cut.
            assert fake.world.kinds() == ["in0", "run0", "out0", "wait0"]
        else:
            assert fake.world.kinds() == [
                "in0", "run0", "out0", "in1", "run1", "out1",
                "wait0", "in0", "run0", "out0", "wait1", "in1", "run1", "out1", "wait0", "wait1",
            ]  # fmt: skip
        fake.world.trace.clear()
        engine.run_rows([rows(2)])
        assert fake.world.kinds() == ["in0", "run0", "out0", "wait0"]


def test_without_memory_for_a_second_slot_nothing_is_cut(
    fake: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_module, "WORTH_CUTTING_BYTES", 64)
    assert fake.world is not None
    # One slot has an input and an output of 8 rows of 16 bytes.
    fake.world.free_bytes = 2 * 8 * 16 + 1
    with fake.engine(batches(), parts="2") as engine:
        assert (engine.run_rows([rows(8)])[0] == rows(8) * 2).all()
        assert len({handle for kind, handle in fake.world.trace if kind == "in"}) == 1
    assert "batches are not cut to overlap" in caplog.text
    caplog.clear()


def test_a_shape_that_comes_again_runs_as_a_graph(fake: Stack) -> None:
    with fake.engine(batches()) as engine:
        assert fake.world is not None
        for expected in ("run", "graph", "graph"):
            fake.world.trace.clear()
            assert (engine.run([rows(3)])[0] == rows(3) * 2).all()
            assert [kind for kind, _ in fake.world.trace] == ["in", expected, "out", "wait"]
        fake.world.trace.clear()
        engine.run([rows(4)])
        assert "run0" in fake.world.kinds()


def test_no_more_graphs_are_kept_than_the_limit(fake: Stack) -> None:
    with fake.engine(batches(most=64)) as engine:
        assert fake.world is not None
        for count in [*range(1, 41), *range(1, 41)]:
            engine.run([rows(count)])
        assert len(fake.world.graphs) == 32


def test_a_plan_that_cannot_be_recorded_runs_without_graphs(
    fake: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    with fake.engine(batches()) as engine:
        assert fake.world is not None
        fake.world.capture_error = "operation not permitted when stream is capturing"
        for _ in range(4):
            assert (engine.run([rows(3)])[0] == rows(3) * 2).all()
        (message,) = [r.message for r in caplog.records if r.name.endswith("graphs")]
        assert message.startswith("this plan runs without CUDA graphs: TensorRT failed to run the plan: ")
        assert message.endswith("(operation not permitted when stream is capturing)")


@pytest.mark.parametrize("reason", ["streaming", "parameter"])
def test_graphs_are_not_recorded_where_they_must_not(fake: Stack, reason: str) -> None:
    streams = reason == "streaming" and fake.version != "8.6"
    spec = PlanSpec(
        "double",
        (Tensor("x", (-1, 4)),),
        (Tensor("y", (-1, 4)),),
        ((((1, 4), (2, 4), (8, 4)),),),
        streamable_bytes=1 << 20 if streams else 0,
    )
    with fake.engine(spec, cuda_graphs="true" if streams else "false") as engine:
        assert fake.world is not None
        for _ in range(3):
            engine.run([rows(3)])
        assert {kind for kind, _ in fake.world.trace} == {"in", "run", "out", "wait"}


def test_a_failed_run_carries_what_tensorrt_logged(fake: Stack) -> None:
    spec = PlanSpec("double", (Tensor("x", (2, 4)),), (Tensor("y", (2, 4)),), fails="Myelin runtime error")
    with fake.engine(spec) as engine:
        for _ in range(2):
            with pytest.raises(
                EngineError, match=r"TensorRT failed to run the plan.*Myelin runtime error"
            ) as caught:
                engine.run([rows(2)])
            assert not isinstance(caught.value, InvalidInputError | DeviceLostError)


def test_a_part_that_fails_leaves_nothing_in_flight(fake: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "WORTH_CUTTING_BYTES", 64)
    with fake.engine(batches(), parts="4", cuda_graphs="false") as engine:
        given = rows(16)
        slot = engine._slots[-1]
        begin, calls = slot.begin, iter([False, True])

        def fail_at_the_second(inputs: list[np.ndarray]) -> None:
            begin(inputs)
            if next(calls, False):
                raise EngineError("broken")

        monkeypatch.setattr(slot, "begin", fail_at_the_second)
        with pytest.raises(EngineError, match="broken"):
            engine.run_rows([given])
        assert fake.world is not None
        assert not any(stream.waiting for stream in fake.world.streams.values())
        assert (engine.run_rows([given])[0] == given * 2).all()


def test_a_lost_gpu_says_so(fake: Stack) -> None:
    assert fake.world is not None
    engine = load(fake.path(batches()), EngineOptions(device="0"))
    fake.world.lost = "an illegal memory access was encountered"
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        engine.run([rows(2)])
    engine.close()
    assert not fake.world.current
    assert not fake.world.contexts_made


def test_no_memory_for_an_output(fake: Stack) -> None:
    if fake.version == "rtx":
        pytest.skip("TensorRT-RTX has no such operators")
    spec = PlanSpec(
        "nonzero", (Tensor("x", (-1, 4)),), (Tensor("y", (2, -1), "INT64"),), ((((1, 4), (2, 4), (8, 4)),),)
    )
    with fake.engine(spec) as engine:
        assert fake.world is not None
        free, fake.world.free_bytes = fake.world.free_bytes, 0
        with pytest.raises(
            EngineError, match=r"no GPU memory for output 'y': cuMemAlloc failed: out of memory"
        ):
            engine.run([np.ones((8, 4), np.float32)])
        fake.world.free_bytes = free
        assert engine.run([np.eye(4, dtype=np.float32)])[0].shape == (2, 4)


def test_shapes_in_host_memory(fake: Stack) -> None:
    spec = PlanSpec(
        "repeat",
        (Tensor("x", (-1, 4)), Tensor("times", (1,), "INT64", host=True)),
        (Tensor("y", (-1, 4)), Tensor("shape", (2,), "INT64", host=True)),
        ((((1, 4), (2, 4), (8, 4)), ((1,), (1,), (1,))),),
    )
    with fake.engine(spec) as engine:
        assert fake.world is not None
        assert not engine.signature.batches
        for times in (1, 3, 3, 3):
            result, shape = engine.run([rows(2), np.array([times])])
            assert (result == np.tile(rows(2), (times, 1))).all()
            assert shape.tolist() == [2 * times, 4]
        # What TensorRT reads when it is told to run cannot be recorded.
        assert "graph" not in {kind for kind, _ in fake.world.trace}


def test_two_engines_pin_memory_once(fake: Stack) -> None:
    assert fake.world is not None
    memory = np.zeros(4096, np.uint8)
    with fake.engine(batches()) as first, fake.engine(batches()) as second:
        assert first.register_host(memory)
        assert second.register_host(memory)
        first.unregister_host(memory)
        assert fake.world.registered
        second.unregister_host(memory)
        second.unregister_host(memory)


def test_a_device_that_cannot_read_mapped_memory_gets_a_copy(fake: Stack) -> None:
    assert fake.world is not None
    fake.world.registers_read_only = False
    memory = np.zeros(4096, np.uint8)
    with fake.engine(batches()) as engine:
        assert not engine.register_host(memory)
        given = memory[:32].view(np.float32).reshape(2, 4)
        assert (engine.run([given])[0] == 0).all()


def test_memory_may_be_pinned_by_another_thread_during_a_run(fake: Stack) -> None:
    with fake.engine(batches()) as engine:
        memory = np.zeros(4096, np.uint8)
        thread = threading.Thread(target=engine.register_host, args=(memory,))
        thread.start()
        for _ in range(20):
            engine.run([rows(3)])
        thread.join()
        engine.unregister_host(memory)


def test_what_the_signature_says(fake: Stack) -> None:
    with fake.engine(batches("echo", "BF16")) as engine:
        (spec,) = engine.signature.inputs
        assert (spec.name, spec.dtype, spec.shape) == ("x", DType.BF16, (-1, 4))
