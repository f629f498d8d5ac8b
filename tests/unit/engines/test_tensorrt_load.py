"""Loading plans: what is refused, in one line, and that no CUDA means an error and not the end of the process."""

from __future__ import annotations

import importlib
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from predictd.engines.api import EngineOptions, ModelLoadError
from predictd.engines.cancellation import Cancellation
from predictd.engines.registry import resolve
from predictd.engines.tensorrt import driver, load
from predictd.engines.tensorrt.bindings import LogLine, load_bindings
from tests.fakes.plans import PlanSpec, Tensor
from tests.fakes.stack import FAKES, Stack, make_stack

SPEC = PlanSpec("double", (Tensor("x", (2, 4)),), (Tensor("y", (2, 4)),))


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    return make_stack(request.param, tmp_path, monkeypatch)


def load_error(path: Path, options: EngineOptions | None = None) -> str:
    """The one line that loading fails with, without the path that it begins with."""
    with pytest.raises(ModelLoadError) as caught:
        load(path, options or EngineOptions(device="0"))
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_the_registry_knows_it() -> None:
    assert resolve("tensorrt") is load


def test_what_is_no_plan(fake: Stack) -> None:
    path = fake.folder / "m.plan"
    path.write_bytes(b"something else")
    text = load_error(path)
    assert (
        "GPU 0 (Serialization (Serialization assertion magic failed.)): it does not begin like a plan" in text
    )
    assert ("TensorRT-RTX 1.7" in text) == (fake.version == "rtx")
    path.write_bytes(b"")
    assert load_error(path) == "the file is empty"
    path.unlink()
    assert load_error(path) == "No such file or directory"
    assert fake.world is not None
    fake.world.nothing_left()


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (Tensor("x", (2, 4), "FP8"), "tensor 'x' has type FP8; served are FLOAT, HALF, BF16"),
        (Tensor("packed", (2, 4)), "tensor 'packed' has the format Channel major FP16"),
    ],
)
def test_tensors_that_cannot_be_served(fake: Stack, tensor: Tensor, reason: str) -> None:
    spec = replace(SPEC, inputs=(tensor,), extra={"vectorized": "packed"})
    assert load_error(fake.path(spec)).startswith(reason)
    assert fake.world is not None
    fake.world.nothing_left()


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"parts": "0"}, "parameter 'parts' must be one of 1, 2, 3, 4, 5, 6, 7, 8, not '0'"),
        ({"cuda_graphs": "yes"}, "parameter 'cuda_graphs' must be one of true, false, not 'yes'"),
        ({"bindings": "trt"}, "parameter 'bindings' must be one of tensorrt, tensorrt_rtx, not 'trt'"),
        (
            {"streams": "2"},
            (
                "unknown parameter 'streams' of engine tensorrt; known: bindings, cuda_graphs, parts, "
                "hardware_compatibility, max_shapes, min_shapes, opt_shapes, precision, sparse, version_compatible, "
                "workspace_bytes"
            ),
        ),
    ],
)
def test_parameters_that_are_refused(fake: Stack, parameters: dict[str, str], reason: str) -> None:
    assert load_error(fake.path(SPEC), EngineOptions(device="0", parameters=parameters)) == reason


@pytest.mark.parametrize("device", ["cpu", "gpu", "-1", "0,1", "cuda:x"])
def test_devices_that_are_refused(fake: Stack, device: str) -> None:
    assert f"not on {device!r}" in load_error(fake.path(SPEC), EngineOptions(device=device))


@pytest.mark.parametrize("device", ["1", "cuda:1", "cuda"])
def test_devices(fake: Stack, device: str) -> None:
    load(fake.path(SPEC), EngineOptions(device=device)).close()
    assert fake.world is not None
    fake.world.nothing_left()


