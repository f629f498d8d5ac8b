import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from predictd.engines import onnxruntime
from predictd.engines.api import Array, DType, Engine, EngineError, EngineOptions, InvalidInputError
from tests.fixtures import models
from tests.fixtures.gil import others_go_on
from tests.unit.engines.shared import sample

openvino_engine = pytest.importorskip("predictd.engines.openvino", reason="openvino is not installed")
load = openvino_engine.load
NUMERIC = [dtype for dtype in DType if dtype is not DType.BYTES]


def engine_of(path: Path, **options: object) -> Engine:
    engine: Engine = load(path, EngineOptions(**options))  # type: ignore[arg-type]
    return engine


@pytest.mark.parametrize("dtype", NUMERIC, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(3, 4), (0, 4)], ids=str)
def test_every_dtype_with_and_without_out(dtype: DType, shape: tuple[int, ...], tmp_path: Path) -> None:
    engine = engine_of(models.identity(tmp_path / "m.onnx", dtype))
    x = sample(dtype, shape)
    x.flags.writeable = False
    (y,) = engine.run([x])
    np.testing.assert_array_equal(y, x, strict=True)
    out = np.full(shape, 1, dtype.numpy)
    (y,) = engine.run([x], [out])
    assert y is out
    np.testing.assert_array_equal(out, x, strict=True)


@pytest.mark.parametrize(
    "write",
    [
        models.affine,
        models.mlp,
        models.dynamic_dims,
        models.fixed_batch,
        models.scalar,
        models.reduce_all,
        models.nonzero,
        partial(models.add_sub, dtype=DType.FP32),
    ],
)
def test_answers_are_those_of_onnxruntime(write: models.Writer, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    reference = onnxruntime.load(path, EngineOptions())
    engines = [engine_of(file) for file in (path, models.openvino_model(tmp_path / "m.xml", path))]
    random = np.random.default_rng(7)
    for rows in (1, 5, 2):
        inputs: list[Array] = [
            np.array(
                random.standard_normal([rows if size == -1 else size for size in spec.shape]), np.float32
            )
            for spec in reference.signature.inputs
        ]
        expected = reference.run(inputs)
        for engine in engines:
            for y, wanted in zip(engine.run(inputs), expected, strict=True):
                assert y.dtype == wanted.dtype
                np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


def test_resnet50_is_that_of_onnxruntime_and_its_batches_equal_single_runs(tmp_path: Path) -> None:
    path = models.resnet50(tmp_path / "m.onnx")
    engine = engine_of(path, threads=2)
    x = np.random.default_rng(1).standard_normal((3, 3, 224, 224), dtype=np.float32)
    (batched,) = engine.run([x])
    (expected,) = onnxruntime.load(path, EngineOptions(threads=2)).run([x])
    np.testing.assert_allclose(batched, expected, rtol=1e-3, atol=1e-7)
    singles = np.concatenate([engine.run([x[row : row + 1]])[0] for row in range(3)])
    np.testing.assert_allclose(batched, singles, rtol=1e-4, atol=1e-7)


def test_reduced_precision_only_when_asked(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256)
    x = np.random.default_rng(3).standard_normal((4, 256), dtype=np.float32)
    (expected,) = onnxruntime.load(path, EngineOptions()).run([x])
    (full,) = engine_of(path).run([x])
    assert np.abs(full - expected).max() < 1e-4
    try:
        reduced_engine = engine_of(path, parameters={"precision": "bf16"})
    except EngineError as error:
        assert "this machine does not compute in bf16" in str(error)  # noqa: PT017 - either is right
    else:
        (reduced,) = reduced_engine.run([x])
        assert 1e-4 < np.abs(reduced - expected).max() < 0.2


def test_each_run_writes_only_its_own_out(tmp_path: Path) -> None:
    engine = engine_of(models.add_sub(tmp_path / "m.onnx"))
    left, right = sample(DType.INT32, (2, 16)), np.ones((2, 16), np.int32)
    first = np.zeros((2, 16), np.int32)
    added, subtracted = engine.run([left, right], [None, first])
    assert subtracted is first
    kept = added.copy()
    engine.run([right, right], [np.zeros((2, 16), np.int32), None])
    np.testing.assert_array_equal(added, kept)
    np.testing.assert_array_equal(kept, left + right)
    np.testing.assert_array_equal(first, left - right)


def test_nothing_of_the_caller_is_held_after_a_run(tmp_path: Path) -> None:
    engine = engine_of(models.affine(tmp_path / "m.onnx"))
    memory = bytearray(64)
    x = np.frombuffer(memory, np.float32, 8).reshape(2, 4)
    out = np.frombuffer(memory, np.float32, 8, 32).reshape(2, 4)
    engine.run([x], [out])
    with pytest.raises(InvalidInputError):
        engine.run([x.reshape(4, 2)], [out])
    # OpenVINO counts no references: what it still pointed to would be read or written.
    request = engine._request  # type: ignore[attr-defined]
    assert tuple(request.get_input_tensor(0).shape) == (0, 4)
    assert tuple(request.get_output_tensor(0).shape) == (0, 4)
    del x, out
    memory.clear()  # BufferError while any view of it lives.


def test_an_output_that_is_an_input_is_a_copy(tmp_path: Path) -> None:
    engine = engine_of(models.pass_through(tmp_path / "m.onnx"))
    x = sample(DType.FP32, (2, 4))
    out = np.zeros((2, 4), np.float32)
    for given in (out, None):
        same, negative = engine.run([x], [given, None])
        assert not np.shares_memory(same, x)
        np.testing.assert_array_equal(same, x)
        np.testing.assert_array_equal(negative, -x)
    np.testing.assert_array_equal(out, x)


# On one thread and on several, as OpenVINO takes different ways, of which one has lost errors.
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 5])
def test_an_out_of_the_wrong_shape_is_not_the_answer(rows: int, threads: int, tmp_path: Path) -> None:
    engine = engine_of(models.nonzero(tmp_path / "m.onnx"), threads=threads)
    x = np.array([[0, 1, 0, 1]], np.float32)
    out = np.full((rows, 2), 7, np.int64)
    for _ in range(2):
        (y,) = engine.run([x], [out])
        assert not np.shares_memory(y, out)
        np.testing.assert_array_equal(y, [[0, 1], [0, 3]])


