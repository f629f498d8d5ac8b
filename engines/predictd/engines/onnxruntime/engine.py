"""The engine: binds the caller's memory to a session and runs it.

Theory of operation. Every run binds its inputs and outputs anew to one IOBinding and unbinds them before
it returns: a binding that lived longer would keep shared memory, or an answer, alive. Arrays are wrapped
without a copy, inputs and the buffers of `out` alike. Outputs without a buffer are allocated by ONNX
Runtime and returned as views of its memory. Text has no binding in Python: a model with STRING inputs
takes the slower `run`, which copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from predictd.engines.api import (
    Array,
    DType,
    EngineOptions,
    InvalidInputError,
    LayerTime,
    LoadCancelledError,
    ModelLoadError,
    Signature,
    TensorSpec,
)
from predictd.engines.heap import trim_heap
from predictd.engines.onnxruntime import messages
from predictd.engines.onnxruntime.prepacked import open_shared
from predictd.engines.onnxruntime.session import ORT_ERRORS, SILENT, open_session
from predictd.engines.onnxruntime.signature import ELEMENT_TYPES, describe
from predictd.engines.onnxruntime.trace import Trace
from predictd.engines.onnxruntime.unranked import unranked_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CPU = binding.OrtDevice(binding.OrtDevice.cpu(), binding.OrtDevice.default_memory(), 0)
_wrap = binding.OrtValue.ortvalue_from_numpy_with_onnx_type


def load(path: Path, options: EngineOptions) -> OnnxRuntimeEngine:
    """Load an ONNX file. Raises ModelLoadError, one line that begins with the path."""
    try:
        trace = Trace() if options.profile else None
        shared = None if trace else open_shared(path, options)
        session = shared or open_session(path, options, trace.prefix if trace else "")
        signature = describe(
            session.get_inputs(), session.get_overridable_initializers(), session.get_outputs()
        )
        _refuse_unranked_inputs(path, signature)
    except LoadCancelledError:
        raise
    except ModelLoadError as error:
        raise ModelLoadError(f"{path}: {error}") from error
    return (
        ProfiledOnnxRuntimeEngine(session, signature, trace)
        if trace
        else OnnxRuntimeEngine(session, signature)
    )


class _Port(NamedTuple):
    """An input or output with all that a run needs of it, looked up beforehand."""

    name: str
    dtype: DType
    array_dtype: np.dtype[Any]
    element_type: int
    optional: bool


class OnnxRuntimeEngine:
    """A loaded ONNX model."""

    def __init__(self, session: Any, signature: Signature) -> None:
        # The public wrappers add checks, all about other providers, to every run.
        self._session = session._sess  # noqa: SLF001
        self._binding = binding.SessionIOBinding(self._session)
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = SILENT
        # The key is an error without an arena. The public session knows what it was made with.
        self._giving_back = onnxruntime.RunOptions()
        self._giving_back.log_severity_level = SILENT
        if session.get_session_options().enable_cpu_mem_arena:
            self._giving_back.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._gives_back = False
        self._signature = signature
        self._inputs = [_port(spec) for spec in signature.inputs]
        self._outputs = [_port(spec) for spec in signature.outputs]
        self._no_out = [None] * len(self._outputs)
        self._takes_text = any(port.dtype is DType.BYTES for port in self._inputs)
        # Outputs that are inputs: answered with the caller's memory, while a bound buffer stays empty.
        self._echoes = {port.name for port in self._inputs} & {port.name for port in self._outputs}
        text = {port.name for port in self._outputs if port.dtype is DType.BYTES}
        # Grows by outputs that once differed from the promised shape: binding them again would run twice.
        self._unbindable = self._echoes | text

    @property
    def name(self) -> str:
        """`onnxruntime`."""
        return "onnxruntime"

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self._signature

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        """Compute one batch, as `Engine.run` says."""
        if not self._gives_back:
            return self._run(inputs, out)
        self._gives_back = False
        usual, self._run_options = self._run_options, self._giving_back
        try:
            return self._run(inputs, out)
        finally:
            self._run_options = usual
            # What the arena frees goes back to the C library, which keeps it.
            trim_heap()

    def give_back(self) -> None:
        """At the end of the next run, give back what the memory arena holds and that run does not need."""
        self._gives_back = True

    def _run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None) -> list[Array]:
        try:
            if self._takes_text:
                return self._run_copying(inputs)
            return self._run_into(inputs, self._no_out if out is None else out)
        except ORT_ERRORS as error:
            raise messages.run_error(error) from error

    def close(self) -> None:
        """Release the session and its memory."""
        del self._binding, self._session

    def _run_into(self, inputs: Sequence[Array | None], out: Sequence[Array | None]) -> list[Array]:
        try:
            return self._run_bound(inputs, out)
        except ORT_ERRORS as error:
            if not messages.refuses_output_shape(error):
                raise
        results = self._run_bound(inputs, self._no_out)
        for port, target, result in zip(self._outputs, out, results, strict=True):
            if target is not None and target.shape != result.shape:
                self._unbindable.add(port.name)
        return results

    def _run_bound(self, inputs: Sequence[Array | None], out: Sequence[Array | None]) -> list[Array]:
        bound = self._binding
        targets = self._bindable(out) if self._unbindable else out
        try:
            for port, array in self._given(inputs):
                bound.bind_ortvalue_input(port.name, _share(port, array))
            for port, target in zip(self._outputs, targets, strict=True):
                if target is None:
                    bound.bind_output(port.name, _CPU)
                else:
                    bound.bind_ortvalue_output(port.name, _share(port, target))
            self._session.run_with_iobinding(bound, self._run_options)
            return self._results(bound, targets)
        finally:
            bound.clear_binding_inputs()
            bound.clear_binding_outputs()

    def _bindable(self, out: Sequence[Array | None]) -> list[Array | None]:
        return [
            None if port.name in self._unbindable else target
            for port, target in zip(self._outputs, out, strict=True)
        ]

    def _results(self, bound: Any, targets: Sequence[Array | None]) -> list[Array]:
        filled = [target for target in targets if target is not None]
        if len(filled) == len(targets):
            return filled
        # In the order of binding.
        values = bound.get_outputs()
        return [
            self._fetch(port, values[index]) if target is None else target
            for index, (port, target) in enumerate(zip(self._outputs, targets, strict=True))
        ]

    def _run_copying(self, inputs: Sequence[Array | None]) -> list[Array]:
        feeds = {port.name: _feed(port, array) for port, array in self._given(inputs)}
        results = self._session.run([port.name for port in self._outputs], feeds, self._run_options)
        return [self._own(port, result) for port, result in zip(self._outputs, results, strict=True)]

    def _given(self, inputs: Sequence[Array | None]) -> list[tuple[_Port, Array]]:
        given = []
        for port, array in zip(self._inputs, inputs, strict=True):
            if array is not None:
                given.append((port, array))
            elif not port.optional:
                # ONNX Runtime does not always notice.
                raise InvalidInputError(f"input {port.name!r} is missing")
        return given

    def _fetch(self, port: _Port, value: Any) -> Array:
        """An output's OrtValue as an array, without a copy where the memory is its own."""
        bits = port.dtype is DType.BF16
        return self._own(port, np.asarray(_Bits(value)) if bits else value.numpy())

    def _own(self, port: _Port, array: Array) -> Array:
        if port.dtype is DType.BYTES:
            return _encode(array)
        return array.copy() if port.name in self._echoes else array


