"""What a scan of the model paths finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.server.config.model_config import located
from predictd.server.repository.policies import served

if TYPE_CHECKING:
    from pathlib import Path

    from predictd.server.config.model_config import ModelConfig


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
        versions: Highest first, at least one where the model can be served.
        file: What its model.toml, config.pbtxt and models.config say; empty without one.
        unreadable: Versions that are there and cannot be read. One that is served already is served on.
    """

    name: str
    versions: tuple[FoundVersion, ...]
    file: ModelConfig
    unreadable: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was found and is not served, or not all of it.

    Attributes:
        path: Where.
        what: What is wrong.
        remedy: What to do about it; empty where there is nothing to add.
        line: Where in the file; None if that is not known.
    """

    path: Path
    what: str
    remedy: str = ""
    line: int | None = None

    @property
    def message(self) -> str:
        """What is wrong and what to do about it, in one line."""
        return f"{self.what}: {self.remedy}" if self.remedy else self.what

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return f"{located(self.path, self.line)}: {self.message}"


@dataclass(frozen=True, slots=True)
class Scan:
    """The result of a scan.

    Attributes:
        models: By name, each name once.
        problems: In the order in which they were found.
        warnings: What the models' configurations ask for and predictd does not do; they are served.
        rejected: Models that are there and cannot be served as they are, by name, perhaps without versions.
            They are not gone: what serves of them already can serve on.
        blind: A path or a list of models could not be read, so that models may be there which are not found.
    """

    models: tuple[FoundModel, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    rejected: tuple[FoundModel, ...] = ()
    blind: bool = False

    @property
    def names(self) -> set[str]:
        """Of all models that are there, also of those that cannot be served."""
        return {model.name for model in (*self.models, *self.rejected)}


def served_versions(model: FoundModel) -> tuple[FoundVersion, ...]:
    """The versions to serve, highest first, as the model's policy says."""
    chosen = served([found.version for found in model.versions], model.file.version_policy)
    return tuple(found for found in model.versions if found.version in chosen)
