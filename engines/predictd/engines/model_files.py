"""The files that a model consists of, its own and those that its tensors lie in: as they were at one moment."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.engines.onnx_external import external_files

if TYPE_CHECKING:
    from pathlib import Path


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
    """The files of an ONNX model; of what is none, the file itself.

    Raises:
        OSError: One of them is not there or not a regular file.
    """
    names = [external.location for external in external_files(path)]
    paths = (path, *(path.parent / name for name in names))
    return ModelFiles(paths, tuple(map(_state, paths)))


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        # A device would be read without end.
        raise OSError(f"{path} is not a regular file")
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
