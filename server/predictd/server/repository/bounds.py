"""How far links may lead: a model is served from the folders that the operator named, and from nowhere else.

Volumes that are swapped by a link stay usable: `/models/current -> .worktrees/3` is a link inside `/models`, and so are
the links of a Kubernetes ConfigMap. What links are checked for here can change before an engine opens the file; then
the worker's sandbox, which has the same folders, refuses (decision 22).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from predictd.engines.traits import COMPANIONS
from predictd.server.config.model_config import ModelConfig, ModelConfigError
from predictd.server.repository.models import FoundModel, Problem, Scan
from predictd.server.repository.tfs_config import SUFFIX as TFS_SUFFIX
from predictd.server.repository.tfs_config import read_tfs_config


def roots(paths: Iterable[Path]) -> tuple[str, ...]:
    """The real folders that some paths stand for, those included in which a link on the way may be replaced."""
    found: dict[str, None] = {}
    for path in paths:
        absolute = os.path.abspath(path)  # noqa: PTH100 - links are looked at one by one
        real = os.path.realpath(absolute)
        found[real if os.path.isdir(real) else os.path.dirname(real)] = None  # noqa: PTH112, PTH120
        found.update(dict.fromkeys(_volumes(absolute)))
        # A file's own folder is where its companions lie, by whichever link it was given.
        if not os.path.isdir(real):  # noqa: PTH112
            found[os.path.realpath(os.path.dirname(absolute))] = None  # noqa: PTH120
    return tuple(found)


def _volumes(path: str) -> Iterator[str]:
    """The folders on the way that have a link to something inside of them."""
    reached = "/"
    for part in Path(path).parts[1:]:
        here, reached = os.path.realpath(reached), os.path.join(reached, part)  # noqa: PTH118
        if os.path.islink(reached) and here != "/" and _is_in(os.path.realpath(reached), here):  # noqa: PTH114
            yield here


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where models may lie.

    Attributes:
        paths: That the daemon serves.
        linked: Folders that links may lead into besides.
    """

    paths: tuple[Path, ...]
    linked: tuple[Path, ...] = ()

    def apply(self, found: Scan) -> Scan:
        """What was found, without the models of which something lies elsewhere."""
        folders = roots((*self.paths, *self.linked, *_listed(self.paths)))
        inside: list[FoundModel] = []
        problems: list[Problem] = []
        for model in found.models:
            outside = [path for path in _files(model) if not _contained(path, folders)]
            if outside:
                problems += [_problem(path) for path in outside]
            else:
                inside.append(model)
        if not problems:
            return found
        refused = [replace(model, versions=()) for model in found.models if model not in inside]
        return replace(
            found,
            models=tuple(inside),
            problems=(*found.problems, *problems),
            rejected=(*found.rejected, *refused),
        )


def _contained(path: Path, folders: Sequence[str]) -> bool:
    real = os.path.realpath(path)
    return any(_is_in(real, folder) for folder in folders)


def _problem(path: Path) -> Problem:
    return Problem(
        path, "a link out of the folders that are served", "copy it there, or name its folder in linked_dir"
    )


def _files(model: FoundModel) -> Iterator[Path]:
    for version in model.versions:
        yield version.path
        if version.path.suffix in COMPANIONS:
            yield version.path.with_suffix(COMPANIONS[version.path.suffix])
        for name in model.file.model_files_by_capability.values():
            yield version.path.parent / name
    yield from named_files(model.file)


def named_files(config: ModelConfig) -> Iterator[Path]:
    """The files that a model's configuration names beside the model."""
    for output in config.outputs:
        if output.labels_file is not None:
            yield output.labels_file
    if config.warmup is not None:
        if config.warmup.file is not None:
            yield config.warmup.file
        for sample in config.warmup.samples:
            yield from (tensor.file for tensor in sample.inputs if tensor.file is not None)


def _listed(paths: Iterable[Path]) -> Iterator[Path]:
    """The folders that lists of models name."""
    for path in paths:
        if path.suffix == TFS_SUFFIX:
            try:
                listed = read_tfs_config(path)
            except (ModelConfigError, OSError):
                # The scan has said so.
                continue
            yield from (model.base_path for model in listed.models)
