"""Whether the files that an ONNX model takes its weights from are there, and whether they change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from predictd.engines.onnx_external import external_files
from predictd.server.repository.file_error import ModelFileError


def external_status(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The external files in a model's folder, by location; of one that is not there, that it is not."""
    try:
        found = external_files(path)
    except OSError:
        return
    for external in found:
        if external.outside:
            continue
        try:
            yield external.location, (path.parent / external.location).stat()
        except OSError:
            yield f"no {external.location}", os.stat_result((0,) * 10)


def check_external_data(path: Path) -> None:
    """See whether a model's external files are there, and whole.

    Raises:
        ModelFileError: One is not.
        OSError: The model cannot be read.
    """
    for external in external_files(path):
        what = f"external data {external.location!r}"
        place = path.parent / external.location
        if external.outside or not _is_beside(place, path):
            raise ModelFileError(f"{what} is outside of the model's folder", "put it beside the model")
        try:
            size_bytes = place.stat().st_size
        except OSError as error:
            reason = str(error.strerror).lower()
            raise ModelFileError(f"{what} cannot be used: {reason}", "put it beside the model") from error
        if size_bytes < external.size_bytes:
            there = f"{size_bytes} of at least {external.size_bytes} bytes are there"
            raise ModelFileError(f"{what} is cut short: {there}", "copy it again")


def _is_beside(place: Path, model: Path) -> bool:
    """Whether a file is in the folder of a model, or in the one that the model is linked from, links followed."""
    real = Path(os.path.realpath(place))
    folders = (os.path.realpath(model.parent), os.path.dirname(os.path.realpath(model)))  # noqa: PTH120
    return any(real.is_relative_to(folder) for folder in folders)
