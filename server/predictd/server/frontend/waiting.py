"""The rules of waiting: which queue a request goes to, how long it may wait there and with how many others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from predictd.server.config.lane import LaneConfig, QueueRules
from predictd.server.frontend.expectation import Expectation

# What was asked for within this time may be asked for again.
LIKELY_NS = 10 * 10**9


@dataclass(slots=True, eq=False)
class LaneQueue:
    """Requests of one lane and priority, as this front end knows them.

    Attributes:
        level: The priority, from 1.
        rules: What the model says of it.
        out: Requests of this front end that have a ticket out and whose clients wait, running ones among them.
        out_bytes: Of their blocks.
        expectation: How long they wait.
        asked_ns: When a request last came for this queue.
    """

    level: int
    rules: QueueRules
    out: int = 0
    out_bytes: int = 0
    expectation: Expectation = field(default_factory=Expectation)
    asked_ns: int = -LIKELY_NS

    def patience_ns(self, asked_ns: int) -> int:
        """How long a request may wait in its queue; 0 as long as it takes.

        Args:
            asked_ns: What the request itself asks for, 0 for nothing.
        """
        rules = self.rules
        if not rules.timeout_ns:
            return asked_ns if rules.delay else 0
        shorter = rules.timeout_override and 0 < asked_ns < rules.timeout_ns
        return asked_ns if shorter else rules.timeout_ns

    def answer_within_ns(self, asked_ns: int) -> int:
        """How long a request may wait for its answer, its run included; 0 as long as it takes.

        A model that says nothing of time-outs leaves them to the client, who means the answer.
        """
        return 0 if self.rules.timeout_ns or self.rules.delay else asked_ns


class LaneQueues:
    """The queues of a lane by priority."""

    def __init__(self, config: LaneConfig) -> None:
        self._own_levels = config.priority_levels > 0
        self._queues = [LaneQueue(level, rules) for level, rules in enumerate(config.queue_rules, 1)]
        self._default = self._queues[config.default_priority - 1]

    def of(self, priority: int) -> LaneQueue:
        """The queue for a request of a priority, 0 for the default.

        Beyond the levels that a model has of its own is the default, too, as it is with Triton.
        """
        if 1 <= priority <= len(self._queues):
            return self._queues[priority - 1]
        return self._default if self._own_levels or priority == 0 else self._queues[-1]

    def likely(self, now_ns: int) -> Sequence[LaneQueue]:
        """Those that a request of unknown priority may be for: the default, and those that were asked for lately."""
        return [
            queue for queue in self._queues if queue is self._default or now_ns - queue.asked_ns < LIKELY_NS
        ]
