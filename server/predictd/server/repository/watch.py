"""What is on disk now, and whether it may be loaded already: content that still changes waits.

A version's fingerprint is made of the names, sizes and times of its files and of the model's configuration. New
content is taken once it was seen twice without a change and nothing was written into it for a moment; the model file
must besides be whole (see `file_check`). So a model that is copied slowly is never loaded half, while one that is
moved into place, with the times that it had, is taken at the second look.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from predictd.engines.traits import COMPANIONS
from predictd.server.config.model_config import ModelConfig, overlay
from predictd.server.repository.external_data import external_status
from predictd.server.repository.file_check import check_file
from predictd.server.repository.file_error import ModelFileError
from predictd.server.repository.models import FoundModel, FoundVersion, Scan, served_versions
from predictd.server.repository.policies import served
from predictd.server.repository.reconcile import Content, Wanted
from predictd.server.repository.scan import scan

QUIET_SECONDS = 1.0
_NO_OVERRIDES: Mapping[str, ModelConfig] = {}


def untuned(found: Scan) -> Scan:
    """Models as their own files configure them."""
    return found


@dataclass(frozen=True, slots=True)
class Sighting:
    """One version as it was seen.

    Attributes:
        model: What it belongs to.
        version: Number and path.
        fingerprint: Of its files and its configuration.
        quiet: Nothing was written into its files for a moment.
        broken: Why they are no whole model; empty if they are.
    """

    model: FoundModel
    version: FoundVersion
    fingerprint: str
    quiet: bool
    broken: str

    @property
    def settled(self) -> bool:
        """It may be loaded."""
        return self.quiet and not self.broken


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything as it was seen at one time.

    Attributes:
        scan: What the scan found.
        versions: Those to be served, by model and number.
    """

    scan: Scan
    versions: Mapping[tuple[str, int], Sighting]


def look(
    paths: Sequence[Path],
    now_seconds: float | None = None,
    overrides: Mapping[str, ModelConfig] = _NO_OVERRIDES,
    tune: Callable[[Scan], Scan] = untuned,
) -> Sight:
    """Scan the paths and take the fingerprint of every version that shall be served.

    Args:
        paths: Where the models are.
        now_seconds: The time.
        overrides: What lies over the configurations of models, by name.
        tune: Puts what was tuned below the models' configurations.
    """
    now = time.time() if now_seconds is None else now_seconds
    found = tune(_overridden(scan(paths), overrides))
    sightings = {}
    for model in found.models:
        for version in served_versions(model):
            sightings[model.name, version.version] = _see(model, version, now)
    return Sight(found, sightings)


def _overridden(found: Scan, overrides: Mapping[str, ModelConfig]) -> Scan:
    models = (
        replace(model, file=overlay(model.file, overrides[model.name])) if model.name in overrides else model
        for model in found.models
    )
    return replace(found, models=tuple(models))


def only(sight: Sight, names: Collection[str]) -> Sight:
    """What was seen of some models; problems are everybody's."""
    return Sight(
        replace(
            sight.scan,
            models=tuple(model for model in sight.scan.models if model.name in names),
            rejected=tuple(model for model in sight.scan.rejected if model.name in names),
        ),
        {key: sighting for key, sighting in sight.versions.items() if key[0] in names},
    )


def updated(before: Sight, now: Sight, names: Collection[str]) -> Sight:
    """An earlier look, with what was seen now of some models."""
    others = {model.name for model in (*before.scan.models, *before.scan.rejected)}.difference(names)
    kept, new = only(before, others), only(now, names)
    models = sorted((*kept.scan.models, *new.scan.models), key=lambda model: model.name)
    rejected = (*kept.scan.rejected, *new.scan.rejected)
    found = replace(new.scan, models=tuple(models), rejected=rejected)
    return Sight(found, {**kept.versions, **new.versions})


def _see(model: FoundModel, version: FoundVersion, now: float) -> Sighting:
    # Which versions are served and how, what they are called and where that is written changes nothing in any of them.
    loaded = replace(model.file, labels={}, version_policy=None, swap=None, origins={})
    digest = hashlib.blake2b(repr(loaded).encode(), digest_size=16)
    newest = 0.0
    files = (*_files(version.path), *_external(version.path), *_named_files(model.file))
    for name, status in files:
        digest.update(
            f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0".encode(errors="replace")
        )
        newest = max(newest, status.st_mtime)
    broken = "" if model.file.custom_engine else _broken(version.path)
    quiet = not now - QUIET_SECONDS < newest <= now
    return Sighting(model, version, digest.hexdigest(), quiet, broken)


