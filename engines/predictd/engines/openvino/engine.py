"""The engine: lends the caller's memory to an infer request and runs it.

Theory of operation. A tensor over an array holds its address and nothing else: OpenVINO keeps no array alive and
writes wherever it was told to last. So every run sets all tensors anew, and sets them back before it returns. An
output without a buffer gets a tensor of OpenVINO's own, and what it gives is a view that keeps that tensor alive.
Inputs may be read-only: a model never writes into them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from predictd.engines.api import (
    Array,
    DType,
    EngineOptions,
    InvalidInputError,
    LayerTime,
    ModelLoadError,
    Signature,
    TensorSpec,
)
from predictd.engines.openvino import messages
from predictd.engines.openvino.model import OPENVINO_ERRORS, compile_model, read_model
from predictd.engines.openvino.runtime import openvino
from predictd.engines.openvino.signature import ELEMENT_TYPES, describe, echoes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_INT32 = np.iinfo(np.int32)
# Computed as int32; of these more than int32 holds may come.
_NARROWED = frozenset({DType.INT64, DType.UINT64, DType.UINT32})


def load(path: Path, options: EngineOptions) -> OpenVinoEngine:
    """Load an .xml or .onnx file. Raises ModelLoadError, one line that begins with the path."""
    try:
        core = openvino.Core()
        model = read_model(core, path)
        signature = describe(model)
        compiled = compile_model(core, model, options)
        kind = ProfiledOpenVinoEngine if options.profile else OpenVinoEngine
        return kind(compiled, signature, echoes(model))
    except ModelLoadError as error:
        raise ModelLoadError(f"{path}: {error}") from error


class _Port(NamedTuple):
    """An input or output with all that a run needs of it, looked up beforehand."""

    name: str
    dtype: DType
    array_dtype: np.dtype[Any]
    element_type: Any
    least_shape: tuple[int, ...]


class OpenVinoEngine:
    """A compiled model."""

    def __init__(self, compiled: Any, signature: Signature, echoes: Mapping[int, int]) -> None:
        self._request = compiled.create_infer_request()
        self._signature = signature
        self._inputs = [_port(spec) for spec in signature.inputs]
        self._outputs = [_port(spec) for spec in signature.outputs]
        self._echoes = echoes
        self._computed = [index for index in range(len(self._outputs)) if index not in echoes]
        # What stands in for the caller's memory between runs.
        self._idle_inputs = [_own_tensor(port) for port in self._inputs]
        self._no_out = [None] * len(self._outputs)
        # Outputs that once differed from the promised shape.
        self._unbindable: set[str] = set()

    @property
    def name(self) -> str:
        """`openvino`."""
        return "openvino"

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self._signature

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        """Compute one batch, as `Engine.run` says."""
        try:
            return self._run_into(inputs, self._no_out if out is None else out)
        except OPENVINO_ERRORS as error:
            raise messages.run_error(error) from error

    def close(self) -> None:
        """Release the model and its memory."""
        del self._request, self._idle_inputs

    def _run_into(self, inputs: Sequence[Array | None], out: Sequence[Array | None]) -> list[Array]:
        targets = [
            None if port.name in self._unbindable else target
            for port, target in zip(self._outputs, out, strict=True)
        ]
        try:
            return self._run_bound(inputs, targets)
        except OPENVINO_ERRORS as error:
            if not messages.refuses_output_shape(error):
                raise
        results = self._run_bound(inputs, self._no_out)
        for port, target, result in zip(self._outputs, targets, results, strict=True):
            if target is not None and target.shape != result.shape:
                self._unbindable.add(port.name)
        return results

    def _run_bound(self, inputs: Sequence[Array | None], targets: Sequence[Array | None]) -> list[Array]:
        request = self._request
        given = [_checked(port, array) for port, array in zip(self._inputs, inputs, strict=True)]
        try:
            for index, (port, array) in enumerate(zip(self._inputs, given, strict=True)):
                request.set_input_tensor(index, _share(port, array))
            for index in self._computed:
                port, target = self._outputs[index], targets[index]
                request.set_output_tensor(
                    index, _own_tensor(port) if target is None else _share(port, target)
                )
            # Not `infer`, which on a single thread keeps every error to itself and leaves old answers in place.
            request.start_async()
            request.wait()
            return [
                _echo(given[self._echoes[index]], target)
                if index in self._echoes
                else _result(port, target, request.get_output_tensor(index))
                for index, (port, target) in enumerate(zip(self._outputs, targets, strict=True))
            ]
        finally:
            for index, tensor in enumerate(self._idle_inputs):
                request.set_input_tensor(index, tensor)
            for index in self._computed:
                request.set_output_tensor(index, _own_tensor(self._outputs[index]))


class ProfiledOpenVinoEngine(OpenVinoEngine):
    """A model that was compiled to learn which of its layers take the time."""

    def __init__(self, compiled: Any, signature: Signature, echoes: Mapping[int, int]) -> None:
        super().__init__(compiled, signature, echoes)
        self._layers: dict[str, LayerTime] = {}

    # typing.override needs Python 3.12.
    def run(  # type: ignore[explicit-override]
        self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """Compute one batch, as `Engine.run` says."""
        results = super().run(inputs, out)
        for node in self._request.profiling_info:
            if node.status == node.Status.EXECUTED:
                before = self._layers.get(node.node_name) or LayerTime(node.node_name, node.exec_type, 0, 0.0)
                seconds = before.seconds + node.real_time.total_seconds()
                self._layers[node.node_name] = replace(before, runs=before.runs + 1, seconds=seconds)
        return results

    def start_profile(self) -> None:
        """Forget the runs until now."""
        self._layers.clear()

    def profile(self) -> list[LayerTime]:
        """Of each node that was executed, with its kernel."""
        return list(self._layers.values())


def _port(spec: TensorSpec) -> _Port:
    least = tuple(max(size, 0) for size in spec.shape)
    return _Port(spec.name, spec.dtype, spec.dtype.numpy, ELEMENT_TYPES[spec.dtype], least)


def _own_tensor(port: _Port) -> Any:
    """A tensor that OpenVINO allocates, as small as it may be; the run lets it grow."""
    return openvino.Tensor(port.element_type, port.least_shape)


def _share(port: _Port, array: Array) -> Any:
    """A tensor over the memory of an array, read-only ones included."""
    # The call below reads neither strides nor dtype: without this check it would corrupt memory.
    if array.dtype != port.array_dtype or not array.flags.c_contiguous:
        raise ValueError(f"{port.name!r} must be a C-contiguous array of {port.array_dtype}. This is a bug.")
    return openvino.Tensor(array, array.shape, port.element_type)


def _checked(port: _Port, array: Array | None) -> Array:
    if array is None:
        raise InvalidInputError(f"input {port.name!r} is missing")
    if port.dtype in _NARROWED and array.size and (array.max() > _INT32.max or array.min() < _INT32.min):
        raise InvalidInputError(
            f"input {port.name!r} has numbers that need more than 32 bits, in which OpenVINO computes"
        )
    return array


def _echo(given: Array, target: Array | None) -> Array:
    if target is None or target.shape != given.shape:
        return given.copy()
    np.copyto(target, given)
    return target


def _result(port: _Port, target: Array | None, tensor: Any) -> Array:
    if target is not None and target.shape == tuple(tensor.shape):
        return target
    view: Array = tensor.data.view(port.array_dtype)
    # Memory of the caller's that has another shape is not its answer.
    return view if target is None else view.copy()
