from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from predictd.engines.api import (
    Array,
    DType,
    Engine,
    EngineError,
    EngineOptions,
    GivesBack,
    InvalidInputError,
)
from predictd.engines.heap import trim_heap
from predictd.engines.onnxruntime import load
from tests.fixtures import models
from tests.fixtures.gil import others_go_on
from tests.unit.engines.shared import memory_bytes, sample

NUMERIC = [dtype for dtype in DType if dtype is not DType.BYTES]
BY_ONNXRUNTIME = [dtype for dtype in NUMERIC if dtype is not DType.BF16]


def engine_of(path: Path) -> Engine:
    return load(path, EngineOptions())


@pytest.mark.parametrize("dtype", BY_ONNXRUNTIME, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (0, 4)], ids=str)
def test_every_dtype_as_direct_onnxruntime(dtype: DType, shape: tuple[int, ...], tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx", dtype)
    x = sample(dtype, shape)
    (expected,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    (y,) = engine_of(path).run([x])
    assert y.dtype == dtype.numpy
    np.testing.assert_array_equal(y, expected, strict=True)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)], ids=str)
def test_bf16_travels_as_bits(shape: tuple[int, ...], tmp_path: Path) -> None:
    x = sample(DType.BF16, shape) + np.uint16(0x3F80)
    (y,) = engine_of(models.identity(tmp_path / "m.onnx", DType.BF16)).run([x])
    np.testing.assert_array_equal(y, x, strict=True)


@pytest.mark.parametrize("dtype", NUMERIC, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(3, 4), (0, 4)], ids=str)
def test_results_are_written_into_out(dtype: DType, shape: tuple[int, ...], tmp_path: Path) -> None:
    engine = engine_of(models.identity(tmp_path / "m.onnx", dtype))
    x = sample(dtype, shape)
    out = np.full(shape, 1, dtype.numpy)
    (y,) = engine.run([x], [out])
    assert y is out
    np.testing.assert_array_equal(out, x, strict=True)


def test_each_run_writes_only_its_own_out(tmp_path: Path) -> None:
    engine = engine_of(models.affine(tmp_path / "m.onnx"))
    first, second = np.zeros((2, 4), np.float32), np.zeros((3, 4), np.float32)
    engine.run([np.ones((2, 4), np.float32)], [first])
    engine.run([np.full((3, 4), 2, np.float32)], [second])
    (third,) = engine.run([np.full((1, 4), 3, np.float32)])
    assert (first == 3).all()
    assert (second == 5).all()
    assert (third == 7).all()


def test_some_outputs_into_out_and_some_not(tmp_path: Path) -> None:
    engine = engine_of(models.add_sub(tmp_path / "m.onnx"))
    left, right = sample(DType.INT32, (2, 16)), np.ones((2, 16), np.int32)
    out = np.zeros((2, 16), np.int32)
    added, subtracted = engine.run([left, right], [None, out])
    assert subtracted is out
    np.testing.assert_array_equal(added, left + right)
    np.testing.assert_array_equal(subtracted, left - right)


@pytest.mark.parametrize("dtype", [DType.FP32, DType.BF16, DType.BOOL], ids=lambda dtype: dtype.name)
def test_inputs_may_be_read_only_views(dtype: DType, tmp_path: Path) -> None:
    data = sample(dtype, (2, 4)).tobytes()
    x = np.frombuffer(memoryview(data).toreadonly(), dtype.numpy).reshape(2, 4)
    assert not x.flags.writeable
    (y,) = engine_of(models.identity(tmp_path / "m.onnx", dtype)).run([x])
    assert y.tobytes() == data


def test_nothing_of_the_caller_is_held_after_a_run(tmp_path: Path) -> None:
    engine = engine_of(models.affine(tmp_path / "m.onnx"))
    memory = bytearray(64)
    x = np.frombuffer(memory, np.float32, 8).reshape(2, 4)
    out = np.frombuffer(memory, np.float32, 8, 32).reshape(2, 4)
    engine.run([x], [out])
    with pytest.raises(InvalidInputError):
        engine.run([x.reshape(4, 2)], [out])
    del x, out
    memory.clear()  # BufferError while any view of it lives.