def _files(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The model file, its companion, and what stands beside it in its version folder, such as external data."""
    try:
        folder = path if path.is_dir() else path.parent
        beside = path.is_dir() or folder.name.isdigit()
        for file in sorted(folder.iterdir()) if beside else _both(path):
            yield file.name, file.stat()
    except OSError:
        # It is being replaced at this moment: another fingerprint than before and after.
        yield f"gone at {time.monotonic_ns()}", os.stat_result((0,) * 10)


def content_bytes(path: Path) -> int:
    """The size of a version's files, external data included."""
    return sum({name: status.st_size for name, status in (*_files(path), *_external(path))}.values())


def _external(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    """External data, wherever it lies."""
    return external_status(path) if path.suffix == ".onnx" else iter(())


def _both(path: Path) -> list[Path]:
    companion = path.with_suffix(COMPANIONS.get(path.suffix, path.suffix))
    return [path, companion] if companion != path and companion.exists() else [path]


def _named_files(config: ModelConfig) -> Iterator[tuple[str, os.stat_result]]:
    """The files that the configuration names and that clients see the content of."""
    for output in config.outputs:
        if output.labels_file is None:
            continue
        try:
            yield str(output.labels_file), output.labels_file.stat()
        except OSError:
            # Its absence is a state like another, and loading says what is wrong with it.
            yield f"no {output.labels_file}", os.stat_result((0,) * 10)


def _broken(path: Path) -> str:
    try:
        check_file(path)
    except ModelFileError as error:
        return f"{path}: {error}"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look means.

    Attributes:
        wanted: For the reconciler.
        held: Something new is not settled yet: look again soon.
    """

    wanted: Mapping[str, Wanted]
    held: bool


def decide(
    before: Sight | None,
    now: Sight,
    serving: Mapping[tuple[str, int], str],
    started: Collection[tuple[str, int, str]] = (),
) -> Decision:
    """What shall be served after a look.

    Args:
        before: The look before; None takes everything as it is, as at the start.
        now: This look.
        serving: Fingerprints of the lanes that exist, by model and version.
        started: Contents that were taken already, by model, version and fingerprint: one that was taken on demand, or
            that failed, is not given up for not being settled.
    """
    contents: dict[str, list[Content]] = {model.name: [] for model in now.scan.models}
    held = False
    kept = {key for model in now.scan.models for key in _kept(model, serving)}
    for name, version in kept:
        contents[name].append(Content(version, serving[name, version]))
    for (name, version), sighting in now.versions.items():
        if not _beside(sighting.model, version, kept):
            continue
        fingerprint = sighting.fingerprint
        taken = serving.get((name, version)) == fingerprint or (name, version, fingerprint) in started
        if not taken and before is not None:
            seen = before.versions.get((name, version))
            if not (sighting.settled and seen is not None and seen.fingerprint == fingerprint):
                # What is broken and at rest will not be whole in a moment.
                held = held or not (sighting.quiet and sighting.broken)
                old = serving.get((name, version))
                if old is None:
                    _keep_all(contents[name], name, serving)
                    continue
                fingerprint = old
        contents[name].append(Content(version, fingerprint))
    if now.scan.blind:
        # Nobody can tell what is there.
        for name in {model for model, _ in serving} - contents.keys():
            _keep_all(contents.setdefault(name, []), name, serving)
    for model in now.scan.rejected:
        # It is there and cannot be served as it is: what was served stays.
        _keep_all(contents.setdefault(model.name, []), model.name, serving)
    resource = {model.name for model in now.scan.models if model.file.swap == "resource"}
    wanted = {
        name: Wanted(tuple(dict.fromkeys(found)), preserve_availability=name not in resource)
        for name, found in contents.items()
    }
    return Decision(wanted, held)


def _kept(model: FoundModel, serving: Mapping[tuple[str, int], str]) -> list[tuple[str, int]]:
    """The versions that cannot be read, are served, and stay so: those that the policy would choose with them there."""
    there = [version for version in model.unreadable if (model.name, version) in serving]
    return [(model.name, version) for version in there if version in _chosen(model, there)]


def _beside(model: FoundModel, version: int, kept: Collection[tuple[str, int]]) -> bool:
    """Whether the policy chooses a version that can be read when those that are kept count, too."""
    there = [number for name, number in kept if name == model.name]
    return not there or version in _chosen(model, there)


def _chosen(model: FoundModel, unreadable: Sequence[int]) -> tuple[int, ...]:
    return served([*(found.version for found in model.versions), *unreadable], model.file.version_policy)


def _keep_all(contents: list[Content], name: str, serving: Mapping[tuple[str, int], str]) -> None:
    contents.extend(Content(version, old) for (model, version), old in serving.items() if model == name)
