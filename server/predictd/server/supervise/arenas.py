"""Shared memory of all children together, and whose arena may grow."""

from __future__ import annotations

import os

from predictd.server.control.memory import SegmentAdded
from predictd.server.supervise.child import Child
from predictd.server.supervise.frontends import Frontends
from predictd.server.supervise.growth import GrowthPolicy
from predictd.server.supervise.workers import Workers

# Of each request that waits for its answer, a front end holds the message and its parsed form beside the arena.
MESSAGE_COPIES = 2


class Arenas:
    """Asks the policy for a child, by what all children have."""

    def __init__(self, growth: GrowthPolicy, workers: Workers, frontends: Frontends) -> None:
        self._growth = growth
        self._workers = workers
        self._frontends = frontends

    def decide(self, child: Child, size_bytes: int) -> str | None:
        """Let a child's arena grow by so many bytes, or say why not."""
        answers_bytes, requests_bytes = self._answer_bytes(), self._request_bytes()
        arenas_bytes = answers_bytes + requests_bytes
        if self._workers.has(child):
            return self._growth.decide(child.id, size_bytes, arenas_bytes, answers_bytes)
        beside_bytes = MESSAGE_COPIES * size_bytes
        return self._growth.decide(child.id, size_bytes, arenas_bytes, requests_bytes, beside_bytes)

    def made(self, child: Child, segment: SegmentAdded, fd: int) -> None:
        """A child's arena has grown. Raises ValueError, and closes it, if that is more than it was granted."""
        granted_bytes = self._growth.settle(child.id)
        size_bytes = segment.block_bytes * segment.blocks
        if size_bytes > granted_bytes:
            os.close(fd)
            raise ValueError(f"a segment has {size_bytes} bytes, and {granted_bytes} were granted")

    def _answer_bytes(self) -> int:
        return sum(place.arena_bytes for _, place, _ in self._workers.children())

    def _request_bytes(self) -> int:
        return sum(place.arena_bytes for place, _ in self._frontends.children())
