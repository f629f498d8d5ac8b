"""What an engine is: the small contract between the worker that batches and the runtime that computes.

A new engine is one file: a class that satisfies `Engine` and a `load(path, options)` function, named in
`engine = "package.module:load"` of a model.toml, or added to the table in `predictd.engines.traits`.

Arrays carry every dtype as NumPy has it, with two exceptions: BF16 travels as its bits in `uint16`, and BYTES
(strings) as an `object` array of `bytes`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from predictd.engines.cache import CacheFolder
from predictd.engines.cancellation import Cancellation

Array = npt.NDArray[Any]


class DType(enum.IntEnum):
    """Tensor element types, with the values of predictd.v1's DataType and of the shared-memory layout."""

    BOOL = 1
    UINT8 = 2
    UINT16 = 3
    UINT32 = 4
    UINT64 = 5
    INT8 = 6
    INT16 = 7
    INT32 = 8
    INT64 = 9
    FP16 = 10
    BF16 = 11
    FP32 = 12
    FP64 = 13
    BYTES = 14

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of arrays of this type: `uint16` bits for BF16, `object` for BYTES."""
        return _NUMPY[self]

    @property
    def itemsize(self) -> int:
        """Bytes of one element; 0 for BYTES, whose elements vary."""
        return _ITEMSIZE[self]


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.BOOL: np.dtype(np.bool_),
    DType.UINT8: np.dtype(np.uint8),
    DType.UINT16: np.dtype(np.uint16),
    DType.UINT32: np.dtype(np.uint32),
    DType.UINT64: np.dtype(np.uint64),
    DType.INT8: np.dtype(np.int8),
    DType.INT16: np.dtype(np.int16),
    DType.INT32: np.dtype(np.int32),
    DType.INT64: np.dtype(np.int64),
    DType.FP16: np.dtype(np.float16),
    DType.BF16: np.dtype(np.uint16),
    DType.FP32: np.dtype(np.float32),
    DType.FP64: np.dtype(np.float64),
    DType.BYTES: np.dtype(object),
}
_ITEMSIZE: dict[DType, int] = {d: 0 if d is DType.BYTES else dt.itemsize for d, dt in _NUMPY.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: As the model names it.
        dtype: Element type.
        shape: Dimensions, -1 where a dimension may vary. Includes the batch dimension of a model that
            batches.
        optional: An input that may be left out.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        inputs: In the order that `Engine.run` takes them.
        outputs: In the order that `Engine.run` returns them.
        batches: The first dimension of every input and output is the batch dimension, so rows of several
            requests may be concatenated along it and the answers cut apart again.
        max_rows: The most rows that one run may have; None when the engine sets no limit.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batches: bool
    max_rows: int | None = None


def _unheard(_line: str) -> None:
    """Nobody asks how far a load is."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the launcher decided for an engine.

    Attributes:
        threads: Threads that one run may use, the calling thread included; at least 1.
        spin: Threads that wait for each other within a run may spin: nobody else needs their CPUs.
        instances: Workers that load the same model, each in its own process.
        device: Where to run, such as "cpu". An engine refuses a device that it cannot use.
        files_by_capability: What to load instead of the file, from the folder that it lies in, on a GPU of a compute
            capability, such as "8.9". For engines whose files are for one kind of GPU.
        cache: For what can be made again; None to keep nothing.
        parameters: Engine-specific settings from the model's configuration.
        inputs: What the configuration says of inputs, as far as it says both dtype and shape, in its order: for
            files that do not say it themselves. Whether it agrees with a file that does is not the engine's concern.
        outputs: The same of outputs.
        batch_sizes: Ascending. Rows of runs that shall be fast; the last is the most that are merged into one.
        profile: The load is for `ProfiledEngine.profile`: runs may be slower. An engine without one ignores it.
        cancel: Tells that the load is given up. The engine then raises LoadCancelledError as soon as it can.
        report: Takes one line now and then about how far a load is that takes long. Each gives it `load_timeout` anew,
            so an engine reports only what shows that it goes on.
    """

    threads: int = 1
    spin: bool = False
    instances: int = 1
    device: str = "cpu"
    files_by_capability: Mapping[str, str] = field(default_factory=dict)
    cache: CacheFolder | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batch_sizes: tuple[int, ...] = (1,)
    profile: bool = False
    cancel: Cancellation = field(default_factory=Cancellation, compare=False)
    report: Callable[[str], None] = field(default=_unheard, compare=False)


class EngineError(Exception):
    """The engine cannot do what was asked. The message is one line and safe to show to an operator."""


class ModelLoadError(EngineError):
    """The model cannot be served: the file is broken or it needs what the engine does not support."""


class LoadCancelledError(ModelLoadError):
    """The load was given up before its end (`EngineOptions.cancel`)."""


class InvalidInputError(EngineError):
    """The run failed because of its inputs, such as contradicting dimensions. Shown to the client."""


class DeviceLostError(EngineError):
    """The device, or this process's hold on it, is gone: no engine of this process can use it again.

    A worker ends with it, so that its requests are run elsewhere and a new process looks for the device anew.
    """


class Engine(Protocol):
    """A loaded model. One thread calls it at a time; a run must release the GIL while it computes."""

    @property
    def name(self) -> str:
        """The runtime's name, such as `onnxruntime`."""

    @property
    def signature(self) -> Signature:
        """What the model takes and gives. Constant."""

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        """Compute one batch.

        Args:
            inputs: One C-contiguous array for each of `signature.inputs`, None for an optional one that is
                absent. They may be read-only views of shared memory and are valid only during the call.
            out: For each output a C-contiguous array to write into, or None where the engine shall allocate.
                The caller gives one only where it knows the exact shape. An engine may ignore it.

        Returns:
            One array for each of `signature.outputs`, in order: the array of `out` where it was used.

        Raises:
            InvalidInputError: The inputs make the computation impossible.
            EngineError: The run failed for another reason.
        """

    def close(self) -> None:
        """Release the model. Nothing is called afterwards."""