def test_an_answer_is_freed_with_its_array(tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx", shape=("batch", 1 << 20))
    engine = load(path, EngineOptions(parameters={"enable_cpu_mem_arena": "false"}))
    x = np.ones((16, 1 << 20), np.float32)
    result = engine.run([x])
    # What other tests freed may be where the answer lies, and then stays with the C library.
    trim_heap()
    while_held = memory_bytes("VmRSS")
    result.clear()
    trim_heap()
    assert while_held - memory_bytes("VmRSS") > x.nbytes // 2


def test_an_output_that_is_an_input_is_a_copy(tmp_path: Path) -> None:
    engine = engine_of(models.pass_through(tmp_path / "m.onnx"))
    x = sample(DType.FP32, (2, 4))
    same, negative = engine.run([x], [np.zeros((2, 4), np.float32), None])
    assert not np.shares_memory(same, x)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_array_equal(negative, -x)


def test_a_model_of_nothing_but_passed_inputs(tmp_path: Path) -> None:
    x = models.tensor("x", DType.FP32, ("batch",))
    (y,) = engine_of(models.save(tmp_path / "m.onnx", [], [x], [x])).run([np.ones(2, np.float32)])
    np.testing.assert_array_equal(y, np.ones(2, np.float32))


def test_scalars(tmp_path: Path) -> None:
    engine = engine_of(models.scalar(tmp_path / "m.onnx"))
    x = np.array(41, np.float32)
    out = np.zeros((), np.float32)
    assert engine.run([x])[0] == 42
    assert engine.run([x])[0].shape == ()
    assert engine.run([x], [out])[0] is out
    assert out == 42


def test_data_dependent_shapes(tmp_path: Path) -> None:
    engine = engine_of(models.nonzero(tmp_path / "m.onnx"))
    (y,) = engine.run([np.array([[0, 1, 0, 1]], np.float32)])
    np.testing.assert_array_equal(y, [[0, 1], [0, 3]])
    (y,) = engine.run([np.zeros((1, 4), np.float32)])
    assert y.shape == (0, 2)


@pytest.mark.parametrize("rows", [1, 5])
def test_an_out_of_the_wrong_shape_is_not_used(rows: int, tmp_path: Path) -> None:
    engine = engine_of(models.nonzero(tmp_path / "m.onnx"))
    x = np.array([[0, 1, 0, 1]], np.float32)
    out = np.full((rows, 2), 7, np.int64)
    for _ in range(2):
        (y,) = engine.run([x], [out])
        np.testing.assert_array_equal(y, [[0, 1], [0, 3]])
        assert (out == 7).all()


def test_an_out_that_does_not_fit_costs_a_second_run_only_once(tmp_path: Path) -> None:
    engine = load(models.nonzero(tmp_path / "m.onnx"), EngineOptions())
    session, engine._session = engine._session, CountingSession(engine._session)
    x = np.array([[0, 1, 0, 1]], np.float32)
    for _ in range(3):
        engine.run([x], [np.zeros((5, 2), np.int64)])
    assert engine._session.runs == 4
    engine._session = session


class CountingSession:
    def __init__(self, session: object) -> None:
        self._session = session
        self.runs = 0

    def run_with_iobinding(self, *arguments: object) -> None:
        self.runs += 1
        self._session.run_with_iobinding(*arguments)  # type: ignore[attr-defined]


def test_optional_inputs(tmp_path: Path) -> None:
    engine = engine_of(models.optional_input(tmp_path / "m.onnx"))
    x = np.ones((1, 4), np.float32)
    assert (engine.run([x, None])[0] == 11).all()
    assert (engine.run([x, np.array([1], np.float32)])[0] == 2).all()
    assert (engine.run([x, None])[0] == 11).all()


def text(*rows: Sequence[bytes]) -> Array:
    return np.array(rows, object)


@pytest.mark.parametrize(
    "x",
    [
        text([b"a", "é".encode()], [b"", b"x" * 5000]),
        text([b"nul\0inside", b"nul at the end\0"]),
        np.empty((0, 2), object),
    ],
    ids=["plain", "nul", "empty"],
)
def test_text_is_bytes_on_both_sides(x: Array, tmp_path: Path) -> None:
    (y,) = engine_of(models.string_identity(tmp_path / "m.onnx")).run([x])
    assert y.dtype == object
    assert y.shape == x.shape
    assert y.tolist() == x.tolist()


def test_text_scalar(tmp_path: Path) -> None:
    (y,) = engine_of(models.string_identity(tmp_path / "m.onnx", shape=())).run([np.array(b"a", object)])
    assert y.shape == ()
    assert y.item() == b"a"


def test_text_that_is_not_utf8_is_the_clients_fault(tmp_path: Path) -> None:
    engine = engine_of(models.string_identity(tmp_path / "m.onnx"))
    with pytest.raises(InvalidInputError, match=r"^input 'x': element 1 is not UTF-8$"):
        engine.run([text([b"fine", b"\xff"])])


def test_text_out_of_numbers(tmp_path: Path) -> None:
    engine = engine_of(models.cast_to_text(tmp_path / "m.onnx"))
    (y,) = engine.run([np.array([[1, -2]])], [np.empty((1, 2), object)])
    assert y.tolist() == [[b"1", b"-2"]]


def test_text_beside_numbers_and_bf16(tmp_path: Path) -> None:
    path = models.save(
        tmp_path / "m.onnx",
        [
            models.node("Identity", "words", "same"),
            models.node("Cast", "bits", "wide", to=models.ELEMENT_TYPES[DType.FP32]),
            models.node("Neg", "x", "y"),
        ],
        [
            models.tensor("words", DType.BYTES, ("batch",)),
            models.tensor("bits", DType.BF16, ("batch",)),
            models.tensor("x", DType.FP32, ("batch",)),
        ],
        [
            models.tensor("same", DType.BYTES, ("batch",)),
            models.tensor("wide", DType.FP32, ("batch",)),
            models.tensor("y", DType.FP32, ("batch",)),
        ],
    )
    inputs: list[Array] = [
        np.array([b"a", b"b"], object),
        np.array([0x3F80, 0xC000], np.uint16),
        np.array([3, 4], np.float32),
    ]
    same, wide, y = engine_of(path).run(inputs, [None, np.zeros(2, np.float32), None])
    assert same.tolist() == [b"a", b"b"]
    assert wide.tolist() == [1, -2]
    assert y.tolist() == [-3, -4]


@pytest.mark.parametrize("x", [np.zeros((2, 5), np.float32), np.zeros(4, np.float32)], ids=["size", "rank"])
def test_wrong_dimensions_are_the_clients_fault(x: Array, tmp_path: Path) -> None:
    engine = engine_of(models.affine(tmp_path / "m.onnx"))
    with pytest.raises(InvalidInputError, match=r"^(Got i|I)nvalid [^\n]*: x [^\n]*Expected: \d$"):
        engine.run([x])
    assert (engine.run([np.zeros((1, 4), np.float32)])[0] == 1).all()


def test_a_missing_required_input_is_the_clients_fault(tmp_path: Path) -> None:
    for engine in (
        engine_of(models.affine(tmp_path / "m.onnx")),
        engine_of(models.string_identity(tmp_path / "s.onnx")),
    ):
        with pytest.raises(InvalidInputError, match=r"^input 'x' is missing$"):
            engine.run([None])


def test_an_index_out_of_bounds_is_the_clients_fault(tmp_path: Path) -> None:
    engine = engine_of(models.gather_out_of_bounds(tmp_path / "m.onnx"))
    with pytest.raises(InvalidInputError) as caught:
        engine.run([np.array([9])], [np.zeros((1, 2), np.float32)])
    assert str(caught.value) == (
        "Gather node: indices element out of data bounds, idx=9 must be within the inclusive range [-3,2]"
    )
    assert engine.run([np.array([2])])[0].tolist() == [[4, 5]]


def test_a_failure_of_the_runtime_is_an_engine_error(tmp_path: Path) -> None:
    path = models.save(
        tmp_path / "m.onnx",
        [models.node("Expand", "x sizes", "y")],
        [models.tensor("x", DType.FP32, ("n",)), models.tensor("sizes", DType.INT64, ("r",))],
        [models.tensor("y", DType.FP32, None)],
    )
    with pytest.raises(EngineError, match=r"^Expand node: Failed to allocate memory") as caught:
        engine_of(path).run([np.ones(1, np.float32), np.array([10**12])])
    assert type(caught.value) is EngineError


def test_failures_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = engine_of(models.gather_out_of_bounds(tmp_path / "m.onnx"))
    with pytest.raises(InvalidInputError):
        engine.run([np.array([9])])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 4)), np.zeros((2, 4), np.int32), np.zeros((4, 2), np.float32).T],
    ids=["wide", "kind", "strides"],
)
def test_arrays_that_would_be_misread_never_reach_the_runtime(array: Array, tmp_path: Path) -> None:
    engine = engine_of(models.affine(tmp_path / "m.onnx"))
    good = np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match="'x' must be a C-contiguous array of float32"):
        engine.run([array])
    with pytest.raises(ValueError, match="'y' must be a C-contiguous array of float32"):
        engine.run([good], [array])