def test_the_plan_for_the_gpus_compute_capability(fake: Stack) -> None:
    usual = fake.path(SPEC)
    fake.write(replace(SPEC, operation="echo"), usual.with_name("ada.plan"))
    given = np.ones((2, 4), np.float32)
    for device, factor in (("0", 2), ("1", 1)):
        options = EngineOptions(device=device, files_by_capability={"8.9": "ada.plan"})
        engine = load(usual, options)
        assert (engine.run([given])[0] == factor * given).all()
        engine.close()
    usual.with_name("ada.plan").unlink()
    with pytest.raises(ModelLoadError, match=r"ada\.plan: No such file or directory"):
        load(usual, EngineOptions(device="1", files_by_capability={"8.9": "ada.plan"}))


def test_a_gpu_that_is_not_there(fake: Stack) -> None:
    assert (
        load_error(fake.path(SPEC), EngineOptions(device="7")) == "there is no GPU 7: CUDA counts 2, from 0"
    )


def test_a_gpu_that_cannot_be_used(fake: Stack) -> None:
    assert fake.world is not None
    fake.world.lost = "device is busy or unavailable"
    text = load_error(fake.path(SPEC))
    assert text.startswith(
        "GPU 0 cannot be used: CUDA failed: cuDevicePrimaryCtxRetain failed: device is busy"
    )


def test_no_gpu_memory(fake: Stack) -> None:
    assert fake.world is not None
    fake.world.free_bytes = 16
    assert load_error(fake.path(SPEC)) == "CUDA failed: cuMemAlloc failed: out of memory"
    fake.world.nothing_left()


def test_a_load_that_is_given_up(fake: Stack) -> None:
    cancel = Cancellation()
    cancel.set()
    with pytest.raises(ModelLoadError, match="the load was given up"):
        load(fake.path(SPEC), EngineOptions(device="0", cancel=cancel))
    assert fake.world is not None
    fake.world.nothing_left()


def test_without_a_driver_nothing_of_tensorrt_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whose every class is missing but one, so that touching it fails otherwise.
    untouched = types.ModuleType("tensorrt")
    untouched.__dict__.update(Runtime=None, __version__="10.0")
    monkeypatch.setitem(sys.modules, "tensorrt", untouched)
    monkeypatch.setattr(driver, "_LIBRARY", "libno-such-driver.so.1")
    assert load_error(tmp_path / "m.plan").startswith(
        "there is no NVIDIA driver here: libno-such-driver.so.1: cannot open shared object file"
    )


def test_without_the_packages_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    text = load_error(tmp_path / "m.plan")
    assert text == "TensorRT cannot be imported: pip install 'predictd[tensorrt]'"
    rtx = EngineOptions(device="0", parameters={"bindings": "tensorrt_rtx"})
    assert "predictd[tensorrt-rtx]" in load_error(tmp_path / "m.plan", rtx)


def test_bindings_whose_library_is_missing_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> object:
        if name == "tensorrt_bindings":
            raise OSError("libnvinfer.so.10: cannot open shared object file")
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert "(tensorrt_bindings: libnvinfer.so.10: cannot open shared object file)" in load_error(
        tmp_path / "m.plan"
    )


@pytest.mark.usefixtures("fake")
def test_the_log_gives_errors_without_source_positions() -> None:
    log = load_bindings().new_log()
    assert log.reason() == "TensorRT gave no reason"
    log.add(LogLine("WARNING", "slow"))
    assert log.reason() == "slow"
    for _ in range(2):
        log.logger.log(
            types.SimpleNamespace(name="ERROR"),
            "[network.cpp::operator()::2991] Error Code 4: Internal Error (x: no\nprofile.)",
        )
    assert log.reason() == "Internal Error (x: no profile.)"
    log.add(LogLine("VERBOSE", "a tactic"))
    for number in range(1000):
        log.add(LogLine("INFO", f"layer {number}"))
    assert log.lines()[-1] == LogLine("INFO", "layer 999")
    assert log.reason() == "Internal Error (x: no profile.)", "what it says by the way pushes no reason out"
    log.clear()
    assert log.lines() == ()
    assert log.reason() == "TensorRT gave no reason"
