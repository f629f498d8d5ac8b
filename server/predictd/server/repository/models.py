"""What a scan of the model paths finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from predictd.server.config.model_file import ModelFile


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """One version of a model.

    Attributes:
        version: At least 1.
        path: What the engine loads: a file, or the version's folder where an engine of its own wants that.
    """

    version: int
    path: Path


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model on disk.

    Attributes:
        name: What clients call it.
        versions: Highest first, at least one.
        file: What its model.toml says; empty without one.
    """

    name: str
    versions: tuple[FoundVersion, ...]
    file: ModelFile


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was found and is not served.

    Attributes:
        path: Where.
        message: What is wrong and what to do about it, in one line.
    """

    path: Path
    message: str

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return f"{self.path}: {self.message}"


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a scan.

    Attributes:
        models: By name, each name once.
        problems: In the order in which they were found.
    """

    models: tuple[FoundModel, ...]
    problems: tuple[Problem, ...]


def served_versions(model: FoundModel) -> tuple[FoundVersion, ...]:
    """The versions to serve: the highest one."""
    return model.versions[:1]
