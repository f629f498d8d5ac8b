"""How the GPUs of this worker's lanes do, as NVIDIA's management library tells (nvidia-ml-py, where it is installed).

The workers read it, and not the supervisor, who would wait for a driver that hangs: it costs the worker, which cannot
do without that driver anyway.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from predictd.engines.api import EngineError
from predictd.server.control.messages import GpuSample

_log = logging.getLogger(__name__)


class Gpus:
    """The GPUs that lanes of this process were loaded on. One thread adds, another reads."""

    def __init__(self) -> None:
        self._handles: dict[int, tuple[str, Any]] = {}
        self._library: Any = None
        self._failed = False

    def use(self, device: str) -> None:
        """A lane was loaded on a device; nothing for one that is no GPU."""
        if device == "cpu":
            return
        # Not for workers that have no GPU.
        from predictd.engines.tensorrt.device import gpu_number
        from predictd.engines.tensorrt.driver import pci_bus_id

        number = gpu_number(device)
        if number is None or number in self._handles or self._failed:
            return
        try:
            if self._library is None:
                self._library = importlib.import_module("pynvml")
                self._library.nvmlInit()
            bus_id = pci_bus_id(number)
            handle = self._library.nvmlDeviceGetHandleByPciBusId(bus_id.encode())
        except ImportError:
            self._give_up("nvidia-ml-py is not installed")
        except (EngineError, self._error) as error:
            self._give_up(str(error))
        else:
            self._handles[number] = (bus_id, handle)

    def samples(self) -> list[GpuSample]:
        """One for each GPU."""
        try:
            return [self._sample(bus_id, handle) for bus_id, handle in list(self._handles.values())]
        except self._error as error:
            self._give_up(str(error))
            return []

    def _sample(self, bus_id: str, handle: Any) -> GpuSample:
        nvml = self._library
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return GpuSample(
            gpu=bus_id,
            used_bytes=memory.used,
            total_bytes=memory.total,
            utilization_percent=nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
            temperature_celsius=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        )

    @property
    def _error(self) -> type[Exception]:
        """What the library raises; before it is there, what is never raised."""
        error: type[Exception] = EngineError if self._library is None else self._library.NVMLError
        return error

    def _give_up(self, reason: str) -> None:
        self._failed = True
        self._handles.clear()
        _log.info("no metrics of GPUs: %s", reason)
