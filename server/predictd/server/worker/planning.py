"""Which of the waiting tickets run now: a pure decision over a window of tickets.

The window holds what the leader has read: first the carry, then the queues by priority, so it is in the order of
arrival within each priority. Rules:

* Expired and cancelled tickets, and those of lanes that are not served here, are dropped before anything else; so are
  those that could not be answered in time even by a run of their own that began now.
* The highest priority present is served first. Among the lanes that have such tickets, the one whose runs took
  the least compute time so far goes next; among equals the one that waits longest.
* A batch holds tickets of one lane and one shape, in their order within each priority, up to the lane's limit of
  rows. The first of them is always taken, however many rows it has; the batch ends at the first ticket that does
  not fit or must run alone. A ticket without rows counts as one.
* Where a lane prefers sizes, its batch ends earlier: where it has the most rows that are a preferred size exactly.
  Such a batch runs at once. When the waiting tickets, taken in order, add up to none of the sizes, none is kept to.
* A batch that would take too long for some of its tickets ends earlier: where all are in time if the rest runs next,
  else where it answers most of them in time for the time that it takes.
* A batch that is not full, nor of a preferred size, may linger while more tickets can be read and nothing else could
  run instead, until one of its tickets has waited `max_delay_ns`, or half of the time that its deadline leaves it,
  or until a full batch would no longer be in time. With preferred sizes, one beyond the largest of them is full.

Most windows are uniform: tickets alike in all that matters. For them the rules come down to counting, which takes
a fifth of the time; a property test holds both ways against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from predictd.server.transport.records import NO_DEADLINE_NS, Records, Ticket, TicketFlag, agree

Indices = npt.NDArray[np.intp]
Selection = Indices | slice

_ALONE = int(TicketFlag.ALONE)
_PROBE = int(TicketFlag.PROBE)
_PATIENCE = int(TicketFlag.PATIENCE)


def _nothing_expected(rows: int, now_ns: int) -> int:  # noqa: ARG001 - the signature of RunTimes.expected_ns
    return 0


@dataclass(frozen=True, slots=True)
class LaneRules:
    """How a lane batches.

    Attributes:
        max_batch_size: Rows of a batch at most.
        max_delay_ns: How long a batch may linger.
        batches: False runs every ticket alone.
        preferred: Sizes that a batch shall have if it can, ascending, none above `max_batch_size`.
        expected_ns: What a run of so many rows is expected to take now; 0 while nothing is known.
    """

    max_batch_size: int
    max_delay_ns: int
    batches: bool
    preferred: tuple[int, ...] = ()
    expected_ns: Callable[[int, int], int] = _nothing_expected

    @property
    def full(self) -> int:
        """Rows that are worth no wait for more."""
        return self.preferred[-1] if self.preferred else self.max_batch_size


@dataclass(slots=True)
class Shares:
    """The compute time that each lane has had, by which lanes take turns.

    A lane without work saves nothing up: back again, it stands where the lane that was served last stood, or it
    would shut all others out until it had caught up.
    """

    _spent_ns: dict[int, int] = field(default_factory=dict)
    _floor_ns: int = 0

    def spent_ns(self, lane: int) -> int:
        """What counts when lanes are compared."""
        return max(self._spent_ns.get(lane, 0), self._floor_ns)

    def charge(self, lane: int, compute_ns: int) -> None:
        """A lane was served."""
        self._floor_ns = self.spent_ns(lane)
        self._spent_ns[lane] = self._floor_ns + compute_ns

    def forget(self, lane: int) -> None:
        """A lane is served no more."""
        self._spent_ns.pop(lane, None)


@dataclass(frozen=True, slots=True)
class Drops:
    """Tickets that are completed without a run.

    Attributes:
        expired: Past their deadline.
        hopeless: Before their deadline, which is too near for a run.
        cancelled: Given up by their client.
        unknown: Of lanes that are not served here.
        probes: Probes with no older ticket of their frontend and priority left in the window.
    """

    expired: Indices
    hopeless: Indices
    cancelled: Indices
    unknown: Indices
    probes: Indices


class BatchPlan(NamedTuple):
    """Which tickets of the window go where. Every ticket is in exactly one of the selections.

    Attributes:
        take: Tickets of the batch, in order; empty when nothing can run now.
        leave: Tickets that wait on, in order.
        drops: The others; None when there are none.
        uniform: The batch's tickets have equal rows and bytes.
        wait_until_ns: When a lingering batch runs at the latest; 0 when there is nothing to wait for.
    """

    take: Selection
    leave: Selection
    drops: Drops | None = None
    uniform: bool = False
    wait_until_ns: int = 0


def plan_batch(
    window: Records,
    cancelled: npt.NDArray[np.bool_],
    now_ns: int,
    rules: Mapping[int, LaneRules],
    shares: Shares,
    *,
    room: bool = True,
) -> BatchPlan:
    """Decide the next batch.

    Args:
        window: Tickets in the order of arrival within each priority; not empty.
        cancelled: For each, whether its client gave up.
        now_ns: CLOCK_MONOTONIC.
        rules: Of every lane that is served here.
        shares: Compute time that each lane has had.
        room: More tickets can be read, so waiting for them makes sense.
    """
    if not np.count_nonzero(cancelled) and is_uniform(window):
        first = Ticket.unpack(window[0].tobytes())
        lane = rules.get(first.lane)
        if lane is not None and not first.flags & _PROBE and _all_in_time(window, first, now_ns, lane):
            return _plan_uniform(window, first, now_ns, lane, room=room)
    return plan_mixed(window, cancelled, now_ns, rules, shares, room=room)


def is_uniform(window: Records) -> bool:
    """Whether all tickets agree in lane, shape, rows, bytes, priority and flags."""
    return agree(window, 1, 4)


def _all_in_time(window: Records, first: Ticket, now_ns: int, lane: LaneRules) -> bool:
    """Whether any batch of a uniform window would be in time for all of it."""
    soonest_ns = int(np.minimum.reduce(window["deadline_ns"]))
    if soonest_ns == NO_DEADLINE_NS:
        return True
    largest = max(first.rows, min(lane.max_batch_size, first.rows * len(window)))
    return soonest_ns > now_ns + lane.expected_ns(largest, now_ns)


def _plan_uniform(window: Records, first: Ticket, now_ns: int, lane: LaneRules, *, room: bool) -> BatchPlan:
    waiting = len(window)
    rows = max(first.rows, 1)
    alone = bool(first.flags & _ALONE) or not lane.batches
    fitting = 1 if alone else max(1, lane.max_batch_size // rows)
    preferred = 0
    if lane.preferred and not alone:
        there = min(fitting, waiting) * rows
        preferred = max((size for size in lane.preferred if size <= there and size % rows == 0), default=0)
    if preferred:
        fitting = preferred // rows
    elif lane.max_delay_ns and room and not alone and waiting * rows < lane.full:
        wait_until_ns = _linger_end_ns(window, now_ns, lane)
        if now_ns < wait_until_ns:
            return BatchPlan(slice(0, 0), slice(0, waiting), wait_until_ns=wait_until_ns)
    return BatchPlan(slice(0, fitting), slice(min(fitting, waiting), waiting), uniform=True)


def plan_mixed(
    window: Records,
    cancelled: npt.NDArray[np.bool_],
    now_ns: int,
    rules: Mapping[int, LaneRules],
    shares: Shares,
    *,
    room: bool = True,
) -> BatchPlan:
    """The rules in full, for any window."""
    is_probe = (window["flags"] & _PROBE) != 0
    unknown = ~np.isin(window["lane"], list(rules)) & ~is_probe & ~cancelled
    expired = (window["deadline_ns"] <= now_ns) & ~(cancelled | is_probe | unknown)
    hopeless = _hopeless(window, now_ns, rules) & ~(cancelled | is_probe | unknown | expired)
    alive = np.flatnonzero(~(cancelled | expired | hopeless | unknown | is_probe))
    take, may_grow = _choose(window, alive, rules, shares)
    whole = len(take)
    take = _in_time(window, take, now_ns, rules)
    wait_until_ns = 0
    if may_grow and room and len(take) == whole:
        wait_until_ns = _linger_end_ns(window[take], now_ns, rules[int(window[take[0]]["lane"])])
        wait_until_ns = wait_until_ns if now_ns < wait_until_ns else 0
    if wait_until_ns:
        take = alive[:0]
    probes = _answerable_probes(window, is_probe & ~cancelled, alive, take)
    left = ~(cancelled | expired | hopeless | unknown)
    left[take] = False
    left[probes] = False
    return BatchPlan(
        take=take,
        leave=np.flatnonzero(left),
        drops=None
        if len(take) + np.count_nonzero(left) == len(window)
        else Drops(
            np.flatnonzero(expired),
            np.flatnonzero(hopeless),
            np.flatnonzero(cancelled),
            np.flatnonzero(unknown),
            probes,
        ),
        uniform=bool(len(take)) and is_uniform(window[take]),
        wait_until_ns=wait_until_ns,
    )


def _must_be_answered_by_ns(tickets: Records) -> npt.NDArray[np.int64]:
    """Deadlines of answers: patience is for the queue alone, and ends with the claim."""
    deadlines: npt.NDArray[np.int64] = np.where(
        tickets["flags"] & _PATIENCE, NO_DEADLINE_NS, tickets["deadline_ns"]
    )
    return deadlines


def _hopeless(window: Records, now_ns: int, rules: Mapping[int, LaneRules]) -> npt.NDArray[np.bool_]:
    """Tickets that a run of their own would be too late for."""
    hopeless = np.zeros(len(window), np.bool_)
    timed = np.flatnonzero(_must_be_answered_by_ns(window) != NO_DEADLINE_NS)
    if not len(timed):
        return hopeless
    sizes = np.stack((window["lane"][timed], window["rows"][timed]), axis=1)
    for lane, rows in np.unique(sizes, axis=0):
        if (rule := rules.get(int(lane))) is not None:
            same = timed[(sizes == (lane, rows)).all(axis=1)]
            hopeless[same] = window["deadline_ns"][same] <= now_ns + rule.expected_ns(int(rows), now_ns)
    return hopeless


def _in_time(window: Records, take: Indices, now_ns: int, rules: Mapping[int, LaneRules]) -> Indices:
    """As much of a batch as loses nobody if the rest runs next, else what answers most in time for its time."""
    if len(take) < 2:
        return take
    lane = rules[int(window["lane"][take[0]])]
    by_ns = _must_be_answered_by_ns(window[take])
    rows = np.cumsum(np.maximum(window["rows"][take], 1))
    if by_ns.min() > now_ns + lane.expected_ns(int(rows[-1]), now_ns):
        return take
    best, best_rate = len(take), 0.0
    for size in sorted({len(take) >> shift or 1 for shift in range(len(take).bit_length())}, reverse=True):
        run_ns = lane.expected_ns(int(rows[size - 1]), now_ns)
        rest_ns = lane.expected_ns(int(rows[-1] - rows[size - 1]), now_ns)
        answered = np.count_nonzero(by_ns[:size] > now_ns + run_ns)
        later = np.count_nonzero(by_ns[size:] > now_ns + run_ns + rest_ns)
        if answered + later == len(take):
            return take[:size]
        rate = answered / max(run_ns, 1)
        if rate > best_rate:
            best, best_rate = size, rate
    return take[:best]


def _choose(
    window: Records, alive: Indices, rules: Mapping[int, LaneRules], shares: Shares
) -> tuple[Indices, bool]:
    """The batch among the living tickets, and whether its lane would let it linger."""
    if not len(alive):
        return alive, False
    head = _head(window, alive, shares)
    ticket = window[head]
    lane = rules[int(ticket["lane"])]
    alone = not lane.batches or bool(ticket["flags"] & _ALONE)
    if alone or ticket["rows"] >= lane.max_batch_size:
        return np.array([head], np.intp), False
    tickets = window[alive]
    group = alive[(tickets["shape_key"] == ticket["shape_key"]) & (tickets["lane"] == ticket["lane"])]
    group = group[np.argsort(window["priority"][group], kind="stable")]
    alone_in_group = (window["flags"][group] & _ALONE) != 0
    if alone_in_group.any():
        group = group[: int(alone_in_group.argmax())]
    rows = np.cumsum(np.maximum(window["rows"][group], 1))
    fitting = int(np.searchsorted(rows, lane.max_batch_size, side="right"))
    if lane.preferred:
        preferred = np.flatnonzero(np.isin(rows[:fitting], lane.preferred))
        if len(preferred):
            return group[: int(preferred[-1]) + 1], False
    return group[:fitting], fitting == len(alive) and bool(lane.max_delay_ns) and rows[-1] < lane.full


def _linger_end_ns(tickets: Records, now_ns: int, lane: LaneRules) -> int:
    """Until when a batch of these may wait for more, and still be in time once it is full."""
    came_ns = tickets["enqueued_ns"]
    if int(came_ns.min()) < 0 or int(came_ns.max()) > now_ns:
        # A front end that says so is broken, and there is no telling how long its request has waited.
        return now_ns
    left_ns = (tickets["deadline_ns"] - came_ns) // 2
    end_ns = int((came_ns + np.minimum(left_ns, lane.max_delay_ns)).min())
    start_by_ns = int(_must_be_answered_by_ns(tickets).min()) - lane.expected_ns(lane.full, now_ns)
    return min(end_ns, start_by_ns)


def _head(window: Records, alive: Indices, shares: Shares) -> int:
    """The ticket that must run next."""
    priorities = window["priority"][alive]
    urgent = alive[priorities == priorities.min()]
    lanes, positions = np.unique(window["lane"][urgent], return_index=True)
    turns = [
        (shares.spent_ns(int(lane)), int(position)) for lane, position in zip(lanes, positions, strict=True)
    ]
    return int(urgent[min(turns)[1]])


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
