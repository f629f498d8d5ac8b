"""Finds the models under the paths that the daemon was given."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from predictd.server.config.model_config import (
    ModelConfig,
    ModelConfigError,
    Notice,
    Origin,
    Reading,
    contradictions,
    overlay,
)
from predictd.server.config.model_file import read_model_file
from predictd.server.repository.config_pbtxt import read_config_pbtxt
from predictd.server.repository.layout import (
    CONFIG_PBTXT,
    MODEL_ONNX,
    MODEL_TOML,
    SUFFIXES,
    LayoutError,
    Listing,
    by_preference,
    check_name,
    check_served,
    configured,
    is_plain_model,
    looks_like_version,
    model_entry,
    no_versions,
    stem,
    version_of,
    visible,
)
from predictd.server.repository.models import FoundModel, FoundVersion, Problem, Scan
from predictd.server.repository.policies import missing, served, wrong_labels
from predictd.server.repository.tfs_config import SUFFIX as TFS_SUFFIX
from predictd.server.repository.tfs_config import read_tfs_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


def scan(paths: Sequence[Path]) -> Scan:
    """Find the models under some paths: model files, model folders, repositories and models.config files.

    What cannot be served becomes a Problem and keeps nothing else from being found.
    """
    scanner = _Scanner()
    for path in paths:
        scanner.read_path(path)
    models = sorted(scanner.models.values(), key=lambda model: model.name)
    rejected = [scanner.rejected[name] for name in sorted(scanner.rejected.keys() - scanner.models.keys())]
    return Scan(
        tuple(models), tuple(scanner.problems), tuple(scanner.warnings), tuple(rejected), scanner.blind
    )


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
        self.warnings: list[Problem] = []
        self.rejected: dict[str, FoundModel] = {}
        self.blind = False

    def read_path(self, path: Path) -> None:
        with self._reporting(path), self._blinded():
            if not stat.S_ISDIR(path.stat().st_mode):
                self._read_file(path)
                return
            listing = list_folder(path)
            if _is_model(path, listing):
                self._read_model(path, Path(os.path.abspath(path)).name)  # noqa: PTH100 - a link keeps its name
            else:
                self._read_repository(path, listing)

    def _read_file(self, path: Path) -> None:
        if path.suffix == TFS_SUFFIX:
            self._read_tfs_config(path)
            return
        if path.suffix not in SUFFIXES:
            kinds = " or ".join(SUFFIXES)
            remedy = f"give an {kinds} file, a model's folder, a repository or a models.config"
            raise LayoutError("not a model file", remedy)
        self._read_files(path.parent, path.stem, [path.name])

    def _read_files(self, folder: Path, name: str, files: Sequence[str]) -> None:
        """Read a model that is a file; of several with its name the one that its engine serves."""
        check_name(name)
        with self._rejecting(name):
            config = folder / f"{name}.toml"
            reading = self._reading(config, read_model_file) if config.exists() else Reading(ModelConfig())
            engine = reading.config.engine
            chosen, *others = by_preference(files, engine) or files
            for other in others:
                what = f"not served, as {chosen} is the model of this name"
                remedy = f"remove it, or name its engine in {config.name}"
                self.warnings.append(Problem(folder / other, what, remedy))
            check_served(chosen, engine)
            self._add(name, (FoundVersion(1, _loadable(folder / chosen)),), reading)

    def _read_tfs_config(self, path: Path) -> None:
        listed = read_tfs_config(path)
        self._note(path, listed.notices)
        self.blind = self.blind or any(notice.severity == "error" for notice in listed.notices)
        for model in listed.models:
            with self._reporting(model.base_path):
                self._read_model(model.base_path, model.name, model.config)

    def _read_repository(self, path: Path, listing: Listing) -> None:
        if not listing.folders and not listing.models:
            raise LayoutError("no model here", f"put <name>.onnx or <name>/1/{MODEL_ONNX} into it")
        for name in listing.folders:
            with self._reporting(path / name):
                self._read_model(path / name, name)
        named: dict[str, list[str]] = {}
        for file in listing.models:
            named.setdefault(stem(file), []).append(file)
        for name, files in named.items():
            with self._reporting(path / files[0]):
                self._read_files(path, name, files)

    def _read_model(self, path: Path, name: str, above: ModelConfig | None = None) -> None:
        """Read a model's folder; `above` is what somebody else says of it, who knows better."""
        check_name(name)
        with self._rejecting(name):
            listing = list_folder(path)
            reading = self._read_config(path, name, listing)
            if above is not None:
                reading = replace(reading, config=overlay(reading.config, above))
            config = reading.config
            candidates = [folder for folder in listing.folders if looks_like_version(folder)]
            if candidates:
                versions, unreadable = self._read_versions(path, candidates, config)
                for file in listing.standard:
                    what = "not served, as there are version folders beside it"
                    self.problems.append(Problem(path / file, what, "move it into one or remove it"))
            elif listing.standard or MODEL_TOML in listing.files:
                versions, unreadable = (FoundVersion(1, _entry(path, listing, config)),), ()
            else:
                raise no_versions(listing)
            self._check_versions(path, config, versions, candidates)
            self._add(name, versions, reading, unreadable)

    def _read_config(self, path: Path, name: str, listing: Listing) -> Reading:
        """Triton's file first, then our own, which may say more and may say it otherwise."""
        readings: list[Reading] = []
        if CONFIG_PBTXT in listing.files:
            readings.append(self._reading(path / CONFIG_PBTXT, partial(read_config_pbtxt, name=name)))
        if MODEL_TOML in listing.files:
            readings.append(self._reading(path / MODEL_TOML, read_model_file))
        config = ModelConfig()
        for reading in readings:
            config = overlay(config, reading.config)
        notices = [notice for reading in readings for notice in reading.notices]
        if len(readings) > 1 and all(reading.usable for reading in readings):
            for notice in contradictions(config):
                origin = config.origins[notice.field]
                self.problems.append(Problem(origin.path, notice.message, notice.remedy, origin.line))
                notices.append(notice)
        return Reading(config, tuple(notices))

    def _reading(self, file: Path, read: Callable[[Path], Reading]) -> Reading:
        try:
            reading = read(file)
        except ModelConfigError as error:
            reading = Reading(ModelConfig(), (Notice(error.line, "", error.message),))
        self._note(file, reading.notices)
        return reading

    def _note(self, file: Path, notices: Iterable[Notice]) -> None:
        for notice in notices:
            problem = Problem(file, notice.message, notice.remedy, notice.line)
            (self.warnings if notice.severity == "warning" else self.problems).append(problem)

    def _read_versions(
        self, path: Path, names: Sequence[str], config: ModelConfig
    ) -> tuple[tuple[FoundVersion, ...], tuple[int, ...]]:
        """The versions that can be loaded, highest first, and those that cannot be read."""
        versions: list[FoundVersion] = []
        unreadable: list[int] = []
        for name in names:
            folder = path / name
            with self._reporting(folder):
                version = version_of(name)
                try:
                    versions.append(FoundVersion(version, _entry(folder, list_folder(folder), config)))
                except OSError:
                    unreadable.append(version)
                    raise
        return tuple(sorted(versions, key=lambda found: found.version, reverse=True)), tuple(unreadable)

    def _check_versions(
        self, path: Path, config: ModelConfig, versions: Sequence[FoundVersion], candidates: Sequence[str]
    ) -> None:
        """Report versions that the configuration names in vain."""
        # A folder that cannot be used has its own problem already.
        broken = {int(name) for name in candidates if name.isdecimal()} - {
            found.version for found in versions
        }
        there = [found.version for found in versions]
        for version in missing((*there, *broken), config.version_policy):
            origin = config.origins.get("version_policy", Origin(path))
            what = f"version {version} is to be served and is not there"
            self.problems.append(Problem(origin.path, what, "add it, or correct the policy", origin.line))
        for label, reason in wrong_labels(config.labels, there, served(there, config.version_policy)).items():
            if config.labels[label] not in broken:
                origin = config.origins.get("labels", Origin(path))
                what = f"label {label!r} means nothing: {reason}"
                self.problems.append(
                    Problem(origin.path, what, "correct the label or the policy", origin.line)
                )

    def _add(
        self,
        name: str,
        versions: tuple[FoundVersion, ...],
        reading: Reading,
        unreadable: tuple[int, ...] = (),
    ) -> None:
        model = FoundModel(name, versions, reading.config, unreadable)
        # Without any version, each candidate has left its own problem.
        if not reading.usable or not versions:
            self.rejected.setdefault(name, model)
            return
        first = self.models.setdefault(name, model)
        if first is not model:
            raise LayoutError(
                f"a model called {name!r} is already served from {first.versions[0].path}", "rename one"
            )

    @contextmanager
    def _rejecting(self, name: str) -> Iterator[None]:
        try:
            yield
        except (LayoutError, OSError):
            self.rejected.setdefault(name, FoundModel(name, (), ModelConfig()))
            raise

    @contextmanager
    def _blinded(self) -> Iterator[None]:
        try:
            yield
        except (ModelConfigError, OSError):
            self.blind = True
            raise

    @contextmanager
    def _reporting(self, path: Path) -> Iterator[None]:
        try:
            yield
        except LayoutError as error:
            self.problems.append(Problem(path, error.what, error.remedy))
        except ModelConfigError as error:
            self.problems.append(Problem(Path(error.place), error.message, line=error.line))
        except OSError as error:
            self.problems.append(_explain(Path(error.filename or path), error))


def _is_model(path: Path, listing: Listing) -> bool:
    versions = [name for name in listing.folders if looks_like_version(name)]
    if not versions:
        return is_plain_model(listing)
    # A repository's models may have numbers for names; then their folders hold versions, not files.
    return configured(listing) or any(_holds_models(path / name) for name in versions)


def _holds_models(folder: Path) -> bool:
    try:
        return bool(list_folder(folder).models)
    except OSError:
        # Reading the version will report it.
        return True


def _entry(folder: Path, listing: Listing, config: ModelConfig) -> Path:
    name = model_entry(listing, engine=config.engine, named=config.model_file)
    if name is not None:
        check_served(name, config.engine)
    return _loadable(folder if name is None else folder / name)


def _loadable(path: Path) -> Path:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise LayoutError(f"{path.name} is not a file")
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return path


def _explain(path: Path, error: OSError) -> Problem:
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return Problem(path, "a link to nothing", "repair or remove it")
    if isinstance(error, FileNotFoundError):
        return Problem(path, "no such file or folder")
    if isinstance(error, PermissionError):
        return Problem(path, f"not readable by user {os.geteuid()}", "change its permissions")
    return Problem(path, str(error.strerror or error).lower())
