"""Which GPU a plan is built on, asked of the driver alone: no context is made, and nothing else is imported."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from predictd.engines.api import EngineError
from predictd.engines.tensorrt.driver import probe

_NAME_BYTES = 256
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """What a plan for one GPU depends on.

    Attributes:
        name: Such as "NVIDIA L4".
        compute_capability: Such as "8.9".
        driver: The version of CUDA that the driver speaks, such as "13.0".
    """

    name: str
    compute_capability: str
    driver: str


def identify(index: int) -> GpuIdentity:
    """The GPU of a number, as CUDA counts.

    Raises:
        EngineError: There is no driver, or no such GPU; one line.
    """
    count = probe()
    if index >= count:
        raise EngineError(f"there is no GPU {index}: CUDA counts {count}, from 0")
    cuda: Any = ctypes.CDLL("libcuda.so.1")
    device, version = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    capability = [ctypes.c_int(), ctypes.c_int()]
    codes = [
        cuda.cuDeviceGet(ctypes.byref(device), index),
        cuda.cuDeviceGetName(name, _NAME_BYTES, device),
        *(
            cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
            for number, attribute in zip(capability, (_MAJOR, _MINOR), strict=True)
        ),
        cuda.cuDriverGetVersion(ctypes.byref(version)),
    ]
    if any(codes):
        raise EngineError(f"GPU {index} does not say what it is: CUDA error {next(filter(None, codes))}")
    return GpuIdentity(
        name.value.decode(errors="replace"),
        f"{capability[0].value}.{capability[1].value}",
        f"{version.value // 1000}.{version.value % 1000 // 10}",
    )