class ProfiledOnnxRuntimeEngine(OnnxRuntimeEngine):
    """A model that was loaded to learn which of its layers take the time."""

    def __init__(self, session: Any, signature: Signature, trace: Trace) -> None:
        super().__init__(session, signature)
        self._trace = trace
        self._before = 0
        self._runs = 0

    # typing.override needs Python 3.12.
    def run(  # type: ignore[explicit-override]
        self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """Compute one batch, as `Engine.run` says."""
        self._runs += 1
        return super().run(inputs, out)

    def start_profile(self) -> None:
        """Forget the runs until now."""
        self._before = self._runs

    def profile(self) -> list[LayerTime]:
        """Of each node of the optimised graph."""
        self._session.end_profiling()
        return self._trace.layers(skipped_runs=self._before)

    def close(self) -> None:  # type: ignore[explicit-override]
        """Release the session, and what it wrote."""
        super().close()
        self._trace.close()


class _Bits:
    """The memory of a BF16 OrtValue as `uint16`, for NumPy: an array of it keeps the value alive."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self.__array_interface__ = {
            "version": 3,
            "typestr": "<u2",
            "shape": tuple(value.shape()),
            "data": (value.data_ptr(), False),
        }


def _port(spec: TensorSpec) -> _Port:
    return _Port(spec.name, spec.dtype, spec.dtype.numpy, ELEMENT_TYPES[spec.dtype], spec.optional)


def _share(port: _Port, array: Array) -> Any:
    """An OrtValue over the memory of an array, read-only ones included."""
    # The call below reads neither strides nor dtype: without this check it would corrupt memory.
    if array.dtype != port.array_dtype or not array.flags.c_contiguous:
        raise ValueError(f"{port.name!r} must be a C-contiguous array of {port.array_dtype}. This is a bug.")
    return _wrap(array, port.element_type)


def _feed(port: _Port, array: Array) -> Any:
    if port.dtype is DType.BYTES:
        return _decode(port, array)
    if port.dtype is DType.BF16:
        return onnxruntime.OrtValue(_share(port, array))
    return array


def _decode(port: _Port, array: Array) -> Array:
    texts = []
    for index, item in enumerate(array.flat):
        try:
            texts.append(item.decode())
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"input {port.name!r}: element {index} is not UTF-8") from error
    return np.array(texts, object).reshape(array.shape)


def _encode(array: Array) -> Array:
    return np.array([text.encode() for text in array.flat], object).reshape(array.shape)


def _refuse_unranked_inputs(path: Path, signature: Signature) -> None:
    scalars = [spec.name for spec in signature.inputs if spec.shape == ()]
    unranked = unranked_inputs(path).intersection(scalars) if scalars else frozenset()
    if unranked:
        names = ", ".join(map(repr, sorted(unranked)))
        raise ModelLoadError(f"input {names} declares no shape, so its dimensions are unknown")
