"""A second half of the front end that has requests of its own in flight, as the first half knows it.

With the native front end most requests never come to Python: a loop in C has them, from the socket to the ticket and
back. What the supervisor tells, both halves have to know; and where a worker dies, both have to answer for their own.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING

from predictd.server.frontend.calls import waiting
from predictd.server.observe.deltas import WaitingSeries
from predictd.server.transport.claims import ClaimState

if TYPE_CHECKING:
    from predictd.server.frontend.lost import Probe
    from predictd.server.frontend.pools import PoolLink, WorkerLink


class Mirror:
    """The other half, as it is where there is none: nothing is to be told and nothing to be asked."""

    @property
    def in_flight(self) -> int:
        """Requests that it has."""
        return 0

    @property
    def arena_bytes(self) -> int:
        """Shared memory of its request arenas."""
        return 0

    def drain(self) -> None:
        """Have it handle all completions that have come, and pass on those that are the first half's."""

    def pool_attached(self, pool: PoolLink, queue_fds: Sequence[int]) -> None:
        """A pool is known; the descriptors stay the caller's."""

    def pool_gone(self, pool: int) -> None:
        """A pool is no more."""

    def worker_attached(self, worker: WorkerLink) -> None:
        """A worker is known."""

    def worker_died(self, pool: int, state: ClaimState, held: Iterable[tuple[int, int]]) -> None:
        """A worker of a pool died that held these tickets of the front end. Probes are sent after this."""

    def worker_gone(self, worker: int) -> None:
        """A worker is no more."""

    def find_lost(self, probe: Probe, held: Container[tuple[int, int]]) -> None:
        """A probe is back; the living workers have claimed these tickets."""

    def waiting(self, held: Container[tuple[int, int]], now_ns: int) -> tuple[WaitingSeries, ...]:
        """Its requests that wait and that no worker has taken."""
        return waiting((), held, now_ns)

    def segment_added(
        self, worker: int, segment: int, view: memoryview, block_bytes: int, blocks: int
    ) -> None:
        """A worker's memory was mapped."""

    def segment_removed(self, worker: int, segment: int) -> None:
        """A worker's memory is about to be unmapped."""

    def published(self, model: str) -> None:
        """The routes of a model are new."""

    def retire(self, lane: int) -> None:
        """A lane gets no more requests, and is finished with once those that it has are over."""

    def give_back(self, now_ns: int, *, pressed: bool = False) -> None:
        """Do without the memory that requests did not need lately."""

    def collect(self) -> None:
        """Have what it counted added to the recorder."""


NO_MIRROR = Mirror()
