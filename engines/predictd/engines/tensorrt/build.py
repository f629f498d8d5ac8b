"""Building a plan. It runs in a process of its own, which `building` starts: `python -m` this module.

Every failure of TensorRT's is None, False or -1, and the reason is in its log.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from predictd.engines.api import EngineError
from predictd.engines.tensorrt.bindings import Bindings, Log, load_bindings
from predictd.engines.tensorrt.build_messages import BuildNews, BuildRequest, Built, NotBuilt, news_to_json
from predictd.engines.tensorrt.build_options import (
    BuildError,
    BuildOptions,
    HardwareCompatibility,
    Precision,
)
from predictd.engines.tensorrt.monitor import progress_monitor
from predictd.engines.tensorrt.onnx_network import OnnxNetwork, read_onnx
from predictd.engines.tensorrt.plan_file import PlanFacts, write_plan, write_whole
from predictd.engines.tensorrt.profiles import Profile, ProfileError, make_profiles
from predictd.engines.tensorrt.progress import BuildProgress

Report = Callable[[BuildProgress], None]

_PR_SET_PDEATHSIG = 1
# Of all processes of the machine the one that the kernel shall end first when memory is short.
_OOM_SCORE = "1000"
_SHOWN_WARNINGS = 5


def build_plan(request: BuildRequest, bindings: Bindings, report: Report) -> Built:
    """Build what is asked for, and write it.

    Raises:
        EngineError: It cannot be built.
        OSError: It cannot be written.
    """
    began = time.monotonic()
    options = request.options
    # Without a driver TensorRT's builder may end the process; the one of TensorRT-RTX does not need it.
    gpu = None if request.device is None else _gpu()
    log = bindings.new_log()
    model = Path(request.model)
    # Beside the plan: should this process be killed, whoever cleans up there takes it along.
    with tempfile.TemporaryDirectory(prefix=".build-", dir=Path(request.plan).parent) as folder:
        parsed = read_onnx(bindings, log, model, options, Path(folder))
        config = _configure(bindings, parsed, log, options)
        try:
            profiles = make_profiles(parsed.inputs, options.wishes, options.batch_sizes, request.declared)
        except ProfileError as error:
            raise BuildError(str(error)) from error
        _add_profiles(parsed.builder, config, log, profiles)
        _take_timings(config, request)
        monitor = progress_monitor(bindings, log, config, report)
        log.clear()
        with monitor:
            plan = parsed.builder.build_serialized_network(parsed.network, config)
        if plan is None:
            raise BuildError(log.reason())
    content = memoryview(plan)
    facts = PlanFacts(
        flavour=bindings.flavour,
        version=bindings.version,
        gpu=gpu.name if gpu else "",
        compute_capability=gpu.compute_capability if gpu else "",
        targets=options.compute_capabilities,
        options=options.to_json(),
        model=model.name,
        model_digest=request.model_digest,
        version_compatible=options.version_compatible,
        hardware_compatibility=options.hardware_compatibility,
        build_seconds=round(time.monotonic() - began, 3),
    )
    write_plan(Path(request.plan), content, facts)
    _keep_timings(config, request)
    warnings = [line.text for line in log.lines() if line.severity == "WARNING"]
    return Built(facts, content.nbytes, _peak_bytes(), tuple(dict.fromkeys(warnings))[-_SHOWN_WARNINGS:])


def _gpu() -> Any:
    # Only where a GPU is needed: which one is settled by CUDA_VISIBLE_DEVICES, so here it is the first.
    from predictd.engines.tensorrt.gpu_identity import identify

    return identify(0)


def _configure(bindings: Bindings, parsed: OnnxNetwork, log: Log, options: BuildOptions) -> Any:
    trt = bindings.trt
    config = parsed.builder.create_builder_config()
    if config is None:
        raise BuildError(log.reason())
    flags = list(parsed.flags)
    if options.precision is not Precision.FP32:
        flags.append("TF32")
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.sparse:
        flags.append("SPARSE_WEIGHTS")
    if options.version_compatible:
        flags.append("VERSION_COMPATIBLE")
    for name in flags:
        if not bindings.has_builder_flag(name):
            raise BuildError(f"{bindings.label} has no builder flag {name}")
        config.set_flag(getattr(trt.BuilderFlag, name))
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.hardware_compatibility is not HardwareCompatibility.NONE:
        _set_compatibility(bindings, config, options.hardware_compatibility)
    if options.compute_capabilities:
        _set_targets(bindings, config, log, options.compute_capabilities)
    return config


def _set_compatibility(bindings: Bindings, config: Any, wanted: HardwareCompatibility) -> None:
    levels = getattr(bindings.trt, "HardwareCompatibilityLevel", None)
    level = getattr(levels, wanted.upper(), None)
    if level is None or bindings.is_rtx:
        remedy = ": name GPUs by their compute capability instead" if bindings.is_rtx else ""
        raise BuildError(f"{bindings.label} has no hardware compatibility {wanted!s}{remedy}")
    config.hardware_compatibility_level = level


def _set_targets(bindings: Bindings, config: Any, log: Log, wanted: tuple[str, ...]) -> None:
    if not bindings.has_compute_capabilities:
        raise BuildError(
            f"{bindings.label} builds for the GPU at hand; only TensorRT-RTX can be told a compute capability"
        )
    members = bindings.trt.ComputeCapability.__members__
    known = {_dotted(name): member for name, member in members.items() if name.startswith("SM")}
    config.num_compute_capabilities = len(wanted)
    for index, text in enumerate(wanted):
        if text not in known:
            raise BuildError(
                f"{bindings.label} does not build for compute capability {text!r}; it does for {', '.join(known)}"
            )
        if not config.set_compute_capability(known[text], index):
            raise BuildError(log.reason())


def _dotted(name: str) -> str:
    digits = name.removeprefix("SM")
    return f"{digits[:-1]}.{digits[-1]}"


def _add_profiles(builder: Any, config: Any, log: Log, profiles: list[Profile]) -> None:
    for profile in profiles:
        log.clear()
        made = builder.create_optimization_profile()
        for name, wanted in profile.items():
            # None when it took them, in some versions; False, or an exception, when not.
            if made.set_shape(name, wanted.minimum, wanted.optimum, wanted.maximum) is False:
                raise BuildError(f"input {name!r}: {log.reason()}")
        if config.add_optimization_profile(made) < 0:
            raise BuildError(log.reason())


def _take_timings(config: Any, request: BuildRequest) -> None:
    """Give the builder what was measured before; what it cannot use it leaves alone."""
    if not (request.timing_cache or request.new_timing_cache):
        return
    known = b""
    if request.timing_cache:
        with contextlib.suppress(FileNotFoundError):
            known = Path(request.timing_cache).read_bytes()
    cache = config.create_timing_cache(known)
    if cache is None and known:
        # Of another version or GPU, or damaged: it will be written anew.
        cache = config.create_timing_cache(b"")
    if cache is not None:
        config.set_timing_cache(cache, ignore_mismatch=False)


def _keep_timings(config: Any, request: BuildRequest) -> None:
    cache = config.get_timing_cache() if request.new_timing_cache else None
    content = None if cache is None else cache.serialize()
    if content is not None:
        write_whole(Path(request.new_timing_cache), memoryview(content))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# The process ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Build what standard input asks for; tell through the descriptor that is named, and end with it."""
    news_fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent_pid)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    request = BuildRequest.from_json(sys.stdin.readline())
    with os.fdopen(news_fd, "w", buffering=1) as pipe:
        try:
            bindings = load_bindings(request.options.flavour)
            _tell(pipe, build_plan(request, bindings, lambda progress: _tell(pipe, progress)))
        except OSError as error:
            _tell(pipe, NotBuilt(f"{error.filename or request.plan}: {error.strerror or error}"))
        except (EngineError, MemoryError) as error:
            _tell(pipe, NotBuilt(str(error) or "there is not enough memory"))


def _tell(pipe: IO[str], news: BuildNews) -> None:
    pipe.write(news_to_json(news) + "\n")


def _die_with(parent_pid: int) -> None:
    """Nobody wants a plan whose asker is gone, and nobody else would end the build."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It is the interrupt of whoever sits at the terminal that ends the asker; this process ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != parent_pid:
        sys.exit("who asked for this build is gone")


if __name__ == "__main__":
    main()
