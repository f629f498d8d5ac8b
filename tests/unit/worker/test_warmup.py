"""What is run before a model is served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictd.engines.api import (
    Array,
    DType,
    EngineError,
    InvalidInputError,
    ModelLoadError,
    Signature,
    TensorSpec,
)
from predictd.engines.cancellation import Cancellation
from predictd.server.config.model_config import Warmup, WarmupSample, WarmupTensor
from predictd.server.worker.strings import encode_strings
from predictd.server.worker.warmup import is_guess, made_up, warm_up, warmed_sizes
from tests.fixtures.frontend import config
from tests.unit.worker.lanes import FakeEngine

X = TensorSpec("x", DType.FP32, (-1, 2))
TEXT = TensorSpec("t", DType.BYTES, (-1, 2))
SIZES = [8, 4, 2, 1]


def ran(
    warmup: Warmup | None, *specs: TensorSpec, fail: Exception | None = None, batches: bool = True
) -> Any:
    """The inputs of each run."""

    def compute(inputs: Sequence[Array | None]) -> list[Array]:
        if fail is not None and any(one is not None and (one != 0).any() for one in inputs):
            raise fail
        return []

    engine = FakeEngine(Signature(specs or (X,), (), batches), compute)
    warm_up(
        engine,
        engine.signature,
        config(warmup=warmup, origins={"warmup": "/m/config.pbtxt:9"}),
        Cancellation(),
    )
    return engine.runs


def recorded(folder: Path, **arrays: Any) -> Warmup:
    np.savez(folder / "warm.npz", **arrays)
    return Warmup(mode="file", file=folder / "warm.npz")


def sample(*inputs: WarmupTensor, runs: int = 1) -> Warmup:
    return Warmup(mode="samples", samples=(WarmupSample(name="s", runs=runs, inputs=inputs),))


def test_zeros_of_every_batch_size_unless_told_otherwise() -> None:
    for warmup in (None, Warmup(mode="zeros")):
        runs = ran(warmup)
        assert [len(run[0]) for run in runs] == SIZES
        assert not any(run[0].any() for run in runs)


def test_no_more_rows_than_the_engine_takes() -> None:
    engine = FakeEngine(Signature((X,), (), batches=True, max_rows=3), lambda _: [])
    warm_up(engine, engine.signature, config(), Cancellation())
    assert [len(one) for run in engine.runs for one in run if one is not None] == [3, 2, 1]


@pytest.mark.parametrize(("megabytes", "rows"), [(8, [8, 4, 2, 1]), (9, [4, 2, 1]), (100, [1])])
def test_batches_of_huge_inputs_are_left_out_but_for_the_smallest(megabytes: int, rows: list[int]) -> None:
    x = TensorSpec("x", DType.FP32, (-1, megabytes * 2**18))
    assert warmed_sizes(Signature((x,), (), batches=True), config()) == rows


def test_none_runs_nothing() -> None:
    assert ran(Warmup(mode="none")) == []


@pytest.mark.parametrize("dtype", list(DType))
def test_random_inputs_are_small_numbers_of_the_right_type_and_always_the_same(dtype: DType) -> None:
    spec = TensorSpec("x", dtype, (-1, 50))
    (first, again) = (made_up(spec, 2, "random") for _ in range(2))
    assert first is not None and again is not None
    assert (first.dtype, first.shape) == (dtype.numpy, (2, 50))
    assert (first == again).all()
    if dtype is DType.BYTES:
        assert set(first.ravel()) == {b""}
    else:
        values = (first.astype(np.uint32) << 16).view(np.float32) if dtype is DType.BF16 else first
        assert values.min() >= 0
        assert 0 < values.max() <= 1
        assert len(np.unique(values)) > 1


def test_random_inputs_take_the_place_of_zeros() -> None:
    runs = ran(Warmup(mode="random"))
    assert [len(run[0]) for run in runs] == SIZES
    assert all(run[0].any() for run in runs)


def test_recorded_inputs_run_beside_the_batch_sizes(tmp_path: Path) -> None:
    given = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    words = np.array([["a", "größe"], ["", "c"], ["d", "e"]])
    runs = ran(recorded(tmp_path, x=given, t=words), X, TEXT)
    assert len(runs) == len(SIZES) + 1
    np.testing.assert_array_equal(runs[-1][0], given)
    assert runs[-1][1].tolist() == [[word.encode() for word in row] for row in words]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"z": np.zeros((1, 2), np.float32)}, "the model has no input 'z'; it takes x"),
        ({}, "input 'x' is missing"),
        ({"x": np.zeros((1, 2))}, "input 'x' is float64[1, 2]; the model takes FP32[-1, 2]"),
        ({"x": np.zeros((1, 3), np.float32)}, "input 'x' is float32[1, 3]; the model takes FP32[-1, 2]"),
        ({"x": np.zeros(2, np.float32)}, "input 'x' is float32[2]; the model takes FP32[-1, 2]"),
    ],
)
def test_recorded_inputs_that_the_model_does_not_take_name_the_file(
    arrays: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError) as caught:
        ran(recorded(tmp_path, **arrays))
    assert str(caught.value) == f"{tmp_path}/warm.npz: {reason}"


def test_a_recorded_request_that_fails_fails_the_load_and_names_the_file(tmp_path: Path) -> None:
    warmup = recorded(tmp_path, x=np.ones((1, 2), np.float32))
    for error in (EngineError("no"), InvalidInputError("no")):
        with pytest.raises(ModelLoadError) as caught:
            ran(warmup, fail=error)
        assert str(caught.value) == f"{tmp_path}/warm.npz: warm-up failed: no"


@pytest.mark.parametrize("content", [None, b"no zip", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_npz_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "warm.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        ran(Warmup(mode="file", file=path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_pickled_arrays_are_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"warm.npz: not an .npz file of arrays: .*pickle"):
        ran(recorded(tmp_path, t=np.array([[b"a", b"b"]], object)), TEXT)


def test_triton_s_samples_repeat_their_rows(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(np.array([1, 2], np.float32).tobytes())
    (tmp_path / "t").write_bytes(encode_strings([b"a", b""])[0])
    shape = {"shape": (3, 2), "rows": 3}
    warmup = sample(
        WarmupTensor(name="x", dtype="FP32", data="file", file=tmp_path / "x", **shape),  # type: ignore[arg-type]
        WarmupTensor(name="t", dtype="BYTES", data="file", file=tmp_path / "t", **shape),  # type: ignore[arg-type]
        runs=2,
    )
    runs = ran(warmup, X, TEXT)
    assert len(runs) == len(SIZES) + 2
    for run in runs[-2:]:
        assert run[0].tolist() == [[1, 2]] * 3
        assert run[1].tolist() == [[b"a", b""]] * 3


def test_a_sample_that_fails_names_the_configuration_the_sample_and_its_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(np.array([1, 2], np.float32).tobytes())
    tensor = WarmupTensor(name="x", dtype="FP32", shape=(1, 2), rows=1, data="file", file=path)
    with pytest.raises(ModelLoadError) as caught:
        ran(sample(tensor), fail=EngineError("no"))
    assert str(caught.value) == f"/m/config.pbtxt:9: warm-up 's' ({path}): warm-up failed: no"
    random = WarmupTensor(name="x", dtype="FP32", shape=(1, 2), rows=1, data="random")
    with pytest.raises(ModelLoadError) as caught:
        ran(sample(random), fail=EngineError("no"))
    assert str(caught.value) == "/m/config.pbtxt:9: warm-up 's': warm-up failed: no"


@pytest.mark.parametrize(
    ("dtype", "data", "reason"),
    [
        ("FP32", None, "no such file or directory"),
        ("FP32", b"1234567", "7 bytes, but 2 elements of FP32 have 8"),
        ("BYTES", b"\1\0\0\0a", "not 2 elements of text: 5 bytes do not hold 2 elements"),
    ],
)
def test_a_data_file_of_the_wrong_size_is_named(
    dtype: str, data: bytes | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.bin"
    if data is not None:
        path.write_bytes(data)
    tensor = WarmupTensor(name="x", dtype=dtype, shape=(2,), rows=None, data="file", file=path)
    with pytest.raises(ModelLoadError) as caught:
        ran(sample(tensor), TensorSpec("x", DType[dtype], (2,)), batches=False)
    assert str(caught.value) == f"{path}: {reason}"


def test_made_up_text_and_sizes_are_guesses_and_may_fail() -> None:
    open_size = TensorSpec("x", DType.FP32, (-1, -1))
    for specs, guess in (((X,), False), ((TEXT,), True), ((open_size,), True)):
        assert is_guess(Signature(specs, (), batches=True)) is guess

    def never(_: Sequence[Array | None]) -> list[Array]:
        raise EngineError("no")

    for spec in (TEXT, open_size):
        engine = FakeEngine(Signature((spec,), (), batches=True), never)
        warm_up(engine, engine.signature, config(), Cancellation())
        assert len(engine.runs) == 1
    engine = FakeEngine(Signature((X,), (), batches=True), never)
    with pytest.raises(EngineError, match=r"^no$"):
        warm_up(engine, engine.signature, config(), Cancellation())
