"""Loads that are given up while a runtime is at work on them."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from predictd.engines.api import DType, EngineOptions, LoadCancelledError
from predictd.engines.cancellation import Cancellation
from predictd.engines.onnxruntime import load
from tests.fixtures import models


def test_whoever_listens_is_called_once_and_only_while_it_listens() -> None:
    cancel, calls = Cancellation(), []
    with cancel.calling(lambda: calls.append("early")):
        assert not cancel.is_set
    cancel.set()
    assert (calls, cancel.is_set) == ([], True)
    with cancel.calling(lambda: calls.append("late")):
        assert calls == ["late"]


def test_another_thread_reaches_whoever_listens() -> None:
    cancel, called = Cancellation(), threading.Event()
    with cancel.calling(called.set):
        thread = threading.Thread(target=cancel.set)
        thread.start()
        assert called.wait(10)
        thread.join(10)


def chain(path: Path, nodes: int) -> Path:
    """A model that takes a while to load, for all its nodes."""
    x, y = (models.tensor(name, DType.FP32, ("batch", 4)) for name in ("x", f"t{nodes}"))
    names = ["x", *(f"t{number}" for number in range(1, nodes + 1))]
    chained = [models.node("Relu", before, after) for before, after in itertools.pairwise(names)]
    return models.save(path, chained, [x], [y])


def test_onnx_runtime_does_not_load_what_was_given_up_before(tmp_path: Path) -> None:
    cancel = Cancellation()
    cancel.set()
    with pytest.raises(LoadCancelledError, match=r"^the load was given up$"):
        load(models.affine(tmp_path / "m.onnx"), EngineOptions(cancel=cancel))


def test_onnx_runtime_stops_in_the_midst_of_a_load(tmp_path: Path) -> None:
    cancel = Cancellation()
    path = chain(tmp_path / "m.onnx", 6000)
    thread = threading.Timer(0.02, cancel.set)
    thread.start()
    with pytest.raises(LoadCancelledError):
        load(path, EngineOptions(cancel=cancel))
    thread.join(10)


def test_a_load_that_nobody_gives_up_is_none_the_worse(tmp_path: Path) -> None:
    cancel = Cancellation()
    engine = load(models.affine(tmp_path / "m.onnx"), EngineOptions(cancel=cancel))
    cancel.set()
    assert engine.signature.inputs[0].name == "x"
    engine.close()