def test_a_run_lets_other_threads_work(tmp_path: Path) -> None:
    """While a run lasts, a Python thread makes progress: the GIL is free."""
    engine = engine_of(models.mlp(tmp_path / "m.onnx", width=1024, layers=4))
    x = np.ones((512, 1024), np.float32)
    assert others_go_on(lambda: engine.run([x]))


def test_batches_of_resnet50_equal_single_runs(tmp_path: Path) -> None:
    engine = engine_of(models.resnet50(tmp_path / "m.onnx"))
    assert engine.signature.batches
    x = np.random.default_rng(1).standard_normal((4, 3, 224, 224), dtype=np.float32)
    (batched,) = engine.run([x])
    singles = np.concatenate([engine.run([x[row : row + 1]])[0] for row in range(4)])
    assert np.isfinite(batched).all()
    np.testing.assert_allclose(batched, singles, rtol=1e-4, atol=1e-7)
    for row in range(3):
        assert np.abs(batched[row] - batched[row + 1]).max() > 1e-3


def test_the_large_model_is_as_large_as_asked(tmp_path: Path) -> None:
    path = models.large_weights(tmp_path / "m.onnx", mb=3)
    assert path.stat().st_size >> 20 == 3
    (y,) = engine_of(path).run([np.ones((2, 1024), np.float32)])
    assert y.shape == (2, 1)
    assert y[0] == y[1] != 0


@pytest.mark.parametrize("arena", ["true", "false"])
def test_memory_of_a_large_run_is_given_back_when_asked_and_answers_stay_the_same(
    arena: str, tmp_path: Path
) -> None:
    path = models.mlp(tmp_path / "mlp.onnx", 256, 3)
    engine = load(path, EngineOptions(parameters={"enable_cpu_mem_arena": arena}))
    assert isinstance(engine, GivesBack)
    small: Array = np.ones((1, 256), np.float32)
    (expected,) = engine.run([small])
    trim_heap()
    before = memory_bytes("VmRSS")
    large: Array = np.ones((32 * 1024, 256), np.float32)
    engine.run([large])
    held = memory_bytes("VmRSS") - before
    engine.give_back()
    np.testing.assert_array_equal(engine.run([small])[0], expected)
    left = memory_bytes("VmRSS") - large.nbytes - before
    print(f"held {held >> 20} MiB, left {left >> 20} MiB")
    assert left < large.nbytes / 2
    if arena == "true":
        assert held > 2 * large.nbytes
    np.testing.assert_array_equal(engine.run([small])[0], expected)
    engine.close()
