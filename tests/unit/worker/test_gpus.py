"""What a worker tells of its GPUs, with a management library that is none."""

from __future__ import annotations

import logging
import sys
import types
from typing import Any

import pytest

from predictd.engines.api import EngineError
from predictd.engines.tensorrt import driver
from predictd.server.control.messages import GpuSample
from predictd.server.worker.gpus import Gpus


class NVMLError(Exception):
    """As the library's."""


class FakeNvml(types.ModuleType):
    NVML_TEMPERATURE_GPU = 0
    NVMLError = NVMLError

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.lost = False
        self.begun = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.begun += 1

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: bytes) -> bytes:  # noqa: N802
        return bus_id

    def nvmlDeviceGetMemoryInfo(self, handle: bytes) -> Any:  # noqa: N802
        if self.lost:
            raise NVMLError("GPU is lost")
        return types.SimpleNamespace(used=len(handle), total=1 << 30)

    def nvmlDeviceGetUtilizationRates(self, _handle: bytes) -> Any:  # noqa: N802
        return types.SimpleNamespace(gpu=40, memory=1)

    def nvmlDeviceGetTemperature(self, _handle: bytes, sensor: int) -> int:  # noqa: N802
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 61


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    library = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(driver, "pci_bus_id", lambda number: f"0000:0{number}:00.0")
    return library


def test_each_gpu_is_told_of_once(nvml: FakeNvml) -> None:
    gpus = Gpus()
    assert gpus.samples() == []
    for device in ("1", "cpu", "cuda:1", "0"):
        gpus.use(device)
    assert [sample.gpu for sample in gpus.samples()] == ["0000:01:00.0", "0000:00:00.0"]
    assert gpus.samples()[0] == GpuSample(
        gpu="0000:01:00.0", used_bytes=12, total_bytes=1 << 30, utilization_percent=40, temperature_celsius=61
    )
    assert nvml.begun == 1


def test_a_gpu_that_is_lost_is_told_of_no_more(nvml: FakeNvml, caplog: pytest.LogCaptureFixture) -> None:
    gpus = Gpus()
    gpus.use("0")
    nvml.lost = True
    with caplog.at_level(logging.INFO):
        assert gpus.samples() == gpus.samples() == []
    assert [record.message for record in caplog.records] == ["no metrics of GPUs: GPU is lost"]


def test_without_the_library_or_the_driver_there_is_nothing_to_tell(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_gpu(_number: int) -> str:
        raise EngineError("there is no NVIDIA driver here")

    with caplog.at_level(logging.INFO):
        monkeypatch.setattr(driver, "pci_bus_id", no_gpu)
        gpus = Gpus()
        gpus.use("0")
        assert gpus.samples() == []
        monkeypatch.setitem(sys.modules, "pynvml", None)
        Gpus().use("0")
    assert [record.message for record in caplog.records] == [
        "no metrics of GPUs: there is no NVIDIA driver here",
        "no metrics of GPUs: nvidia-ml-py is not installed",
    ]
    del nvml
