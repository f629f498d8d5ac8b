"""TensorRT's progress monitor, and what stands in for it where there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self

from predictd.engines.tensorrt.bindings import Bindings, Log
from predictd.engines.tensorrt.progress import BuildProgress, Phases

_INTERVAL_SECONDS = 1.0


class Monitor:
    """Reports once a second, while it is entered, as long as TensorRT gives a sign of life.

    Without such a sign nothing is reported: whoever waits shall be able to tell a long build from one that hangs.
    """

    def __init__(
        self,
        progress: Callable[[float], BuildProgress],
        signs: Callable[[], object],
        report: Callable[[BuildProgress], None],
    ) -> None:
        self._progress = progress
        self._signs = signs
        self._report = report
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        seen = None
        while not self._stopped.wait(_INTERVAL_SECONDS):
            sign = self._signs()
            if sign != seen:
                seen = sign
                self._report(self._progress(time.monotonic()))


def progress_monitor(
    bindings: Bindings, log: Log, config: Any, report: Callable[[BuildProgress], None]
) -> Monitor:
    """Watch a build that this configuration will be used for.

    Where TensorRT has no monitor (8.6), its log lines are the sign of life, and nobody can say how far it is.
    """
    began = time.monotonic()
    if not bindings.has_progress_monitor:
        return Monitor(lambda now: BuildProgress(now - began), lambda: log.count, report)
    phases, lock = Phases(began), threading.Lock()
    count = 0

    def told(tell: Callable[[], None]) -> None:
        nonlocal count
        with lock:
            count += 1
            tell()

    def progress(now: float) -> BuildProgress:
        with lock:
            return phases.progress(now)

    config.progress_monitor = _make_monitor(bindings.trt, phases, told)
    return Monitor(progress, lambda: (count, log.count), report)


def _make_monitor(trt: Any, phases: Phases, told: Callable[[Callable[[], None]], None]) -> Any:
    class Listener(trt.IProgressMonitor):  # type: ignore[misc] # of a module that is known at run time only
        def __init__(self) -> None:
            # Not super(): TensorRT's classes demand their own constructor by name.
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            told(lambda: phases.start(phase_name, parent_phase, num_steps, time.monotonic()))

        def step_complete(self, phase_name: str, step: int) -> bool:
            told(lambda: phases.step(phase_name, step, time.monotonic()))
            return True

        def phase_finish(self, phase_name: str) -> None:
            told(lambda: phases.finish(phase_name))

    return Listener()