@pytest.mark.parametrize("x", [np.zeros((2, 5), np.float32), np.zeros(4, np.float32)], ids=["size", "rank"])
def test_wrong_dimensions_are_the_clients_fault(x: Array, tmp_path: Path) -> None:
    engine = engine_of(models.affine(tmp_path / "m.onnx"))
    with pytest.raises(InvalidInputError, match=r"^Can't set the input tensor [^\n]*$"):
        engine.run([x])
    assert (engine.run([np.zeros((1, 4), np.float32)])[0] == 1).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_contradicting_dimensions_are_the_clients_fault(threads: int, tmp_path: Path) -> None:
    engine = engine_of(models.add_sub(tmp_path / "m.onnx"), threads=threads)
    with pytest.raises(InvalidInputError, match=r"^\[CPU\] Add node with name 'OUTPUT0': [^\n]*mismatch$"):
        engine.run([np.ones((3, 16), np.int32), np.ones((2, 16), np.int32)])


def test_a_missing_input_is_the_clients_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"^input 'x' is missing$"):
        engine_of(models.affine(tmp_path / "m.onnx")).run([None])


@pytest.mark.parametrize(
    ("dtype", "number"),
    [(DType.INT64, 2**31), (DType.INT64, -(2**31) - 1), (DType.UINT64, 2**63), (DType.UINT32, 2**31)],
)
def test_integers_that_would_be_cut_off_are_refused(dtype: DType, number: int, tmp_path: Path) -> None:
    engine = engine_of(models.identity(tmp_path / "m.onnx", dtype, ("batch",)))
    with pytest.raises(InvalidInputError, match=r"^input 'x' has numbers that need more than 32 bits"):
        engine.run([np.array([1, number], dtype.numpy)])
    largest = np.array([2**31 - 1], dtype.numpy)
    np.testing.assert_array_equal(engine.run([largest])[0], largest)


def test_an_array_of_another_type_is_a_bug_of_the_caller(tmp_path: Path) -> None:
    engine = engine_of(models.affine(tmp_path / "m.onnx"))
    for wrong in (np.zeros((2, 4)), np.zeros((4, 2), np.float32).T):
        with pytest.raises(ValueError, match="This is a bug"):
            engine.run([wrong])


def compute_threads(engine: Engine, x: Array) -> tuple[int, set[str]]:
    """How many threads of this process computed in some runs, and on which CPUs its threads may run."""
    before = cpu_ticks()
    for _ in range(6):
        engine.run([x])
    after = cpu_ticks()
    busiest = max(after[task] - before.get(task, 0) for task in after)
    worked = [task for task in after if after[task] - before.get(task, 0) > busiest / 4]
    return len(worked), {allowed_cpus(task) for task in after}


def cpu_ticks() -> dict[int, int]:
    tasks = {}
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - names
        fields = Path(f"/proc/self/task/{task}/stat").read_text().rpartition(")")[2].split()
        tasks[int(task)] = int(fields[11]) + int(fields[12])
    return tasks


def allowed_cpus(task: int) -> str:
    lines = Path(f"/proc/self/task/{task}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list:"))


def test_threads_are_as_told_and_bound_to_no_cpu(tmp_path: Path) -> None:
    path = models.resnet50(tmp_path / "m.onnx")
    x = np.random.default_rng(1).standard_normal((1, 3, 224, 224), dtype=np.float32)
    own = allowed_cpus(os.getpid())
    for threads in (1, 2):
        engine = engine_of(path, threads=threads)
        engine.run([x])
        worked, cpus = compute_threads(engine, x)
        assert worked <= threads
        assert cpus == {own}


def test_a_run_lets_other_threads_go_on(tmp_path: Path) -> None:
    engine = engine_of(models.resnet50(tmp_path / "m.onnx"))
    x = np.zeros((2, 3, 224, 224), np.float32)
    engine.run([x])
    assert others_go_on(lambda: engine.run([x]))
