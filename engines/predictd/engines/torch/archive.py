"""Which kind of model a file holds, found out without PyTorch and without running anything in it."""

from __future__ import annotations

import enum
import zipfile
from typing import TYPE_CHECKING

from predictd.engines.api import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PICKLE_START = b"\x80"
_WANTED = "save the model with torch.jit.save or torch.export.save"


class Archive(enum.Enum):
    """What PyTorch can load without running code of the file's author."""

    TORCHSCRIPT = enum.auto()
    EXPORTED = enum.auto()


def archive_of(path: Path) -> Archive:
    """Look into a file. Raises ModelLoadError where it holds no model that is served."""
    pickled = False
    try:
        with path.open("rb") as file:
            pickled = file.read(1) == _PICKLE_START
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                return _kind(archive.namelist())
    except OSError as error:
        raise ModelLoadError(error.strerror or str(error)) from error
    except (zipfile.BadZipFile, ValueError) as error:
        if pickled:
            raise _pickled() from error
        raise ModelLoadError(f"neither a TorchScript nor an exported program: {_WANTED}") from error


def _kind(names: Iterable[str]) -> Archive:
    # All entries lie in one folder, which is called after the file that was saved.
    inner = [name.partition("/")[2] for name in names]
    if "constants.pkl" in inner:
        return Archive.TORCHSCRIPT
    if any(name.startswith("data/aotinductor/") for name in inner):
        raise ModelLoadError("a package of AOTInductor, which is native code: save it with torch.export.save")
    if any(name.rpartition("/")[2].startswith("opaque_obj_") for name in inner):
        raise ModelLoadError("an exported program with pickled objects, which may run anything when loaded")
    if "models/model.json" in inner or "serialized_exported_program.json" in names:
        return Archive.EXPORTED
    if "data.pkl" in inner:
        raise _pickled()
    raise ModelLoadError(f"neither a TorchScript nor an exported program: {_WANTED}")


def _pickled() -> ModelLoadError:
    return ModelLoadError(
        f"pickled objects, which may run anything when loaded, and no TorchScript: {_WANTED}"
    )
