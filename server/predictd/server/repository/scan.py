"""Finds the models under the paths that the daemon was given."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from predictd.server.config.model_file import ModelFile, read_model_file
from predictd.server.config.settings import ConfigError
from predictd.server.repository.layout import (
    MODEL_ONNX,
    MODEL_TOML,
    LayoutError,
    Listing,
    check_name,
    is_plain_model,
    looks_like_version,
    model_entry,
    no_versions_remedy,
    version_of,
    visible,
)
from predictd.server.repository.models import FoundModel, FoundVersion, Problem, Scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def scan(paths: Sequence[Path]) -> Scan:
    """Find the models under some paths: .onnx files, model folders and repositories, in any mixture.

    What cannot be served becomes a Problem and keeps nothing else from being found.
    """
    scanner = _Scanner()
    for path in paths:
        scanner.read_path(path)
    models = sorted(scanner.models.values(), key=lambda model: model.name)
    return Scan(models=tuple(models), problems=tuple(scanner.problems))


def list_folder(path: Path) -> Listing:
    """The visible entries of a folder. A dangling link counts as a file, so that using it names the cause."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if visible(entry.name):
                (folders if _is_folder(entry) else files).append(entry.name)
    return Listing(tuple(sorted(folders)), tuple(sorted(files)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


class _Scanner:
    def __init__(self) -> None:
        self.models: dict[str, FoundModel] = {}
        self.problems: list[Problem] = []

    def read_path(self, path: Path) -> None:
        with self._reporting(path):
            if not stat.S_ISDIR(path.stat().st_mode):
                self._read_file(path)
                return
            listing = list_folder(path)
            if _is_model(path, listing):
                self._read_model(path, Path(os.path.abspath(path)).name, listing)  # noqa: PTH100 - a link keeps its name
            else:
                self._read_repository(path, listing)

    def _read_file(self, path: Path) -> None:
        if path.suffix != ".onnx":
            raise LayoutError("not an .onnx file: give an .onnx file, a model's folder or a repository")
        check_name(path.stem)
        config = path.with_suffix(".toml")
        file = read_model_file(config) if config.exists() else ModelFile()
        self._add(FoundModel(path.stem, (FoundVersion(1, _loadable(path)),), file))

    def _read_repository(self, path: Path, listing: Listing) -> None:
        if not listing.folders and not listing.onnx:
            raise LayoutError(f"no model here: put <name>.onnx or <name>/1/{MODEL_ONNX} into it")
        for name in listing.folders:
            with self._reporting(path / name):
                self._read_model(path / name, name, list_folder(path / name))
        for name in listing.onnx:
            with self._reporting(path / name):
                self._read_file(path / name)

    def _read_model(self, path: Path, name: str, listing: Listing) -> None:
        check_name(name)
        file = read_model_file(path / MODEL_TOML) if MODEL_TOML in listing.files else ModelFile()
        candidates = [folder for folder in listing.folders if looks_like_version(folder)]
        if candidates:
            versions = self._read_versions(path, candidates, file)
            if MODEL_ONNX in listing.files:
                message = "not served, as there are version folders beside it: move it into one or remove it"
                self.problems.append(Problem(path / MODEL_ONNX, message))
        elif MODEL_ONNX in listing.files or MODEL_TOML in listing.files:
            versions = (FoundVersion(1, _entry(path, listing, file)),)
        else:
            raise LayoutError(no_versions_remedy(listing))
        # Without any, each candidate has left its own problem.
        if versions:
            self._add(FoundModel(name, versions, file))

    def _read_versions(self, path: Path, names: Sequence[str], file: ModelFile) -> tuple[FoundVersion, ...]:
        versions: list[FoundVersion] = []
        for name in names:
            folder = path / name
            with self._reporting(folder):
                version = version_of(name)
                versions.append(FoundVersion(version, _entry(folder, list_folder(folder), file)))
        return tuple(sorted(versions, key=lambda found: found.version, reverse=True))

    def _add(self, model: FoundModel) -> None:
        first = self.models.setdefault(model.name, model)
        if first is not model:
            raise LayoutError(
                f"a model called {model.name!r} is already served from {first.versions[0].path}: rename one"
            )

    @contextmanager
    def _reporting(self, path: Path) -> Iterator[None]:
        try:
            yield
        except LayoutError as error:
            self.problems.append(Problem(path, str(error)))
        except ConfigError as error:
            self.problems.append(Problem(Path(error.place), error.message))
        except OSError as error:
            self.problems.append(Problem(Path(error.filename or path), _explain(error)))


def _is_model(path: Path, listing: Listing) -> bool:
    versions = [name for name in listing.folders if looks_like_version(name)]
    if not versions:
        return is_plain_model(listing)
    # A repository's models may have numbers for names; then their folders hold versions, not files.
    return MODEL_TOML in listing.files or any(_holds_onnx(path / name) for name in versions)


def _holds_onnx(folder: Path) -> bool:
    try:
        return bool(list_folder(folder).onnx)
    except OSError:
        # Reading the version will report it.
        return True


def _entry(folder: Path, listing: Listing, file: ModelFile) -> Path:
    name = model_entry(listing, custom_engine=file.custom_engine)
    return _loadable(folder if name is None else folder / name)


def _loadable(path: Path) -> Path:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise LayoutError(f"{path.name} is not a file")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return path


def _explain(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and error.filename and Path(error.filename).is_symlink():
        return "a link to nothing: repair or remove it"
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    if isinstance(error, PermissionError):
        return f"not readable by user {os.geteuid()}: change its permissions"
    return str(error.strerror or error).lower()
