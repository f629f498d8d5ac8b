"""CUDA graphs: runs of one shape, recorded once and launched as a whole.

A graph holds the context, the shapes and the addresses of the run that it was recorded from. So there is one for each
profile and shape, it is recorded when a shape comes for the second time, after TensorRT has made ready for it in the
first run, and all are dropped when a buffer moves.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from predictd.engines.api import DeviceLostError, EngineError
from predictd.engines.tensorrt.driver import Driver

GRAPHS_KEPT = 32
_SEEN_KEPT = 256

_log = logging.getLogger(__name__)


class Graphs:
    """The graphs of one stream. Its methods need the context to be current.

    Args:
        driver: Records and launches.
        stream: Of pycuda.
        enabled: False to run everything the plain way.
    """

    def __init__(self, driver: Driver, stream: Any, *, enabled: bool) -> None:
        self._driver = driver
        self._stream = driver.calls.CUstream(stream.handle)
        self._enabled = enabled
        self._graphs: OrderedDict[Hashable, Any] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def run(self, key: Hashable, enqueue: Callable[[], None]) -> None:
        """Put a run into the stream.

        Args:
            key: Equal for runs that differ in nothing but the contents of their buffers.
            enqueue: Does it the plain way; raises EngineError.
        """
        if not self._enabled:
            enqueue()
            return
        graph = self._graphs.get(key)
        if graph is None and key in self._seen:
            graph = self._recorded(key, enqueue)
        if graph is None:
            enqueue()
            self._remember(key)
            return
        self._graphs.move_to_end(key)
        self._driver.call("cuGraphLaunch", graph, self._stream)

    def clear(self) -> None:
        """Drop all graphs, whose addresses hold no more. None may be running."""
        while self._graphs:
            _, graph = self._graphs.popitem()
            self._driver.call("cuGraphExecDestroy", graph)
        self._seen.clear()

    def _remember(self, key: Hashable) -> None:
        self._seen[key] = None
        if len(self._seen) > _SEEN_KEPT:
            self._seen.popitem(last=False)

    def _recorded(self, key: Hashable, enqueue: Callable[[], None]) -> Any:
        """A new graph; None where this plan cannot be recorded, which is not tried again."""
        try:
            graph = self._record(enqueue)
        except DeviceLostError:
            raise
        except EngineError as error:
            _log.warning("this plan runs without CUDA graphs: %s", error)
            self._enabled = False
            return None
        if len(self._graphs) >= GRAPHS_KEPT:
            # The oldest may still run: destroying it only then takes effect.
            _, oldest = self._graphs.popitem(last=False)
            self._driver.call("cuGraphExecDestroy", oldest)
        self._graphs[key] = graph
        return graph

    def _record(self, enqueue: Callable[[], None]) -> Any:
        calls = self._driver.calls
        # Of this thread only: others may pin memory meanwhile.
        mode = calls.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._driver.call("cuStreamBeginCapture", self._stream, mode)
        try:
            enqueue()
        except EngineError:
            # The stream must leave the capture; that it went wrong is known.
            with contextlib.suppress(EngineError):
                self._destroy(self._driver.call("cuStreamEndCapture", self._stream))
            raise
        graph = self._driver.call("cuStreamEndCapture", self._stream)
        try:
            return self._driver.call("cuGraphInstantiate", graph, 0)
        finally:
            self._destroy(graph)

    def _destroy(self, graph: Any) -> None:
        self._driver.call("cuGraphDestroy", graph)
