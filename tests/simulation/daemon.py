"""The daemon that a schedule is played with."""

from __future__ import annotations

import fcntl
import mmap
import random

from predictd.server.config.settings import Settings
from predictd.server.config.units import Address
from predictd.server.repository.watch import Sight
from predictd.server.supervise.credentials import Credentials
from predictd.server.supervise.loads import Restored
from predictd.server.supervise.ports import ReservedPort
from predictd.server.supervise.states import RestartPolicy
from predictd.server.supervise.supervisor import Supervisor
from predictd.server.transport.pipes import F_SETPIPE_SZ, capacity
from tests.fixtures.supervision import FixedPlanner
from tests.simulation.schedule import MS, Schedule

_ARENA_BYTES = 1 << 26


def supervisor_of(schedule: Schedule, sight: Sight, draw: random.Random) -> Supervisor:
    """A supervisor that has started nobody yet."""
    settings = Settings(
        arena_limit_bytes=_ARENA_BYTES,
        arena_keep_ns=100 if schedule.forgetful else 60_000 * MS,
        model_control="none",
        max_batch_size=schedule.max_batch_size,
        max_delay_ns=schedule.max_delay_ns,
        max_queue_size=schedule.max_queue_size,
        cache_dir=None,
        lame_duck_ns=0,
        run_timeout_ns=400 * MS,
        drain_timeout_ns=10_000 * MS,
    )
    supervisor = Supervisor(
        settings,
        Credentials(settings),
        FixedPlanner(frontends=schedule.frontends),
        Restored(sight),
        ReservedPort(Address("127.0.0.1", 1), ("127.0.0.1:1",), ()),
    )
    for keeper in (supervisor._workers, supervisor._frontends):
        keeper._policy = RestartPolicy(longest_delay_seconds=0.2)
        keeper._draw = draw
    if schedule.small_pipes:
        _shrink_pipes(supervisor)
    return supervisor


def _shrink_pipes(supervisor: Supervisor) -> None:
    for pool in supervisor._pools:
        for pipe in (*pool.queues, pool.carry):
            fcntl.fcntl(pipe.write_fd, F_SETPIPE_SZ, mmap.PAGESIZE)
            pipe.records = capacity(pipe.write_fd)
