"""Keeping workers alive: start, load, serve, restart, isolate, give up."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable
from functools import partial

from predictd.server.control.messages import (
    AnyMessage,
    LaneFailed,
    LaneLoaded,
    LaneLoading,
    RemoveLane,
    Serve,
    Warm,
)
from predictd.server.supervise.believable import check_labels_files
from predictd.server.supervise.blame import culprits, to_isolate
from predictd.server.supervise.catalog import Catalog, LaneRecord
from predictd.server.supervise.child import Child, OnMessage, describe_exit, who
from predictd.server.supervise.deadlines import Deadlines
from predictd.server.supervise.pool import Place, Pool
from predictd.server.supervise.starter import Starter
from predictd.server.supervise.states import Event, RestartPolicy, State
from predictd.server.supervise.turns import FIRST_LANES, LoadTurns
from predictd.server.supervise.wiring import Wiring
from predictd.server.supervise.worker_init import WorkerSettings, send_lanes, worker_init
from predictd.server.transport.claims import completed_batches
from predictd.server.transport.pipes import make_pipe

MODULE = "predictd.server.worker.start"
# A load that is given up ends after the operator that it is at; an engine that cannot be stopped is not waited for.
CANCEL_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Workers:
    """All pools and their places. Decides by the table and the policy of `states`.

    Args:
        publish: Tells the front ends about a model whose lanes changed.
        isolate: Makes a pool for one lane of a shared pool and starts it.
        on_message: Hears what workers say; hands what is for us to `handle`.
        on_gone: Hears of every worker that was reaped.

    Attributes:
        pools: Those that were not dropped, by id.
        load_timeouts: Workers that were killed because a load took too long.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        catalog: Catalog,
        wiring: Wiring,
        next_id: Callable[[], int],
        publish: Callable[[str], None],
        isolate: Callable[[LaneRecord], None],
        on_message: OnMessage,
        on_gone: Callable[[Child], None],
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._wiring = wiring
        self._publish = publish
        self._isolate = isolate
        self._on_gone = on_gone
        self._starter = Starter(MODULE, settings.environment, next_id, on_message, self._exited)
        self._policy = RestartPolicy()
        self._draw = random.Random()  # noqa: S311 - jitter, no secret
        self._loop = asyncio.get_running_loop()
        self._by_child: dict[int, tuple[Pool, Place]] = {}
        self._deadlines = Deadlines()
        self._turns = LoadTurns()
        self._stopping = False
        self.pools: dict[int, Pool] = {}
        self.load_timeouts = 0

    def add_pool(self, pool: Pool, *, in_turn: bool = False) -> None:
        """Start a pool.

        Args:
            pool: Its lanes are in the catalog.
            in_turn: Its workers load after those that load already on the same CPUs: others serve there.
        """
        self.pools[pool.id] = pool
        pool.in_turn = in_turn
        self._wiring.add_pool(pool)
        for place in pool.places:
            self._spawn(pool, place)

    def children(self) -> list[tuple[Pool, Place, Child]]:
        """The workers that run."""
        return [(pool, place, place.child) for pool, place in self._by_child.values() if place.child]

    def has(self, child: Child) -> bool:
        """Whether a child is one of them and runs."""
        return any(child is worker for _, _, worker in self.children())

    # Life ---------------------------------------------------------------------------------------------------

    def _spawn(self, pool: Pool, place: Place) -> None:
        if self._stopping or pool.closed:
            return
        title = f"worker {pool.name} {place.index}"
        try:
            confinement = place.plan.confinement
            child = self._starter.start(place, title, make_pipe, confinement.to_json() if confinement else "")
        except OSError as error:
            how = f"it cannot be started: {error.strerror}"
            if place.plan.user is not None:
                how += f"; user {place.plan.user.name} (worker_user) must be able to run {sys.executable}"
            _log.error("%s: %s", title, how)
            self._come_back(pool, place, how)
            return
        self._by_child[child.id] = (pool, place)
        self._start_deadline(child)

    def hello(self, child: Child) -> None:
        """The worker runs: have it load, when it is its turn."""
        self._deadlines.cancel(child)
        pool, place = self._by_child[child.id]
        first = (child.id, FIRST_LANES)
        # What takes the place of a dead worker is missed.
        if pool.in_turn and not place.restarts:
            self._turns.ask(first, place.plan.cpus, lambda: self._initialise(pool, place, child))
        else:
            self._turns.take(first, place.plan.cpus)
            self._initialise(pool, place, child)

    def _initialise(self, pool: Pool, place: Place, child: Child) -> None:
        """Tell a worker who it is and what to load."""
        if place.state is State.STOPPING:
            return
        place.move(Event.HELLO)
        assert place.pipe is not None  # noqa: S101 - made in _spawn
        lanes = [record.config for record in self._catalog.in_pool(pool.id)]
        # What killed a worker while it was loaded comes last, so that the others are ready by then.
        lanes.sort(key=lambda lane: pool.blame[lane.lane])
        child.send(
            worker_init(self._settings, pool, place, child.id, len(lanes)),
            [*pool.worker_fds(), place.pipe.read_fd],
        )
        send_lanes(child, lanes)
        self._wiring.add_worker(pool, place, child)
        self._start_deadline(child)

    def handle(self, child: Child, message: AnyMessage) -> None:
        """A worker said something about its lanes."""
        pool, place = self._by_child[child.id]
        if place.state is State.STOPPING:
            return
        match message:
            case LaneLoading(lane=lane, progress=progress):
                place.loading = lane
                # What goes on has its time anew.
                self._start_deadline(child)
                self._note_progress(lane, progress)
            case LaneLoaded(lane=lane):
                self._load_over(place, child, lane)
                self._lane_loaded(pool, place, child, message)
            case LaneFailed(lane=lane, reason=reason):
                self._load_over(place, child, lane)
                record = self._catalog.hosted(pool.id, lane)
                if record is not None:
                    self._lane_failed(pool, child, record, reason)
            case Warm():
                place.loading = None
                place.move(Event.WARM)
                self._deadlines.cancel(child)
                self._turns.over((child.id, FIRST_LANES))
                if not self._catalog.in_pool(pool.id):
                    _log.warning("pool %s is stopped: every model of the pool failed to load", pool.name)
                    pool.stop()
                elif self._wiring.is_mapped(child.id):
                    self.mapped(child.id)
            case _:
                raise TypeError(f"a worker sent {type(message).__name__}. This is a bug.")

    def _note_progress(self, lane: int, progress: str) -> None:
        """Let operators see how far a load is."""
        record = self._catalog.find(lane)
        if record is not None and progress:
            record.progress = progress
            self._publish(record.config.model)

    def _load_over(self, place: Place, child: Child, lane: int) -> None:
        """A load came to its end. The next one may have begun: its time goes on."""
        if place.loading == lane:
            place.loading = None
            self._deadlines.cancel(child)
        self._turns.over((child.id, lane))

    def _lane_loaded(self, pool: Pool, place: Place, child: Child, news: LaneLoaded) -> None:
        """A worker has a lane: publish it if it was the last of those that serve."""
        record = self._catalog.hosted(pool.id, news.lane)
        if record is None:
            child.send(RemoveLane(lane=news.lane))
            return
        check_labels_files(news.signature, record.config)
        record.signature = news.signature
        record.loaded_by.add(child.id)
        times = (news.load_seconds, news.warmup_seconds)
        _log.info("%s: loaded %s in %.2f s, warmed up in %.2f s", child.title, record.name, *times)
        if place.state is State.SERVING:
            self._announce(pool)
        elif place.state is State.MAPPING and self._wiring.is_mapped(child.id):
            self.mapped(child.id)

    def mapped(self, child_id: int) -> None:
        """Everything that concerns a child is mapped: a warm worker that has every ready lane may serve."""
        known = self._by_child.get(child_id)
        if known is None or known[1].state is not State.MAPPING:
            return
        pool, place = known
        # A lane that came while the worker was loading others may have become ready elsewhere by now.
        if any(r.state == "READY" and child_id not in r.loaded_by for r in self._catalog.in_pool(pool.id)):
            return
        place.move(Event.MAPPED)
        if place.child is not None:
            place.child.send(Serve())
        self._announce(pool)

    def _announce(self, pool: Pool) -> None:
        """Publish the lanes of a pool once no place of it is still on its way for the first time."""
        serving = pool.serving
        if pool.on_its_way or not serving:
            return
        for record in self._catalog.in_pool(pool.id):
            if record.state == "LOADING" and record.signature is not None and serving <= record.loaded_by:
                record.state = "READY"
                record.load_seconds = self._loop.time() - record.started
                self._publish(record.config.model)

    def _exited(self, child: Child, status: int) -> None:
        """A worker was reaped."""
        pool, place = self._by_child.pop(child.id)
        self._deadlines.cancel(child)
        self._turns.gone(child.id)
        asked = place.state is State.STOPPING
        if asked:
            place.move(Event.EXITED)
            self._wiring.worker_gone(child, dead=status != 0)
            place.clear()
        else:
            self._crashed(pool, place, child, status)
        if pool.gone:
            self._wiring.remove_pool(pool, "its workers are stopped")
        self._on_gone(child)

    def _crashed(self, pool: Pool, place: Place, child: Child, status: int) -> None:
        worked = place.claims is not None and completed_batches(place.claims) > 0
        guilty = culprits(place, self._catalog.in_pool(pool.id))
        place.crashed(worked=worked)
        how = describe_exit(status)
        records = (self._catalog.find(lane) for lane in sorted(guilty))
        names = ", ".join(record.config.model for record in records if record is not None)
        at_work = f" while it worked on {names}" if names else ""
        _log.error("%s died: %s%s", who(child), how, at_work)
        self._wiring.worker_gone(child, dead=True)
        place.clear()
        if self._stopping:
            place.move(Event.STOP)
            return
        pool.blame.update(guilty)
        self._isolate_killers(pool, place, how)
        self._come_back(pool, place, f"{how}{at_work}")

    def _come_back(self, pool: Pool, place: Place, how: str) -> None:
        """Start the place again after a while, unless that was in vain too often."""
        if self._policy.gives_up(place.failed_starts, place.barren_crashes):
            self._give_up(pool, place, f"its worker died {place.barren_crashes} times in a row: {how}")
            return
        delay = self._policy.delay_seconds(place.barren_crashes, self._draw)
        self._loop.call_later(delay, self._respawn, pool, place)

    def _respawn(self, pool: Pool, place: Place) -> None:
        if place.state is State.BACKOFF:
            self._spawn(pool, place)

    def _isolate_killers(self, pool: Pool, place: Place, how: str) -> None:
        """Move lanes that kill a shared pool's workers into pools of their own."""
        for record in to_isolate(pool, self._catalog.in_pool(pool.id)):
            _log.error(
                "%s kills workers of pool %s (%s): it gets a pool of its own", record.name, pool.name, how
            )
            record.state = "LOADING"
            record.reason = (
                f"killed workers of the shared pool {pool.name} ({how}); moved to a pool of its own"
            )
            place.barren_crashes = 0
            self._isolate(record)
            # Before the workers let go of it: what they send back then follows it to its new place.
            self._publish(record.config.model)
            self._take_away(pool, record)

    def _give_up(self, pool: Pool, place: Place, reason: str) -> None:
        place.move(Event.GIVE_UP)
        _log.error("pool %s: place %d is given up: %s", pool.name, place.index, reason)
        if not pool.gone:
            self._announce(pool)
            return
        for record in self._catalog.in_pool(pool.id):
            # What is being retired ends once its requests are answered for, which the end of the pool does.
            if record.state != "UNLOADING":
                self.fail_lane(record, reason)
        self._wiring.remove_pool(pool, reason)

    def fail_lane(self, record: LaneRecord, reason: str) -> None:
        """A lane cannot be served."""
        record.state = "FAILED"
        record.reason = reason
        _log.error("model %s failed: %s", record.name, reason, extra=record.config.identity)
        self._publish(record.config.model)

    def _lane_failed(self, pool: Pool, child: Child, record: LaneRecord, reason: str) -> None:
        """A worker cannot load a lane."""
        if record.state == "READY" and pool.serving:
            # Others serve it. A worker without it would refuse their requests, so this one has to try again.
            _log.error("%s cannot load %s, which others serve: %s", child.title, record.config.model, reason)
            child.kill()
        else:
            self.fail_lane(record, reason)
            self._take_away(pool, record)

    def _start_deadline(self, child: Child) -> None:
        """Each lane has its time, however many there are, and so has starting."""
        self._deadlines.start(child, self._settings.load_timeout_seconds, self._load_timed_out)

    def _load_timed_out(self, child: Child) -> None:
        pool, place = self._by_child[child.id]
        limit = self._settings.load_timeout_seconds
        late = None if place.loading is None else self._catalog.hosted(pool.id, place.loading)
        others = len(self._catalog.in_pool(pool.id)) > 1 or place.state is State.SERVING
        if late is not None and late.state == "LOADING" and others:
            # The worker has others, too: they must not wait for the same again, nor be disturbed if that can be helped.
            self.fail_lane(late, f"it takes more than {limit:g} s to load (load_timeout)")
            self._take_away(pool, late)
            self._deadlines.start(child, CANCEL_SECONDS, self._kill_late)
        else:
            self._kill_late(child)

    def _kill_late(self, child: Child) -> None:
        _, place = self._by_child[child.id]
        if place.state in (State.STARTING, State.LOADING, State.MAPPING, State.SERVING):
            self.load_timeouts += 1
            limit = self._settings.load_timeout_seconds
            _log.error(
                "%s takes more than %g s to load a model (load_timeout) and is killed", child.title, limit
            )
            child.kill()

    # Lanes that come and go ---------------------------------------------------------------------------------

    def load(self, pool: Pool, record: LaneRecord) -> None:
        """Have a pool load one more lane. Workers that do not run yet get it with the others."""
        for place, child in pool.initialised:
            key = (child.id, record.config.lane)
            self._turns.ask(key, place.plan.cpus, partial(send_lanes, child, [record.config]))

    def drop(self, pool: Pool, record: LaneRecord) -> None:
        """End a lane that nobody asks for any more, and its pool with it if it was the last."""
        self._catalog.remove(record.config.lane)
        if self._catalog.in_pool(pool.id):
            self._take_away(pool, record)
            return
        del self.pools[pool.id]
        pool.stop()
        if pool.gone:
            self._wiring.remove_pool(pool, "its workers are stopped")

    def _take_away(self, pool: Pool, record: LaneRecord) -> None:
        """Have no worker of a pool load a lane, or keep it."""
        for _, child in pool.initialised:
            self._turns.over((child.id, record.config.lane))
            child.send(RemoveLane(lane=record.config.lane))

    # Stop ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop all workers; nothing is restarted from here on."""
        self._stopping = True
        for pool in self.pools.values():
            pool.stop()

    def kill(self) -> None:
        """Kill what is left."""
        self._stopping = True
        for _, _, child in self.children():
            child.kill()
