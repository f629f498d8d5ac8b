"""Results of tuning on the way into models' configurations: which of them counts here, and what it may set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from predictd.engines.hardware import cpu_fingerprint
from predictd.server.config.model_config import ModelConfig, Origin, overlay
from predictd.server.config.model_file import read_tuned
from predictd.server.config.settings import DEFAULT, Settings, options
from predictd.server.config.tuned import TUNABLE, Here, Tuned
from predictd.server.repository.models import FoundModel, Problem, Scan

# Of the setting `tuned`.
AUTO, OFF = "auto", "off"
FOLDER = "tuned"
_REMEDY = "run predictd tune here"
_CHUNK_BYTES = 2**20
# Each makes sense only beside the other: a share of the cores, and who shares them.
_TOGETHER = frozenset({"instances", "threads"})


class TunedError(Exception):
    """A file holds no result of tuning. One line that names the file."""


def this_machine(cpus: int) -> Here:
    """What results for this machine are keyed by, of which so many CPUs can be used at once."""
    try:
        return Here(cpu_fingerprint(), cpus)
    except OSError:
        # Without /proc, nobody can tell; such machines are told apart from all others at least.
        return Here("unknown", cpus)


def explicit_settings(settings: Settings) -> dict[str, object]:
    """What somebody told the daemon, by attribute of its settings."""
    return {
        option.field: getattr(settings, option.field)
        for option in options()
        if settings.origin(option.key) != DEFAULT
    }


def held(config: ModelConfig, explicit: Collection[str]) -> frozenset[str]:
    """What tuning must leave alone, because the user said it, or said what it depends on.

    Args:
        config: What the model's own files say.
        explicit: What the daemon was told.
    """
    said = {name for name in TUNABLE if getattr(config, name) is not None}
    said |= set(explicit).intersection(TUNABLE)
    if said & _TOGETHER:
        said |= _TOGETHER
    if config.preferred_batch_sizes:
        # A limit below a size that is preferred would contradict it.
        said.add("max_batch_size")
    return frozenset(said)


def with_tuned(
    config: ModelConfig, tuned: Tuned, origin: Origin, explicit: Mapping[str, object]
) -> ModelConfig:
    """A model's configuration with what was tuned, as far as the user left it open.

    Args:
        config: What the model's own files say.
        tuned: The result.
        origin: Where it stands.
        explicit: What the daemon was told.
    """
    kept = held(config, explicit)
    engine = config.engine or explicit.get("engine")
    # What was found with one engine says nothing about another.
    other_engine = engine is not None and engine != tuned.values.get("engine", engine)
    values = {} if other_engine else {k: v for k, v in tuned.values.items() if k not in kept}
    if not values:
        return replace(config, tuned=None)
    below = ModelConfig(**values, origins=dict.fromkeys(values, origin))  # type: ignore[arg-type]
    return replace(overlay(below, config), tuned=Tuned(tuned.here, values))


def read_result(path: Path) -> tuple[str, Tuned]:
    """The model's key and the result in a file that `predictd tune` wrote.

    Raises:
        TunedError: It cannot be read, or is none.
    """
    try:
        content: Any = json.loads(path.read_bytes())
        return str(content["model"]["key"]), read_tuned(content["tuned"])
    except OSError as error:
        raise TunedError(f"{path}: {str(error.strerror).lower()}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TunedError(f"{path}: not a result of predictd tune: {error}") from error


def result_file(folder: Path, key: str, here: Here) -> Path:
    """Where in the cache the result for a model on a machine is kept."""
    return folder / FOLDER / key / f"{here.cpu}-{here.cpus}.json"


def model_key(path: Path) -> str:
    """What identifies the content of a model: its size and its hash; of a folder those of all its files.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    for file in _files(path):
        if path.is_dir():
            digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return f"{_size_bytes(path)}-{digest.hexdigest()[:32]}"


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A result that may be for a model, and where it stands."""

    tuned: Tuned
    origin: Origin


class TunedResults:
    """The results of tuning that there are for this machine.

    Each content of a model is looked up once: a result that is found while the daemon runs is for its next start.

    Args:
        choice: The setting `tuned`: AUTO, OFF or a file.
        folder: The cache; None without one.
        here: This machine.
        explicit: What the daemon was told.

    Raises:
        TunedError: The file that was chosen cannot be used.
    """

    def __init__(
        self, choice: Path | str, folder: Path | None, here: Here, explicit: Mapping[str, object]
    ) -> None:
        self._off = choice == OFF
        self._file = choice if isinstance(choice, Path) else None
        self._folder = folder
        self._here = here
        self._explicit = dict(explicit)
        self._given = read_result(self._file) if self._file is not None else None
        # A model's content is read only where a result may be for it, and only once.
        self._keys: dict[tuple[object, ...], str] = {}
        self._kept: dict[str, tuple[_Candidate | None, Problem | None]] = {}

    def apply(self, scan: Scan) -> Scan:
        """What a scan found, with what is tuned put below what the models' own files say."""
        pairs = [self._apply(model) for model in scan.models]
        warnings = tuple(problem for _, problem in pairs if problem is not None)
        return replace(scan, models=tuple(model for model, _ in pairs), warnings=(*scan.warnings, *warnings))

    def _apply(self, model: FoundModel) -> tuple[FoundModel, Problem | None]:
        if self._off:
            return replace(model, file=replace(model.file, tuned=None)), None
        try:
            found, problem = self._find(model)
        except OSError as error:
            place = Path(error.filename or model.versions[0].path)
            found, problem = None, Problem(place, f"no tuned values: {str(error.strerror).lower()}")
        if found is None:
            return replace(model, file=replace(model.file, tuned=None)), problem
        file = with_tuned(model.file, found.tuned, found.origin, self._explicit)
        return replace(model, file=file), problem

    def _find(self, model: FoundModel) -> tuple[_Candidate | None, Problem | None]:
        if self._given is not None and self._file is not None:
            key, tuned = self._given
            if key != self._key(model.versions[0].path):
                what = f"tuned for another model than {model.name}, whose content differs: ignored"
                return None, Problem(self._file, what, _REMEDY)
            return self._if_here(_Candidate(tuned, Origin(self._file)))
        own, problem = None, None
        if model.file.tuned is not None:
            origin = model.file.origins.get("tuned", Origin(model.versions[0].path))
            own, problem = self._if_here(_Candidate(model.file.tuned, origin))
        if own is not None:
            return own, None
        kept, complaint = self._in_cache(model)
        return kept, None if kept is not None else problem or complaint

    def _if_here(self, candidate: _Candidate) -> tuple[_Candidate | None, Problem | None]:
        if candidate.tuned.here == self._here:
            return candidate, None
        what = f"tuned on {candidate.tuned.here}, and this is {self._here}: ignored"
        return None, Problem(candidate.origin.path, what, _REMEDY, candidate.origin.line)

    def _in_cache(self, model: FoundModel) -> tuple[_Candidate | None, Problem | None]:
        if self._folder is None:
            return None, None
        path = model.versions[0].path
        tuned_before = self._folder / FOLDER
        if not tuned_before.is_dir():
            return None, None
        size = f"{_size_bytes(path)}-"
        if not any(entry.name.startswith(size) for entry in tuned_before.iterdir()):
            return None, None
        key = self._key(path)
        if key not in self._kept:
            self._kept[key] = self._read_cache(self._folder, key)
        return self._kept[key]

    def _read_cache(self, folder: Path, key: str) -> tuple[_Candidate | None, Problem | None]:
        path = result_file(folder, key, self._here)
        try:
            if path.exists():
                return self._if_here(_Candidate(read_result(path)[1], Origin(path)))
            others = sorted(path.parent.glob("*.json"))
            return (
                (None, None)
                if not others
                else self._if_here(_Candidate(read_result(others[0])[1], Origin(others[0])))
            )
        except TunedError as error:
            return None, Problem(path.parent, f"ignored: {error}", _REMEDY)

    def _key(self, path: Path) -> str:
        identity = tuple(_identities(path))
        if identity not in self._keys:
            self._keys[identity] = model_key(path)
        return self._keys[identity]


def _identities(path: Path) -> Iterator[object]:
    for file in _files(path):
        status = file.stat()
        yield file, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
