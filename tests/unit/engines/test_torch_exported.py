"""Exported programs, run by PyTorch itself."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predictd.engines.api import Array, DType, Engine, EngineOptions, InvalidInputError, Signature, TensorSpec
from tests.fixtures.torch_or_skip import need_export
from tests.unit.engines.shared import refusal

need_export()
torch: Any = pytest.importorskip("torch")
from predictd.engines.torch.engine import load  # noqa: E402 - it imports torch
from tests.fixtures import torch_models  # noqa: E402


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine sets for good is set back."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def engine_of(path: Path, **options: Any) -> Engine:
    return load(path, EngineOptions(**options))


def reason(path: Path, **options: Any) -> str:
    return refusal(load, path, EngineOptions(**options))


def both(folder: Path) -> Path:
    module = torch_models.SumAndDifference()
    return torch_models.export(folder / "m.pt2", module, torch.ones(2, 4), torch.ones(2, 4), batch=(1, 64))


def test_the_program_says_itself_what_it_takes_and_how_many_rows(tmp_path: Path) -> None:
    engine = engine_of(both(tmp_path))
    names = ("left", "right"), ("OUTPUT__0", "OUTPUT__1")
    inputs, outputs = (tuple(TensorSpec(name, DType.FP32, (-1, 4)) for name in some) for some in names)
    assert engine.signature == Signature(inputs, outputs, batches=True, max_rows=64)
    total, difference = engine.run([ones(3, 4) * 3, ones(3, 4)])
    np.testing.assert_array_equal(total, ones(3, 4) * 4)
    np.testing.assert_array_equal(difference, ones(3, 4) * 2)
    with pytest.raises(InvalidInputError):
        engine.run([ones(65, 4), ones(65, 4)])


def test_the_configuration_may_call_them_otherwise(tmp_path: Path) -> None:
    declared = tuple(TensorSpec(f"INPUT__{at}", DType.FP32, (-1, 4)) for at in (1, 0))
    probable = (TensorSpec("p", DType.FP32, (-1, 4)), TensorSpec("q", DType.FP32, (-1, 4)))
    engine = engine_of(both(tmp_path), inputs=declared, outputs=probable)
    assert [spec.name for spec in engine.signature.inputs] == ["INPUT__0", "INPUT__1"]
    assert [spec.name for spec in engine.signature.outputs] == ["p", "q"]


def test_two_outputs_cannot_be_called_the_same(tmp_path: Path) -> None:
    path = torch_models.export(tmp_path / "m.pt2", torch_models.Powers(), torch.ones(2, 4))
    declared = tuple(TensorSpec(name, DType.FP32, (2, 4)) for name in ("one", "OUTPUT__2"))
    assert (
        reason(path, outputs=declared) == "two outputs are called the same in 'one', 'OUTPUT__2', 'OUTPUT__2'"
    )


def test_the_keys_of_a_dictionary_are_names(tmp_path: Path) -> None:
    engine = engine_of(torch_models.export(tmp_path / "m.pt2", torch_models.Named(), torch.ones(2, 4)))
    assert [(spec.name, spec.shape) for spec in engine.signature.outputs] == [
        ("twice", (2, 4)),
        ("once", (2, 4)),
    ]
    assert not engine.signature.batches
    twice, once = engine.run([ones(2, 4)])
    assert (float(twice[0, 0]), float(once[0, 0])) == (2, 1)


def test_a_program_that_writes_over_its_inputs_gets_copies(tmp_path: Path) -> None:
    engine = engine_of(torch_models.export(tmp_path / "m.pt2", torch_models.InPlace(), torch.ones(2, 4)))
    sent = ones(2, 4)
    np.testing.assert_array_equal(engine.run([sent])[0], ones(2, 4) + 1)
    np.testing.assert_array_equal(sent, ones(2, 4))


def test_convolutions_are_those_of_the_module(tmp_path: Path) -> None:
    net = torch_models.convolutions()
    path = torch_models.export(tmp_path / "m.pt2", net, torch.ones(2, 3, 32, 32), batch=(1, 32))
    image = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    with torch.no_grad():
        expected = np.from_dlpack(net(torch.from_dlpack(image)))
    np.testing.assert_allclose(engine_of(path).run([image])[0], expected, atol=1e-4)


def test_what_torchscript_alone_has_is_refused(tmp_path: Path) -> None:
    assert reason(both(tmp_path), parameters={"optimization": "freeze"}) == (
        "parameter 'optimization' is for TorchScript, not for an exported program"
    )


def test_a_damaged_program_is_one_line(tmp_path: Path) -> None:
    path = both(tmp_path)
    torch_models.rewrite(path, "models/model.json", b"{}")
    assert reason(path)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # typing.override needs Python 3.12.
    def __reduce__(self) -> tuple[Any, ...]:  # type: ignore[explicit-override]
        return os.mkdir, (str(self.folder),)


def test_nothing_but_tensors_is_unpickled(tmp_path: Path) -> None:
    path, trace = both(tmp_path), tmp_path / "trace"
    pickled = io.BytesIO()
    torch.save((Bomb(trace),), pickled)
    torch_models.rewrite(path, "data/sample_inputs/model.pt", pickled.getvalue())
    reason(path)
    assert not trace.exists()
