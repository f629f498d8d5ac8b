"""Exported programs: what `torch.export.save` wrote.

The loader of PyTorch falls back to unpickling anything where unpickling tensors fails. The variable that forbids it
to is set for good: nothing else in this process has a reason to unpickle.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from predictd.engines.api import EngineOptions, ModelLoadError, Signature, TensorSpec
from predictd.engines.torch import messages
from predictd.engines.torch.naming import numbered, places
from predictd.engines.torch.program import Program, Shape, batch_symbol
from predictd.engines.torch.tensors import DTYPES

if TYPE_CHECKING:
    from pathlib import Path


def open_exported(path: Path, options: EngineOptions) -> Program:
    """Load an exported program. Raises ModelLoadError."""
    if not hasattr(torch, "export"):
        raise ModelLoadError(f"an exported program needs torch 2.1 or newer, not {torch.__version__}")
    program = _load(path)
    signature = _signature(program, options)
    return Program(signature, _Call(program), _writes(program))


def _load(path: Path) -> Any:
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    with _logged_errors() as logged, path.open("rb") as file:
        try:
            return torch.export.load(file)
        # Whatever is wrong with the file comes up as whatever exception its reader met.
        except Exception as error:
            reason = logged[0] if logged else error
            raise ModelLoadError(messages.one_line(str(reason)) or type(reason).__name__) from error


@contextmanager
def _logged_errors() -> Iterator[list[BaseException]]:
    """What PyTorch logs in pages instead of raising it."""
    errors: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            errors.append(record.exc_info[1])
        return not record.exc_info

    logger = logging.getLogger("torch.export")
    logger.addFilter(keep)
    try:
        yield errors
    finally:
        logger.removeFilter(keep)


def _signature(program: Any, options: EngineOptions) -> Signature:
    described = program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}
    taken = [_argument("input", at, name, nodes) for at, name in enumerate(described.user_inputs)]
    given = [_argument("output", at, name, nodes) for at, name in enumerate(described.user_outputs)]
    inputs = _named("input", described.user_inputs, options.inputs)
    outputs = _named("output", _output_names(program), options.outputs)
    rows = batch_symbol([shape for _, shape in taken], [shape for _, shape in given])
    return Signature(
        tuple(_spec("input", name, *found) for name, found in zip(inputs, taken, strict=True)),
        tuple(_spec("output", name, *found) for name, found in zip(outputs, given, strict=True)),
        batches=rows is not None,
        max_rows=None if rows is None else _upper_bound(program, rows),
    )


def _argument(kind: str, at: int, name: object, nodes: dict[str, Any]) -> tuple[Any, Shape]:
    value = nodes[name].meta.get("val") if isinstance(name, str) and name in nodes else None
    if not isinstance(value, torch.Tensor):
        raise ModelLoadError(f"{kind} {at} is no tensor but {name!r}: export the model without it")
    return value.dtype, tuple(size if isinstance(size, int) else str(size) for size in value.shape)


def _spec(kind: str, name: str, dtype: Any, shape: Shape) -> TensorSpec:
    if dtype not in DTYPES:
        raise ModelLoadError(
            f"{kind} {name!r} is {str(dtype).removeprefix('torch.')}, which engine torch does not serve"
        )
    return TensorSpec(name, DTYPES[dtype], tuple(size if isinstance(size, int) else -1 for size in shape))


def _output_names(program: Any) -> tuple[str, ...]:
    """The keys of a dictionary; nothing else has names that mean something to its author."""
    spec = program.call_spec.out_spec
    count = len(program.graph_signature.user_outputs)
    if spec.type is dict and len(spec.context) == count and all(isinstance(key, str) for key in spec.context):
        return tuple(spec.context)
    return numbered("OUTPUT", count)


def _named(kind: str, known: Sequence[str], declared: Sequence[TensorSpec]) -> list[str]:
    names = list(known)
    for spec, at in zip(declared, places(kind, [spec.name for spec in declared], known), strict=True):
        names[at] = spec.name
    if len(set(names)) < len(names):
        raise ModelLoadError(f"two {kind}s are called the same in {', '.join(map(repr, names))}")
    return names


def _upper_bound(program: Any, symbol: str) -> int | None:
    bounds = {str(name): limits.upper for name, limits in program.range_constraints.items()}
    upper: Any = bounds.get(symbol)
    return int(upper) if getattr(upper, "is_Integer", False) else None


def _writes(program: Any) -> bool:
    operators = (node.target for node in program.graph.nodes if node.op == "call_function")
    return any(getattr(getattr(target, "_schema", None), "is_mutable", False) for target in operators)


class _Call:
    """Calls the program with its nested arguments and flattens what it gives."""

    def __init__(self, program: Any) -> None:
        # The flattening that torch.export itself describes its arguments with.
        from torch.utils import _pytree

        self._tree = _pytree
        self._module = program.module()
        self._arguments = program.call_spec.in_spec

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        arguments, keywords = self._tree.tree_unflatten(list(tensors), self._arguments)
        leaves: list[Any] = self._tree.tree_flatten(self._module(*arguments, **keywords))[0]
        return leaves
