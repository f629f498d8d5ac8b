"""CUDA's driver from Python: whether it is there, pycuda for memory and streams, cuda-bindings for the rest.

TensorRT's runtime without a driver returns an object whose next call ends the process, so nobody gets a `Driver`
before the probe has passed.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from typing import Any

from predictd.engines.api import DeviceLostError, EngineError

_LIBRARY = "libcuda.so.1"
# Of which a process does not recover: its context answers every later call with the same.
_LOST = (
    "ILLEGAL_ADDRESS",
    "LAUNCH_FAILED",
    "LAUNCH_TIMEOUT",
    "MISALIGNED_ADDRESS",
    "ILLEGAL_INSTRUCTION",
    "INVALID_PC",
    "HARDWARE_STACK_ERROR",
    "ECC_UNCORRECTABLE",
    "ASSERT",
    "DEVICE_UNAVAILABLE",
    "DEINITIALIZED",
    "CONTEXT_IS_DESTROYED",
    "EXTERNAL_DEVICE",
    "TIMEOUT",
)
_LOST_WORDS = tuple(f"CUDA_ERROR_{name}" for name in _LOST)
# pycuda names the call and quotes the driver: "cuStreamSynchronize failed: an illegal memory access was encountered".
_LOST_TEXTS = (
    "illegal memory access",
    "unspecified launch failure",
    "launch timed out",
    "misaligned address",
    "illegal instruction",
    "invalid program counter",
    "hardware stack error",
    "uncorrectable ECC error",
    "device-side assert",
    "device is busy or unavailable",
    "device(s) is/are busy or unavailable",
    "driver shutting down",
    "context is destroyed",
)


def probe() -> int:
    """How many GPUs there are, asked of the driver itself.

    Raises:
        EngineError: No driver, or no GPU that it can use; one line.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise EngineError(f"there is no NVIDIA driver here: {error}") from error
    count = ctypes.c_int()
    for name, arguments in (("cuInit", (0,)), ("cuDeviceGetCount", (ctypes.byref(count),))):
        code = getattr(library, name)(*arguments)
        if code:
            raise EngineError(f"the NVIDIA driver gives no GPU: {name} says {_explained(library, code)}")
    if not count.value:
        raise EngineError("the NVIDIA driver gives no GPU: it counts 0")
    return count.value


def pci_bus_id(number: int) -> str:
    """Where a GPU is plugged in, such as "0000:65:00.0": its one name for all of NVIDIA's libraries.

    Raises:
        EngineError: There is no driver, or no such GPU.
    """
    probe()
    text = ctypes.create_string_buffer(32)
    library = ctypes.CDLL(_LIBRARY)
    code = library.cuDeviceGetPCIBusId(text, len(text), number)
    if code:
        raise EngineError(f"the NVIDIA driver has no GPU {number}: {_explained(library, code)}")
    return text.value.decode()


def _explained(library: Any, code: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    return f"{text.value.decode()} ({code})" if text.value else f"error {code}"


@dataclass(frozen=True, slots=True)
class Driver:
    """The two packages.

    Attributes:
        cuda: The module `pycuda.driver`.
        calls: The module `cuda.bindings.driver`.
    """

    cuda: Any
    calls: Any

    def call(self, name: str, *arguments: Any) -> Any:
        """Call the driver by name; the value that it gives.

        Raises:
            EngineError: It failed; names the call and CUDA's error.
        """
        error, *values = getattr(self.calls, name)(*arguments)
        if int(error):
            raise failure(f"{name} failed", str(getattr(error, "name", error)))
        return values[0] if values else None

    def explained(self, error: Exception) -> EngineError:
        """An error of pycuda as one of ours."""
        return failure("CUDA failed", " ".join(str(error).split()))


def failure(what: str, reason: str) -> EngineError:
    """An error with its reason: DeviceLostError if the reason says that the GPU is lost to this process."""
    text = f"{what}: {reason}"
    lost = any(word in reason for word in _LOST_WORDS) or any(words in reason for words in _LOST_TEXTS)
    return DeviceLostError(text) if lost else EngineError(text)


def load_driver() -> Driver:
    """Import both packages and initialise CUDA.

    Raises:
        EngineError: The probe fails, or a package is missing; one line.
    """
    probe()
    try:
        cuda = importlib.import_module("pycuda.driver")
        calls = importlib.import_module("cuda.bindings.driver")
    except (ImportError, OSError) as error:
        raise EngineError(f"{' '.join(str(error).split())}: pip install 'predictd[tensorrt]'") from error
    cuda.init()
    return Driver(cuda, calls)