@runtime_checkable
class GivesBack(Protocol):
    """An engine that keeps memory of large runs for the next ones, and can give it back."""

    def give_back(self) -> None:
        """At the end of the next run, give back whatever memory that run does not need itself."""


@dataclass(frozen=True, slots=True)
class RunTimings:
    """Where the time of one run went, on a device that is told what to do and then waited for.

    Attributes:
        copy_in_seconds: Of the inputs to the device.
        enqueue_seconds: Of the call that hands the device its work.
        compute_seconds: Of the device's work itself.
        copy_out_seconds: Of the outputs from the device.
    """

    copy_in_seconds: float
    enqueue_seconds: float
    compute_seconds: float
    copy_out_seconds: float


@runtime_checkable
class TimedEngine(Protocol):
    """An engine that knows where the time of a run goes; the others just run."""

    def timings(self) -> RunTimings:
        """Of the last run."""


@dataclass(frozen=True, slots=True)
class LayerTime:
    """What one layer of a model took.

    Attributes:
        name: Of the layer, or of what the engine made of several.
        kind: Such as its operator or its kernel.
        runs: How often it ran.
        seconds: All these runs together.
    """

    name: str
    kind: str
    runs: int
    seconds: float


@runtime_checkable
class ProfiledEngine(Protocol):
    """An engine that can say which layers take the time, if it was loaded with `EngineOptions.profile`."""

    def start_profile(self) -> None:
        """Forget the runs until now."""

    def profile(self) -> Sequence[LayerTime]:
        """Of the runs since then, in the order of their first run. Nothing is run afterwards."""


class LoadEngine(Protocol):
    """Loads a model file. Raises ModelLoadError, with one clear line."""

    def __call__(self, path: Path, options: EngineOptions) -> Engine: ...


@runtime_checkable
class RegistersHost(Protocol):
    """What an engine has, besides `Engine`, whose device can copy from the caller's memory by itself.

    Both may be called by any thread, also during a run.
    """

    def register_host(self, memory: Array) -> bool:
        """Know memory that inputs will lie in, read-only and mapped until `unregister_host`.

        Returns:
            False where the device cannot use it; it is then copied once more, and nothing is to be undone.

        Raises:
            EngineError: It failed.
        """

    def unregister_host(self, memory: Array) -> None:
        """Forget memory before it is unmapped. None of it is in use by a run."""


@runtime_checkable
class RunsRows(Protocol):
    """What an engine has, besides `Engine`, that cuts a batch by itself."""

    def run_rows(
        self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """Compute rows that do not depend on each other, more than `Signature.max_rows` too. Else as `Engine.run`."""
