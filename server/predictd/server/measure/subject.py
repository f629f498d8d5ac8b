"""From a model's file or folder to what a worker of it would be told, and where it would run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from predictd.server.config.cache_folder import cache_folder
from predictd.server.config.lane import LaneConfig
from predictd.server.config.model_config import ModelConfig, Origin
from predictd.server.config.settings import Settings
from predictd.server.config.units import utf8_path
from predictd.server.launch.requests import ChildPlan
from predictd.server.measure.engine_process import MeasureError
from predictd.server.repository.models import FoundModel, FoundVersion, served_versions
from predictd.server.repository.scan import scan
from predictd.server.repository.tuning import TunedError
from predictd.server.repository.watch import content_bytes
from predictd.server.supervise.assembly import lanes, plan_start, read_planner
from predictd.server.supervise.selection import tuned_results

_WITH_VERSION = re.compile(r"(.+):([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Wish:
    """Which model, and what shall be other than it would be served.

    Attributes:
        path: A model's file or folder.
        version: Of a folder with several; None for the highest that is served.
        engine: That runs it; None for its own.
        threads: Of a run; None for what the launcher decides.
        instances: Processes; None for what the launcher decides.
    """

    path: Path
    version: int | None = None
    engine: str | None = None
    threads: int | None = None
    instances: int | None = None

    @classmethod
    def of(
        cls,
        text: str,
        *,
        engine: str | None = None,
        threads: int | None = None,
        instances: int | None = None,
    ) -> Wish:
        """From `PATH` or, where there is no such file, `PATH:VERSION`."""
        match = None if Path(text).exists() else _WITH_VERSION.fullmatch(text)
        path, version = (Path(text), None) if match is None else (Path(match[1]), int(match[2]))
        return cls(path, version, engine, threads, instances)

    @property
    def label(self) -> str:
        """As a message names it."""
        return str(self.path) if self.version is None else f"{self.path}:{self.version}"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that can be measured.

    Attributes:
        label: For messages and reports.
        lane: What its workers would be told.
        plans: Where and how each of them would run.
        size_bytes: Of its files, external data included.
        cache: The folder for what can be made again; None to keep nothing.
        cache_limit_bytes: Of that folder.
        load_limit_seconds: How long loading may take, or a run.
        warnings: What the launcher says of all this.
    """

    label: str
    lane: LaneConfig
    plans: tuple[ChildPlan, ...]
    size_bytes: int
    cache: Path | None
    cache_limit_bytes: int
    load_limit_seconds: float
    warnings: tuple[str, ...]


def subject(wish: Wish, settings: Settings) -> Subject:
    """Find the model, and plan for it as if it were served alone.

    Raises:
        MeasureError: There is no such model, or several.
    """
    planner = read_planner()
    model = _asked(_found(wish, settings, planner.cores), wish)
    asked = replace(settings, frontends=1, pools="per-model")
    pools, planned = plan_start([model], asked, planner, os.environ)
    plans = planned.pools[pools[0].name]
    (lane,) = lanes(pools[0], plans, asked, count(1))
    return Subject(
        wish.label,
        lane,
        plans,
        content_bytes(Path(lane.path)),
        cache_folder(settings, os.environ),
        settings.cache_limit_bytes,
        max(settings.load_timeout_ns, lane.run_timeout_ns) / 1e9,
        planned.warnings,
    )


def _found(wish: Wish, settings: Settings, cpus: int) -> FoundModel:
    try:
        tune = tuned_results(settings, os.environ, cpus).apply
    except TunedError as error:
        raise MeasureError(f"tuned: {error}") from error
    try:
        path = utf8_path(os.path.abspath(wish.path))  # noqa: PTH100 - a link keeps its name
    except ValueError as error:
        raise MeasureError(str(error)) from error
    found = tune(scan([path]))
    if len(found.models) == 1:
        return found.models[0]
    if not found.models:
        raise MeasureError("; ".join(map(str, found.problems)) or f"{wish.path}: no model here")
    names = ", ".join(model.name for model in found.models[:5])
    raise MeasureError(f"{wish.path}: give one of its {len(found.models)} models: {names}, …"[:200])


def _asked(model: FoundModel, wish: Wish) -> FoundModel:
    """The model with one version, and as it shall be run."""
    version = _version(model, wish)
    file = replace(model.file, version_policy=None, pool=None)
    own = file.engine
    if wish.engine is not None and wish.engine != own:
        # What was said to another engine means nothing to this one.
        file = replace(file, engine=wish.engine, parameters={}, device=None)
    if wish.threads is not None:
        file = replace(file, threads=wish.threads, origins=_without(file, "threads"))
    if wish.instances is not None:
        file = replace(file, instances=wish.instances, origins=_without(file, "instances"))
    return replace(model, versions=(version,), file=file)


def _without(file: ModelConfig, key: str) -> dict[str, Origin]:
    return {name: origin for name, origin in file.origins.items() if name != key}


def _version(model: FoundModel, wish: Wish) -> FoundVersion:
    served = served_versions(model)
    if wish.version is None:
        if not served:
            raise MeasureError(f"{wish.path}: none of its versions is served")
        return served[0]
    for found in model.versions:
        if found.version == wish.version:
            return found
    there = ", ".join(str(found.version) for found in model.versions)
    raise MeasureError(f"{wish.path}: there is no version {wish.version}; there is {there}")
