"""The engine: settles the number of threads, and runs a program on the caller's memory."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from predictd.engines.api import Array, EngineOptions, ModelLoadError, Signature
from predictd.engines.torch import messages
from predictd.engines.torch.archive import Archive, archive_of
from predictd.engines.torch.exported import open_exported
from predictd.engines.torch.script import OPTIMIZATIONS, open_script
from predictd.engines.torch.tensors import as_array, as_tensor, unaliased

if TYPE_CHECKING:
    from pathlib import Path

    from predictd.engines.torch.program import Program

# What a run raises; PyTorch has no exception of its own for what is wrong with an input.
_RUN_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, torch.jit.Error)


def load(path: Path, options: EngineOptions) -> TorchEngine:
    """Load a TorchScript archive or an exported program. Raises ModelLoadError, one line with the path first."""
    try:
        optimization = _checked(options)
        archive = archive_of(path)
        _use_threads(options.threads)
        if archive is Archive.TORCHSCRIPT:
            return TorchEngine(open_script(path, options, optimization or OPTIMIZATIONS[0]), options.threads)
        if optimization is not None:
            raise ModelLoadError("parameter 'optimization' is for TorchScript, not for an exported program")
        return TorchEngine(open_exported(path, options), options.threads)
    except ModelLoadError as error:
        raise ModelLoadError(f"{path}: {error}") from error


class TorchEngine:
    """A loaded PyTorch model."""

    def __init__(self, program: Program, threads: int) -> None:
        self._program = program
        self._threads = threads

    @property
    def name(self) -> str:
        """`torch`."""
        return "torch"

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self._program.signature

    def run(self, inputs: Sequence[Array | None], out: Sequence[Array | None] | None = None) -> list[Array]:
        """Compute one batch, as `Engine.run` says; `out` is left to the caller to fill."""
        del out
        _use_threads(self._threads)
        signature = self._program.signature
        with torch.inference_mode():
            tensors = [
                None if array is None else as_tensor(array, spec.dtype)
                for array, spec in zip(inputs, signature.inputs, strict=True)
            ]
            if self._program.writes_inputs:
                # They may lie in memory that only another process may write.
                tensors = [None if tensor is None else tensor.clone() for tensor in tensors]
            try:
                results = self._program.call(tensors)
            except _RUN_ERRORS as error:
                raise messages.run_error(error) from error
            kept = [unaliased(result, tensors) for result in results]
            return [as_array(result, spec) for result, spec in zip(kept, signature.outputs, strict=True)]

    def close(self) -> None:
        """Release the model and its memory."""
        del self._program


def _checked(options: EngineOptions) -> str | None:
    """The parameter `optimization`, None where it is not set."""
    if options.threads < 1:
        raise ModelLoadError(f"threads must be at least 1, not {options.threads}")
    if options.device != "cpu":
        raise ModelLoadError(f"engine torch runs on the device 'cpu', not on {options.device!r}")
    for name in options.parameters:
        if name != "optimization":
            raise ModelLoadError(f"unknown parameter {name!r} of engine torch; known: optimization")
    value = options.parameters.get("optimization")
    if value is not None and value not in OPTIMIZATIONS:
        raise ModelLoadError(
            f"parameter 'optimization' must be one of {', '.join(OPTIMIZATIONS)}, not {value!r}"
        )
    return value


def _use_threads(count: int) -> None:
    """The number is the process's, and the models of a pool need not agree on it."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
    if torch.get_num_interop_threads() != 1:
        # Of a model's own forks. It is too late where an engine of the user's own ran some before.
        with contextlib.suppress(RuntimeError):
            torch.set_num_interop_threads(1)
