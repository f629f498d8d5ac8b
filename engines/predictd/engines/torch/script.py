"""TorchScript archives: what `torch.jit.save` wrote.

Their loader is PyTorch's own, in C++, and builds tensors and declared classes only.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from predictd.engines.api import EngineError, EngineOptions, ModelLoadError, Signature, TensorSpec
from predictd.engines.torch import messages
from predictd.engines.torch.naming import indexed, places
from predictd.engines.torch.program import Program
from predictd.engines.torch.tensors import CPU, TORCH_DTYPES

if TYPE_CHECKING:
    from pathlib import Path

OPTIMIZATIONS = ("freeze", "inference", "none")


def open_script(path: Path, options: EngineOptions, optimization: str) -> Program:
    """Load a TorchScript archive. Raises ModelLoadError."""
    with warnings.catch_warnings():
        # TorchScript is deprecated as a whole, which the operator of a finished model can do nothing about.
        warnings.simplefilter("ignore")
        module = _load(path)
        signature, arguments = _signature(module, options)
        module = _optimized(module, optimization)
    return Program(signature, _Call(module, signature, arguments), _writes_inputs(module))


def _load(path: Path) -> Any:
    try:
        module = torch.jit.load(str(path), map_location=CPU)
    except (RuntimeError, ValueError) as error:
        raise ModelLoadError(messages.one_line(str(error))) from error
    if not hasattr(module, "forward"):
        raise ModelLoadError("the module has no method forward")
    return module.eval()


def _optimized(module: Any, optimization: str) -> Any:
    try:
        if optimization == "none":
            return module
        frozen = torch.jit.freeze(module)
        return torch.jit.optimize_for_inference(frozen) if optimization == "inference" else frozen
    except RuntimeError as error:
        reason = messages.one_line(str(error))
        raise ModelLoadError(f"optimization = {optimization!r} fails, 'none' may not: {reason}") from error


def _signature(module: Any, options: EngineOptions) -> tuple[Signature, list[str]]:
    """The signature, and which argument of forward each input is."""
    taken = module.forward.schema.arguments[1:]
    names = [argument.name for argument in taken]
    inputs, outputs = options.inputs, options.outputs
    arguments = [names[at] for at in places("input", [spec.name for spec in inputs], names)]
    absent = [a.name for a in taken if a.name not in arguments and not a.has_default_value()]
    if absent or not inputs:
        raise _undeclared("input", absent[0] if absent else "INPUT__0", f"forward takes {', '.join(names)}")
    if not outputs:
        raise _undeclared("output", "OUTPUT__0", "none is declared")
    types = {argument.name: argument.type.annotation_str for argument in taken}
    for spec, argument in zip(inputs, arguments, strict=True):
        _check_type(spec, types[argument])
    for kind, specs in (("input", inputs), ("output", outputs)):
        _check_dtypes(kind, specs)
    batches = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
    return Signature(inputs, outputs, batches), arguments


def _undeclared(kind: str, name: str, found: str) -> ModelLoadError:
    return ModelLoadError(
        f"TorchScript says neither dtypes nor shapes, and {found}: declare every {kind} in the model's "
        f'configuration, such as {kind}s.{name} = {{dtype = "FP32", shape = [-1, 4]}}'
    )


def _check_type(spec: TensorSpec, annotation: str) -> None:
    if annotation not in ("Tensor", "Optional[Tensor]"):
        raise ModelLoadError(f"input {spec.name!r} is of type {annotation}; only tensors are served")
    if spec.optional and annotation == "Tensor":
        raise ModelLoadError(f"input {spec.name!r} cannot be optional: forward demands a tensor")


def _check_dtypes(kind: str, specs: Sequence[TensorSpec]) -> None:
    for spec in specs:
        if spec.dtype not in TORCH_DTYPES:
            raise ModelLoadError(
                f"{kind} {spec.name!r} is {spec.dtype.name}, which engine torch does not serve"
            )


def _writes_inputs(module: Any) -> bool:
    graph = module.inlined_graph
    aliases = graph.alias_db()
    return any(aliases.has_writers(value) for value in list(graph.inputs())[1:])


class _Call:
    """Calls forward and brings what it gives into the order of the outputs."""

    def __init__(self, module: Any, signature: Signature, arguments: Sequence[str]) -> None:
        self._module = module
        self._arguments = arguments
        self._names = [spec.name for spec in signature.outputs]
        self._indices = indexed(self._names)

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        given = self._module(**dict(zip(self._arguments, tensors, strict=True)))
        if isinstance(given, dict):
            return self._by_key(given)
        results = list(given) if isinstance(given, (tuple, list)) else [given]
        if self._indices is None and len(results) != len(self._names):
            raise EngineError(f"forward gives {len(results)} outputs, {len(self._names)} are declared")
        if self._indices is not None and max(self._indices) >= len(results):
            raise EngineError(f"forward gives {len(results)} outputs, {self._names[-1]!r} is declared")
        return results if self._indices is None else [results[at] for at in self._indices]

    def _by_key(self, given: dict[str, Any]) -> list[Any]:
        for name in self._names:
            if name not in given:
                known = ", ".join(map(repr, given)) or "none"
                raise EngineError(f"forward gives no output {name!r}; it gives {known}")
        return [given[name] for name in self._names]
