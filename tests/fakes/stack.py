"""What TensorRT tests run on: a fake of a version on a `World`, or the real thing where there is a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from predictd.engines.api import EngineOptions
from predictd.engines.tensorrt import TensorRtEngine, driver, load
from tests.fakes import cuda_driver, plans, pycuda_driver, real, tensorrt
from tests.fakes.gpu import World

FAKES = ("8.6", "10", "rtx")
ALL = (*FAKES, pytest.param("real", marks=pytest.mark.gpu))


@dataclass
class Stack:
    """Somewhere to run plans.

    Attributes:
        world: The fake GPU; None where it is a real one.
    """

    version: str
    world: World | None
    folder: Path
    write: Callable[[plans.PlanSpec, Path], None]
    loaded: int = 0

    def path(self, spec: plans.PlanSpec) -> Path:
        """A plan as a file."""
        path = self.folder / f"{spec.operation}.plan"
        self.write(spec, path)
        return path

    @contextmanager
    def engine(self, spec: plans.PlanSpec, **parameters: str) -> Iterator[TensorRtEngine]:
        """A loaded plan. Everything must have been given back afterwards."""
        engine = load(self.path(spec), EngineOptions(device="0", parameters=parameters))
        self.loaded += 1
        try:
            yield engine
        finally:
            self.loaded -= 1
            engine.close()
        if self.world is not None and not self.loaded:
            self.world.nothing_left()


def make_stack(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The stack of a version."""
    if version == "real":
        return Stack(version, None, folder, real.build)
    world = World()
    install(monkeypatch, world, version)
    return Stack(version, world, folder, _write)


def install(monkeypatch: pytest.MonkeyPatch, world: World, version: str) -> None:
    """Put the fakes where the product imports from."""
    names: dict[str, Any] = dict.fromkeys(
        ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings")
    )
    names["tensorrt_rtx" if version == "rtx" else "tensorrt"] = tensorrt.make(world, version)
    names["pycuda.driver"] = pycuda_driver.make(world)
    names["cuda.bindings.driver"] = cuda_driver.make(world)
    for name, module in names.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(driver, "probe", lambda: world.device_count)


def _write(spec: plans.PlanSpec, path: Path) -> None:
    path.write_bytes(spec.encode())
