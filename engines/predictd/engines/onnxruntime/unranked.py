"""Which inputs of a model file declare no shape at all.

ONNX Runtime reports an unknown rank and a scalar both as `[]`. The file tells them apart, and these few
fields of its protobuf encoding are all that is read, so that the daemon needs no `onnx` package.

    ModelProto.graph = 7 · GraphProto.input = 11 · ValueInfoProto.name = 1, .type = 2
    TypeProto.tensor_type = 1 · TypeProto.Tensor.shape = 2
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from predictd.engines.onnxruntime.protobuf import Span, find, text

if TYPE_CHECKING:
    from pathlib import Path


def unranked_inputs(path: Path) -> frozenset[str]:
    """Names of the tensor inputs without a shape. The file must be a valid ONNX model."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        whole = Span(0, len(data))
        values = [value for graph in find(data, whole, 7) for value in find(data, graph, 11)]
        return frozenset(text(data, value, 1) for value in values if not _has_shape(data, value))


def _has_shape(data: mmap.mmap, value: Span) -> bool:
    tensors = (tensor for kind in find(data, value, 2) for tensor in find(data, kind, 1))
    return any(True for tensor in tensors for _ in find(data, tensor, 2))
