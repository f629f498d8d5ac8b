"""Loading and warming a lane: after this, the first real request meets nothing new."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from predictd.engines.api import (
    DType,
    Engine,
    EngineError,
    EngineOptions,
    InvalidInputError,
    LoadCancelledError,
    ModelLoadError,
    Signature,
)
from predictd.engines.cache import CacheFolder
from predictd.engines.cancellation import Cancellation
from predictd.engines.heap import trim_heap
from predictd.engines.registry import resolve
from predictd.server.config.devices import device_of
from predictd.server.config.lane import LaneConfig, LaneSignature, WireTensor
from predictd.server.worker.declared import as_declared, declared_specs, label_digests
from predictd.server.worker.efficiency import Efficiency
from predictd.server.worker.run_times import LOW, MOST, RunTimes
from predictd.server.worker.runner import LoadedLane
from predictd.server.worker.threads import fastest_run_ns, is_short, may_do_with_fewer, one_is_enough
from predictd.server.worker.warmup import is_guess, made_up, warm_up

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WarmLane:
    """A lane that is ready to serve, and what it took."""

    lane: LoadedLane
    load_seconds: float
    warmup_seconds: float


def load_lane(
    config: LaneConfig,
    cache: CacheFolder | None,
    instances: int,
    instance: int,
    cancel: Cancellation,
    report: Callable[[str], None],
) -> WarmLane:
    """Load a model, compare it with its configuration, and run it once for each batch size that will occur.

    Args:
        config: The lane.
        cache: For what can be made again; None to keep nothing.
        instances: Workers that load the same lane.
        instance: Which of them this is, from 0.
        cancel: Gives the load up.
        report: Told how far a load is that takes long.

    Raises:
        LoadCancelledError: It was given up.
        EngineError: The model cannot be served; the message is one line.
    """
    options = dataclasses.replace(
        engine_options(config, cache, instances, cancel, instance=instance), report=report
    )
    _check_readable(Path(config.path))
    warm = _load(config, options)
    if may_do_with_fewer(config, options.device, warm.load_seconds):
        return _with_threads_that_pay(warm, config, options)
    return warm


def _load(config: LaneConfig, options: EngineOptions) -> WarmLane:
    started = time.monotonic()
    engine = resolve(config.engine)(Path(config.path), options)
    trim_heap()
    loaded = time.monotonic()
    try:
        lane = _made_ready(engine, config, options.cancel)
    except BaseException:
        engine.close()
        raise
    return WarmLane(lane, loaded - started, time.monotonic() - loaded)


def _with_threads_that_pay(several: WarmLane, config: LaneConfig, options: EngineOptions) -> WarmLane:
    """The lane as it is, or loaded once more for runs of one thread where more are not worth their waiting."""
    with ExitStack() as opened:
        opened.callback(several.lane.engine.close)
        several_ns = fastest_run_ns(several.lane)
        if not is_short(several_ns):
            opened.pop_all()
            return several
        one = _load(msgspec.structs.replace(config, threads=1), dataclasses.replace(options, threads=1))
        opened.callback(one.lane.engine.close)
        one_ns = fastest_run_ns(one.lane)
        opened.pop_all()
    kept, left = (one, several) if one_is_enough(one_ns, several_ns) else (several, one)
    left.lane.engine.close()
    trim_heap()
    if kept is one:
        said = "model %s: runs have one thread each, as one of %d µs is over before %d could help"
        _log.info(said, config.model, one_ns // 1000, config.threads, extra=config.identity)
    return WarmLane(
        kept.lane, several.load_seconds + one.load_seconds, several.warmup_seconds + one.warmup_seconds
    )


def _check_readable(path: Path) -> None:
    """Say why a file cannot be read that the supervisor can: workers have another user and a sandbox."""
    try:
        if path.is_file():
            path.open("rb").close()
    except PermissionError as error:
        if os.access(path, os.R_OK):
            # Landlock has no part in what access(2) says.
            why = "a worker may read the folders of PATH and linked_dir as they were when it began (worker_sandbox)"
            raise ModelLoadError(f"{path}: {why}") from error
        raise ModelLoadError(f"{path}: not readable by user {os.geteuid()}") from error


def engine_options(
    config: LaneConfig,
    cache: CacheFolder | None,
    instances: int,
    cancel: Cancellation,
    *,
    instance: int = 0,
) -> EngineOptions:
    """What a lane's engine is told; the arguments are those of `load_lane`."""
    return EngineOptions(
        threads=config.threads,
        spin=config.spin,
        instances=instances,
        device=device_of(config.device, instance),
        files_by_capability=config.files_by_capability,
        cache=cache,
        parameters=config.parameters,
        inputs=declared_specs(config.inputs),
        outputs=declared_specs(config.outputs),
        batch_sizes=tuple(sorted({*config.preferred_batch_sizes, config.max_batch_size})),
        cancel=cancel,
    )


def _made_ready(engine: Engine, config: LaneConfig, cancel: Cancellation) -> LoadedLane:
    loaded = engine
    engine, signature = as_declared(engine, config)
    digests = label_digests(config)
    if signature.batches and not batches_indeed(engine, signature):
        _log.warning(
            "model %s has a varying first dimension that is not a batch: served unbatched",
            config.model,
            extra=config.identity,
        )
        signature = dataclasses.replace(signature, batches=False)
    warm_up(engine, signature, config, cancel)
    if cancel.is_set:
        raise LoadCancelledError("the load was given up")
    return LoadedLane(
        config,
        engine,
        signature,
        digests,
        efficiency=_efficiency(config, signature),
        run_times=RunTimes(LOW if _varies(signature) else MOST),
        loaded=loaded,
    )


def _efficiency(config: LaneConfig, signature: Signature) -> Efficiency | None:
    """Somebody who asks for sizes, or waits for batches to fill, has decided already."""
    decided = config.preferred_batch_sizes or config.max_delay_ns or config.max_batch_size == 1
    learns = signature.batches and not decided and not _varies(signature)
    return Efficiency(config.max_batch_size) if learns else None


def _varies(signature: Signature) -> bool:
    """Whether rows of different requests may cost differently."""
    fixed = 1 if signature.batches else 0
    return any(
        spec.dtype is DType.BYTES or min(spec.shape[fixed:], default=0) < 0 for spec in signature.inputs
    )


def batches_indeed(engine: Engine, signature: Signature) -> bool:
    """Whether two rows in give two rows out of every output."""
    try:
        results = engine.run([made_up(spec, 2) for spec in signature.inputs])
    except InvalidInputError:
        return True
    except EngineError:
        if is_guess(signature):
            return True
        raise
    return all(result.ndim >= 1 and result.shape[0] == 2 for result in results)


def wire_signature(lane: LoadedLane) -> LaneSignature:
    """The signature as front ends get to know it."""
    signature = lane.signature
    files = {output.name: str(output.labels_file) for output in lane.config.outputs if output.labels_file}
    return LaneSignature(
        inputs=tuple(WireTensor(s.name, int(s.dtype), s.shape, s.optional) for s in signature.inputs),
        outputs=tuple(
            WireTensor(
                s.name, int(s.dtype), s.shape, s.optional, files.get(s.name, ""), lane.labels.get(s.name, "")
            )
            for s in signature.outputs
        ),
        batches=signature.batches,
        max_rows=signature.max_rows,
        engine=lane.engine.name,
    )
