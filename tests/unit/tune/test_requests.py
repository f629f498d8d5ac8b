"""The request that is measured with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from predictd.client import BFloat16, TensorSpec
from predictd.server.tune.requests import RequestError, made_up, recorded

X = TensorSpec("x", "FP32", (-1, 3))
IDS = TensorSpec("ids", "INT64", (-1, -1))


def array(value: object) -> np.ndarray:
    assert isinstance(value, np.ndarray)
    return value


def test_one_row_is_made_up_the_same_each_time() -> None:
    specs = [X, TensorSpec("flag", "BOOL", (-1, 2)), TensorSpec("more", "FP32", (-1,), optional=True)]
    first, second = made_up(specs, batches=True), made_up(specs, batches=True)
    assert first.keys() == {"x", "flag"}
    assert (array(first["x"]).shape, array(first["x"]).dtype.name) == ((1, 3), "float32")
    assert array(first["flag"]).dtype == np.bool_
    np.testing.assert_array_equal(array(first["x"]), array(second["x"]))


@pytest.mark.parametrize(
    ("dtype", "numpy"),
    [("UINT8", "uint8"), ("INT16", "int16"), ("UINT64", "uint64"), ("FP64", "float64"), ("BYTES", "object")],
)
def test_dtypes(dtype: str, numpy: str) -> None:
    made = made_up([TensorSpec("x", dtype, (2,))], batches=False)
    assert array(made["x"]).dtype == np.dtype(numpy)
    assert array(made["x"]).shape == (2,)


def test_bf16() -> None:
    assert isinstance(made_up([TensorSpec("x", "BF16", (2,))], batches=False)["x"], BFloat16)


def test_what_the_signature_does_not_tell_is_asked_for() -> None:
    with pytest.raises(RequestError, match=r"'ids' has dimensions that vary .*--input"):
        made_up([IDS], batches=True)
    with pytest.raises(RequestError, match="FP99"):
        made_up([TensorSpec("x", "FP99", (2,))], batches=False)


def test_a_recorded_request(tmp_path: Path) -> None:
    path = tmp_path / "request.npz"
    ids = np.arange(8, dtype=np.int64).reshape(1, 8)
    np.savez(path, ids=ids)
    np.testing.assert_array_equal(array(recorded(path, [IDS])["ids"]), ids)
    with pytest.raises(RequestError, match="input 'x' is missing"):
        recorded(path, [IDS, X])
    with pytest.raises(RequestError, match="no input 'ids'; it takes x"):
        recorded(path, [X])
    path.write_text("no archive")
    with pytest.raises(RequestError, match=r"not an .npz file"):
        recorded(path, [IDS])
    with pytest.raises(RequestError, match="no such file"):
        recorded(tmp_path / "nowhere.npz", [IDS])
