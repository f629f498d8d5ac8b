"""The plan of an ONNX model: from the cache, or built now and kept there.

A plan is found again by all that it depends on: the content of the model and of the files that its tensors lie in,
the library's version, the GPU, and the options. Two daemons that want the same plan build it once: whoever comes
second waits for the first, as long as that one lives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import mmap
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from predictd.engines.api import LoadCancelledError, TensorSpec
from predictd.engines.cache import CacheFolder, NotMadeError
from predictd.engines.cancellation import Cancellation
from predictd.engines.model_files import ModelFiles, model_files
from predictd.engines.tensorrt.bindings import Bindings
from predictd.engines.tensorrt.build_messages import BuildRequest
from predictd.engines.tensorrt.build_options import BuildError, BuildOptions
from predictd.engines.tensorrt.building import have_built
from predictd.engines.tensorrt.plan_file import PlanFacts, read_facts, write_plan, write_whole
from predictd.engines.tensorrt.progress import BuildProgress

if TYPE_CHECKING:
    from predictd.engines.tensorrt.gpu_identity import GpuIdentity

KIND = "tensorrt"
TIMING_KIND = "tensorrt-timing"
PLAN = "model.plan"
TIMINGS = "timing.cache"
# Part of every key: another number whenever this module writes something else.
_FORMAT = 1
_WAIT_SECONDS = float("inf")
_TELL_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlanWish:
    """Which plan is wanted.

    Attributes:
        model: The ONNX file.
        options: Of the build.
        declared: Shapes that the model's configuration gives, by input.
        device: Number of the GPU to build on; None with TensorRT-RTX.
        gpu: What it is; None with TensorRT-RTX.
        timing_cache: A file that keeps what builders measure, instead of the cache folder.
    """

    model: Path
    options: BuildOptions
    declared: dict[str, tuple[int, ...]] = field(default_factory=dict)
    device: int | None = None
    gpu: GpuIdentity | None = None
    timing_cache: Path | None = None


def plan_for(
    wish: PlanWish,
    bindings: Bindings,
    cache: CacheFolder | None,
    report: Callable[[BuildProgress], None],
    cancel: Cancellation | None = None,
) -> contextlib.AbstractContextManager[Path]:
    """A plan's file, which is there within the `with`; its facts lie beside it.

    Args:
        wish: Which one.
        bindings: Of TensorRT.
        cache: Where plans are kept; None to keep none.
        report: Told once a second how far the build is, if there is one.
        cancel: Gives it up.

    Raises:
        LoadCancelledError: It was given up.
        BuildError: It cannot be built; one line.
    """
    try:
        files = model_files(wish.model)
        digest = files.content()
    except OSError as error:
        raise BuildError(error.strerror or str(error)) from error
    return _Plans(wish, bindings, cache, report, cancel or Cancellation(), files, digest).open()


@dataclass(frozen=True, slots=True)
class _Plans:
    wish: PlanWish
    bindings: Bindings
    cache: CacheFolder | None
    report: Callable[[BuildProgress], None]
    cancel: Cancellation
    files: ModelFiles
    digest: str

    @contextlib.contextmanager
    def open(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="predictd-plan-") as name:
            spare = Path(name)
            kept = None if self.cache is None else self._kept(self.cache, spare)
            if kept is None and not (spare / PLAN).exists():
                self._build(spare)
            yield (spare if kept is None else kept) / PLAN

    def _kept(self, cache: CacheFolder, spare: Path) -> Path | None:
        """The plan's folder in the cache; None where it is not kept. The plan may be in the spare one then."""
        began = time.monotonic()
        told = began

        def waiting() -> None:
            nonlocal told
            now = time.monotonic()
            if self.cancel.is_set:
                raise LoadCancelledError("the load was given up")
            if now - told >= _TELL_SECONDS:
                told = now
                self.report(BuildProgress(now - began, waits=True))

        def build(folder: Path) -> None:
            self._build(folder)
            size_bytes = sum(file.stat().st_size for file in folder.iterdir())
            if size_bytes > cache.limit_bytes:
                # It took minutes: what the cache does not take is used all the same.
                for file in tuple(folder.iterdir()):
                    shutil.move(file, spare)
                raise NotMadeError(
                    f"its {size_bytes} bytes are more than the cache's limit, {cache.limit_bytes}"
                )

        return cache.make(KIND, self._key(), build, wait_seconds=_WAIT_SECONDS, waiting=waiting)

    def _key(self) -> str:
        facts = (
            _FORMAT,
            self.digest,
            self._platform(),
            dataclasses.replace(self.wish.options, flavour=None).to_json(),
            sorted(self.wish.declared.items()),
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _platform(self) -> tuple[object, ...]:
        gpu = self.wish.gpu
        return (
            self.bindings.flavour,
            self.bindings.version,
            None if gpu is None else (gpu.name, gpu.compute_capability, gpu.driver),
        )

    def _build(self, folder: Path) -> None:
        timings = self._timings()
        request = BuildRequest(
            model=str(self.wish.model.absolute()),
            model_digest=self.digest,
            plan=str(folder / PLAN),
            options=self.wish.options,
            declared=self.wish.declared,
            device=self.wish.device,
            timing_cache="" if timings is None else str(timings),
            new_timing_cache=str(folder / TIMINGS),
        )
        _log.info("building the TensorRT plan of %s", self.wish.model)
        built = have_built(request, self.report, self.cancel)
        if not self.files.unchanged():
            raise BuildError("it changed while its plan was built")
        for warning in built.warnings:
            _log.warning("%s: %s", self.wish.model, warning)
        _log.info(
            "built the TensorRT plan of %s in %.1f s: %d bytes, with %d bytes of memory at most",
            self.wish.model,
            built.facts.build_seconds,
            built.size_bytes,
            built.peak_bytes,
        )
        self._keep_timings(folder / TIMINGS, timings)

    # What builders measured -----------------------------------------------------------------------------------

    def _timing_key(self) -> str:
        return hashlib.sha256(repr((_FORMAT, self._platform())).encode()).hexdigest()

    def _timings(self) -> Path | None:
        if self.wish.timing_cache is not None:
            return self.wish.timing_cache
        entry = None if self.cache is None else self.cache.entry(TIMING_KIND, self._timing_key())
        return None if entry is None else entry / TIMINGS

    def _keep_timings(self, new: Path, old: Path | None) -> None:
        """Have the next build of any model on this GPU measure less."""
        if not new.exists():
            return
        content = new.read_bytes()
        new.unlink()
        if old is not None and old.exists() and old.read_bytes() == content:
            return
        if self.wish.timing_cache is not None:
            try:
                write_whole(self.wish.timing_cache, content)
            except OSError as error:
                _log.warning("the timing cache %s is not written: %s", self.wish.timing_cache, error.strerror)
        elif self.cache is not None:

            def write(folder: Path) -> None:
                (folder / TIMINGS).write_bytes(content)

            self.cache.replace(TIMING_KIND, self._timing_key(), write)


def plan_wish(
    model: Path,
    options: BuildOptions,
    declared: Iterable[TensorSpec],
    bindings: Bindings,
    device: int,
    timing_cache: Path | None = None,
) -> PlanWish:
    """The wish for a plan that shall run on one GPU, with a library.

    Args:
        model: The ONNX file.
        options: Of the build.
        declared: What the model's configuration says of inputs.
        bindings: Of the library.
        device: Number of the GPU; TensorRT-RTX builds without one.
        timing_cache: A file that keeps what builders measure, instead of the cache folder.

    Raises:
        EngineError: There is no such GPU.
    """
    shapes = {spec.name: spec.shape for spec in declared}
    if bindings.is_rtx:
        return PlanWish(model, options, shapes, timing_cache=timing_cache)
    # Asks for CUDA's driver, which TensorRT-RTX does without here.
    from predictd.engines.tensorrt.gpu_identity import identify

    return PlanWish(model, options, shapes, device, identify(device), timing_cache)


def copy_plan(plan: Path, target: Path) -> PlanFacts:
    """Give a plan and its facts another place. Raises OSError."""
    facts = read_facts(plan)
    if facts is None:
        raise OSError(f"{plan} has no facts beside it. This is a bug.")
    with plan.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        write_plan(target, content, facts)
    return facts
