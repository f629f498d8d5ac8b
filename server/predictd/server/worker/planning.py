"""Which of the waiting tickets run now: a pure decision over a window of tickets.

The window holds what the leader has read: first the carry, then the queues by priority, so it is in the order of
arrival within each priority. Rules:

* Expired and cancelled tickets are dropped before anything else is decided.
* The highest priority present is served first. Among the lanes that have such tickets, the one whose runs took the
  least compute time so far goes next; among equals the one that waits longest.
* A batch holds tickets of one lane and one shape, in their order, up to the lane's limit of rows. The first of them is
  always taken, however many rows it has; the batch ends at the first ticket that does not fit.
* A batch that is not full may linger, until its oldest ticket has waited `max_delay_ns`, and only while nothing
  else could run instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from predictd.server.transport.records import Records, TicketFlag

Indices = npt.NDArray[np.intp]
_NONE: Indices = np.empty(0, np.intp)
_UNMERGEABLE = int(TicketFlag.ALONE)


@dataclass(frozen=True, slots=True)
class LaneRules:
    """How a lane batches: `batches` False runs every ticket alone."""

    max_batch_size: int
    max_delay_ns: int
    batches: bool


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Indices into the window.

    Attributes:
        take: Tickets of the batch, in order; empty when nothing can run now.
        expired: Past their deadline.
        cancelled: Given up by their client.
        probes: Probes with no older ticket of their frontend and priority left in the window.
        leave: Everything else, in order.
        wait_until_ns: When a lingering batch runs at the latest; 0 when there is nothing to wait for.
    """

    take: Indices
    expired: Indices
    cancelled: Indices
    probes: Indices
    leave: Indices
    wait_until_ns: int = 0


def plan_batch(
    window: Records,
    cancelled: npt.NDArray[np.bool_],
    now_ns: int,
    rules: Mapping[int, LaneRules],
    spent_ns: Mapping[int, int],
) -> BatchPlan:
    """Decide the next batch.

    Args:
        window: Tickets in the order of arrival within each priority.
        cancelled: For each, whether its client gave up.
        now_ns: CLOCK_MONOTONIC.
        rules: Of every lane that appears in the window.
        spent_ns: Compute time that each lane has had; a lane that is missing has had none.
    """
    is_probe = (window["flags"] & int(TicketFlag.PROBE)) != 0
    expired = (window["deadline_ns"] <= now_ns) & ~cancelled & ~is_probe
    gone = cancelled | expired | is_probe
    alive = np.flatnonzero(~gone) if gone.any() else np.arange(len(window))
    take, wait_until_ns = _choose(window, alive, now_ns, rules, spent_ns)
    if wait_until_ns:
        take = _NONE
    probes = _answerable_probes(window, is_probe, alive, take) if is_probe.any() else _NONE
    left = np.ones(len(window), bool)
    if gone.any():
        left[expired | cancelled] = False
    left[take] = False
    left[probes] = False
    return BatchPlan(
        take, np.flatnonzero(expired), np.flatnonzero(cancelled), probes, np.flatnonzero(left), wait_until_ns
    )


def _choose(
    window: Records, alive: Indices, now_ns: int, rules: Mapping[int, LaneRules], spent_ns: Mapping[int, int]
) -> tuple[Indices, int]:
    """The batch among the living tickets, and until when it may still grow (0: run it now)."""
    if not len(alive):
        return _NONE, 0
    head = _head(window, alive, spent_ns)
    ticket = window[head]
    lane = rules[int(ticket["lane"])]
    alone = not lane.batches or bool(ticket["flags"] & _UNMERGEABLE)
    if alone or ticket["rows"] >= lane.max_batch_size:
        return np.array([head], np.intp), 0
    tickets = window[alive]
    same = (
        (tickets["shape_key"] == ticket["shape_key"])
        & (tickets["lane"] == ticket["lane"])
        & (tickets["priority"] >= ticket["priority"])
        & ((tickets["flags"] & _UNMERGEABLE) == 0)
    )
    group = alive if same.all() else alive[same]
    if not (tickets["priority"] == ticket["priority"]).all():
        group = group[np.argsort(window["priority"][group], kind="stable")]
    rows = np.cumsum(window["rows"][group])
    fitting = int(np.searchsorted(rows, lane.max_batch_size, side="right"))
    take = group[:fitting]
    wait_until_ns = int(window["enqueued_ns"][take].min()) + lane.max_delay_ns
    may_grow = fitting == len(group) and rows[-1] < lane.max_batch_size and len(group) == len(alive)
    return take, wait_until_ns if lane.max_delay_ns and may_grow and now_ns < wait_until_ns else 0


def _head(window: Records, alive: Indices, spent_ns: Mapping[int, int]) -> int:
    """The ticket that must run next."""
    priorities = window["priority"][alive]
    urgent = alive if (priorities == priorities[0]).all() else alive[priorities == priorities.min()]
    lanes = window["lane"][urgent]
    first = int(lanes[0])
    if (lanes == first).all():
        return int(urgent[0])
    present, positions = np.unique(lanes, return_index=True)
    turns = sorted(
        (spent_ns.get(int(lane), 0), int(position)) for lane, position in zip(present, positions, strict=True)
    )
    return int(urgent[turns[0][1]])


def _answerable_probes(
    window: Records, is_probe: npt.NDArray[np.bool_], alive: Indices, take: Indices
) -> Indices:
    """Probes that no older living ticket of the same frontend and priority stands before, this batch taken."""
    staying = np.setdiff1d(alive, take)
    found = []
    for probe in np.flatnonzero(is_probe):
        older = staying[staying < probe]
        same = (window["frontend"][older] == window["frontend"][probe]) & (
            window["priority"][older] == window["priority"][probe]
        )
        if not same.any():
            found.append(int(probe))
    return np.array(found, np.intp)
