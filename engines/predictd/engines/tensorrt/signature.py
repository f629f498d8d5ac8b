"""What a plan takes and gives, from TensorRT's description of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from predictd.engines.api import DType, ModelLoadError, Signature, TensorSpec
from predictd.engines.tensorrt.shapes import Profile, ShapeRange

# By the names of TensorRT's DataType: which of them there are depends on its version.
_DTYPES = {
    "FLOAT": DType.FP32,
    "HALF": DType.FP16,
    "BF16": DType.BF16,
    "INT8": DType.INT8,
    "INT32": DType.INT32,
    "INT64": DType.INT64,
    "BOOL": DType.BOOL,
    "UINT8": DType.UINT8,
}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output with all that a run needs of it.

    Attributes:
        on_host: TensorRT reads or writes it in host memory: it is a shape.
    """

    spec: TensorSpec
    on_host: bool

    @property
    def name(self) -> str:
        """As the plan names it."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Description:
    """A plan."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    profiles: tuple[Profile, ...]

    @property
    def signature(self) -> Signature:
        """As the server sees it. It batches where the first dimension of everything varies."""
        ports = (*self.inputs, *self.outputs)
        batches = bool(self.inputs) and all(
            port.spec.shape[:1] == (-1,) and not port.on_host for port in ports
        )
        return Signature(
            tuple(port.spec for port in self.inputs), tuple(port.spec for port in self.outputs), batches
        )


def describe(trt: Any, engine: Any) -> Description:
    """Read a deserialized plan.

    Raises:
        ModelLoadError: It has a tensor that cannot be served.
    """
    inputs: list[Port] = []
    outputs: list[Port] = []
    for at in range(engine.num_io_tensors):
        name = engine.get_tensor_name(at)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(_port(trt, engine, name))
    profiles = tuple(
        Profile(index, tuple(_range(engine, port, index) for port in inputs))
        for index in range(engine.num_optimization_profiles)
    )
    return Description(tuple(inputs), tuple(outputs), profiles)


def _port(trt: Any, engine: Any, name: str) -> Port:
    found = engine.get_tensor_dtype(name)
    dtype = _DTYPES.get(found.name)
    if dtype is None:
        raise ModelLoadError(f"tensor {name!r} has type {found.name}; served are {', '.join(_DTYPES)}")
    if engine.get_tensor_vectorized_dim(name) >= 0:
        form = engine.get_tensor_format_desc(name)
        raise ModelLoadError(f"tensor {name!r} has the format {form}; build the plan with linear tensors")
    on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
    return Port(TensorSpec(name, dtype, tuple(engine.get_tensor_shape(name))), on_host)


def _range(engine: Any, port: Port, profile: int) -> ShapeRange:
    if -1 not in port.spec.shape:
        # Not asked for: of a fixed shape some versions know no range.
        return ShapeRange(port.spec.shape, port.spec.shape, port.spec.shape)
    least, best, most = (tuple(dims) for dims in engine.get_tensor_profile_shape(port.name, profile))
    return ShapeRange(least, best, most)
