"""Loading lanes for the run loop: the first ones in it, those that come later by a thread beside it."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from predictd.engines.api import EngineError
from predictd.engines.cache import CacheFolder
from predictd.engines.cancellation import Cancellation
from predictd.server.config.lane import LaneConfig
from predictd.server.control.message import Message
from predictd.server.control.messages import LaneFailed, LaneLoading, WorkerInit
from predictd.server.worker.lanes import WarmLane, load_lane

_log = logging.getLogger(__name__)


class Loader:
    """Lanes on their way: given, loaded, taken in.

    Args:
        init: Who the worker is, and how many lanes come first.
        send: To the supervisor, from any thread.
        wake: Has the run loop look at `loaded`.

    Attributes:
        loaded: For the run loop to take in.
    """

    def __init__(self, init: WorkerInit, send: Callable[[Message], None], wake: Callable[[], None]) -> None:
        self._init = init
        self._send = send
        self._wake = wake
        directory = init.cache_directory
        self._cache = CacheFolder(Path(directory), init.cache_limit_bytes) if directory else None
        self._first: list[LaneConfig] = []
        self._first_complete = threading.Event()
        if not init.lane_count:
            self._first_complete.set()
        self._later: queue.SimpleQueue[LaneConfig] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._warm = threading.Event()
        self._cancellations: dict[int, Cancellation] = {}
        self.loaded: deque[WarmLane] = deque()

    # Run loop -------------------------------------------------------------------------------------------------

    def first(self) -> list[LaneConfig]:
        """Wait for the lanes that the worker starts with."""
        self._first_complete.wait()
        return self._first

    def load(self, config: LaneConfig) -> None:
        """Load a lane, for the run loop to take in."""
        cancel = self._cancellations[config.lane]
        if cancel.is_set:
            del self._cancellations[config.lane]
            return
        self._send(LaneLoading(lane=config.lane))
        try:
            report = partial(self._load_goes_on, config.lane)
            workers, index = self._init.workers, self._init.index
            self.loaded.append(load_lane(config, self._cache, workers, index, cancel, report))
        except EngineError as error:
            self._send(LaneFailed(lane=config.lane, reason=str(error)))
        except Exception as error:  # noqa: BLE001 - an engine of the user's own may raise anything
            _log.exception("loading %s failed", config.path, extra=config.identity)
            self._send(LaneFailed(lane=config.lane, reason=f"{config.path}: {type(error).__name__}: {error}"))
        finally:
            del self._cancellations[config.lane]

    def _load_goes_on(self, lane: int, progress: str) -> None:
        self._send(LaneLoading(lane=lane, progress=progress))

    def warm(self) -> None:
        """The first lanes are done with: from now on others may be loaded."""
        self._warm.set()

    # Control thread -------------------------------------------------------------------------------------------

    def add(self, lanes: list[LaneConfig]) -> None:
        """Have lanes loaded."""
        self._cancellations.update((lane.lane, Cancellation()) for lane in lanes)
        if self._first_complete.is_set():
            self._load_later(lanes)
            return
        self._first += lanes
        if len(self._first) >= self._init.lane_count:
            self._first_complete.set()

    def _load_later(self, lanes: list[LaneConfig]) -> None:
        """Have lanes loaded beside the run loop, by a thread that most workers never need."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._load_more, name="loader", daemon=True)
            self._thread.start()
        for lane in lanes:
            self._later.put(lane)

    def give_up(self, lanes: Iterable[int]) -> None:
        """Have the loads of some lanes stopped, or not begun."""
        for lane in lanes:
            cancel = self._cancellations.get(lane)
            if cancel is not None:
                cancel.set()

    def stop(self) -> None:
        """Give all up, and wait for none."""
        self.give_up(list(self._cancellations))
        self._first_complete.set()

    # Loader thread --------------------------------------------------------------------------------------------

    def _load_more(self) -> None:
        """Load lanes that come after the first ones, one at a time."""
        self._warm.wait()
        while True:
            self.load(self._later.get())
            self._wake()
