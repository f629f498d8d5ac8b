"""Whether a model file can be what its name says, told without loading it or importing a runtime."""

from __future__ import annotations

from pathlib import Path

from predictd.server.repository.external_data import check_external_data
from predictd.server.repository.onnx_file import check_onnx_file
from predictd.server.repository.openvino_file import check_openvino_file


def check_file(path: Path) -> None:
    """Raise ModelFileError unless the file can be a model of its kind, and OSError if it cannot be read.

    A kind that is not known here is left to its engine.
    """
    if path.suffix == ".onnx":
        with path.open("rb") as file:
            check_onnx_file(file)
        check_external_data(path)
    elif path.suffix == ".xml":
        check_openvino_file(path)
