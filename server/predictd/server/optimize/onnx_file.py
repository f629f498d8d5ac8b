"""ONNX files: read whole, written beside the place where they shall be, and never over anything."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto

from predictd.engines.onnx_external import external_files
from predictd.server.optimize.errors import OptimizeError

# A protobuf message has at most 2 GiB; what is not weights needs room, too.
INSIDE_BYTES_MAX = 2**31 - 2**28
# Of one tensor: ONNX Runtime maps a larger one, and looks for small ones, such as shapes, in the file itself.
_EXTERNAL_BYTES_MIN = 1024
DATA_SUFFIX = ".data"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def read_model(path: Path) -> ModelProto:
    """A model with all its weights.

    Raises:
        OptimizeError: It is none, or a file of its weights is not there.
    """
    try:
        return onnx.load(path)
    except OSError as error:
        raise OptimizeError(f"{error.filename or path}: {str(error.strerror or error).lower()}") from error
    except (DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise OptimizeError(f"{path}: not an ONNX model: {_one_line(error)}") from error


def write_model(model: ModelProto, path: Path, *, external: bool) -> None:
    """Write a model, its weights into a file of its own if asked for or if they are too large for one file."""
    onnx.save_model(
        model,
        path,
        save_as_external_data=external or weights_bytes(model) > INSIDE_BYTES_MAX,
        all_tensors_to_one_file=True,
        location=data_file(path).name,
        size_threshold=_EXTERNAL_BYTES_MIN,
        convert_attribute=False,
    )


def data_file(path: Path) -> Path:
    """The file of a model's weights, where it has one."""
    return path.with_name(path.name + DATA_SUFFIX)


def has_external_data(path: Path) -> bool:
    """Whether a model's weights lie in files of their own."""
    return bool(external_files(path))


def needs_external_data(path: Path) -> bool:
    """Whether copies of a model must have their weights in a file of their own."""
    size_bytes = path.stat().st_size + sum(file.size_bytes for file in external_files(path))
    return size_bytes > INSIDE_BYTES_MAX


def weights_bytes(model: ModelProto) -> int:
    """Of all weights, also of such that do not fit into one message."""
    return sum(len(tensor.raw_data) for graph in _graphs(model.graph) for tensor in graph.initializer)


def _graphs(graph: GraphProto) -> Iterable[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for each in (*inner, *attribute.graphs):
                yield from _graphs(each)


def refuse_existing(path: Path) -> None:
    """Raise OptimizeError where a model or its weights would replace something, be it a link to nowhere."""
    if not path.parent.is_dir():
        raise OptimizeError(f"{path.parent}: no such folder")
    for place in (path, data_file(path)):
        if os.path.lexists(place):
            raise OptimizeError(
                f"{place}: is there already, and nothing is ever overwritten: name another file"
            )


def place(made: Path, path: Path) -> None:
    """Give a model, made under the same name in another folder of the same file system, its place.

    Its weights go first: whoever finds the model finds it whole. A link, unlike a rename, replaces nothing.
    """
    refuse_existing(path)
    for source, target in ((data_file(made), data_file(path)), (made, path)):
        if not source.exists():
            continue
        if source != made:
            # The onnx package lets only its owner read what it writes there; a daemon may be somebody else.
            source.chmod(made.stat().st_mode)
        _sync(source)
        try:
            os.link(source, target)
        except FileExistsError as error:
            raise OptimizeError(f"{target}: is there already, and nothing is ever overwritten") from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without links: nobody was there a moment ago.
            source.rename(target)
    _sync(path.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
