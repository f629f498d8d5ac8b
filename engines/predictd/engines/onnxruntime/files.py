"""Which files a model consists of: its own and those that its tensors lie in.

ModelProto.graph = 7, .functions = 25 · GraphProto.node = 1, .initializer = 5, .sparse_initializer = 15
FunctionProto.node = 7 · NodeProto.attribute = 5 · AttributeProto.t = 5, .g = 6, .tensors = 10, .graphs = 11,
.sparse_tensor = 22, .sparse_tensors = 23 · SparseTensorProto.values = 1, .indices = 2
TensorProto.external_data = 13 · StringStringEntryProto.key = 1, .value = 2
"""

from __future__ import annotations

import hashlib
import mmap
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.engines.onnxruntime.protobuf import Span, find, find_any, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# The fields of each kind of message that lead to tensors, and the kind that each holds.
_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model as they were at one moment.

    Attributes:
        paths: The model file first, then those of its tensors, by name.
        states: Of each, what differs when it was replaced or written to.
    """

    paths: tuple[Path, ...]
    states: tuple[tuple[int, ...], ...]

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(state[0] for state in self.states)

    def content(self) -> str:
        """A digest of names and bytes."""
        digest = hashlib.sha256()
        for path, state in zip(self.paths, self.states, strict=True):
            name = path.relative_to(self.paths[0].parent) if path != self.paths[0] else ""
            digest.update(f"{name}\0{state[0]}\0".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def unchanged(self) -> bool:
        """Whether the files are still what they were."""
        try:
            return tuple(map(_state, self.paths)) == self.states
        except OSError:
            return False


def model_files(path: Path) -> ModelFiles:
    """The files of a valid ONNX model.

    Raises:
        OSError: One of them is not there or not a regular file.
        ValueError, LookupError: It is no ONNX model.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        names = {
            text(data, entry, 2)
            for tensor in _tensors(data, Span(0, len(data)), "model")
            for entry in find(data, tensor, 13)
            if text(data, entry, 1) == "location"
        }
    paths = (path, *(path.parent / name for name in sorted(names)))
    return ModelFiles(paths, tuple(map(_state, paths)))


def _tensors(data: mmap.mmap, message: Span, kind: str) -> Iterator[Span]:
    children = _CHILDREN[kind]
    for number, span in find_any(data, message, children):
        if children[number] == "tensor":
            yield span
        else:
            yield from _tensors(data, span, children[number])


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        # A device would be read without end.
        raise OSError(f"{path} is not a regular file")
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
