"""Which queue a request goes to, and how long it may wait there."""

from __future__ import annotations

import pytest

from predictd.server.config.lane import QueueRules, pool_queues
from predictd.server.frontend.waiting import LaneQueue, LaneQueues
from tests.fixtures.frontend import config


def rules(**values: object) -> QueueRules:
    return QueueRules(**({"max_queue_size": 7} | values))  # type: ignore[arg-type]


def test_a_model_without_levels_has_three_and_takes_any_priority() -> None:
    queues = LaneQueues(config(max_queue_size=9))
    assert [queues.of(priority).level for priority in (0, 1, 2, 3, 4, 1 << 63)] == [2, 1, 2, 3, 3, 3]
    assert queues.of(1).rules == QueueRules(max_queue_size=9)


def test_beyond_levels_of_the_models_own_is_the_default() -> None:
    levels = tuple(rules(max_queue_size=size) for size in (1, 2, 3, 4, 5))
    queues = LaneQueues(config(priority_levels=5, default_priority=4, queues=levels))
    assert [queues.of(priority).level for priority in (0, 1, 2, 3, 4, 5, 6, 99)] == [4, 1, 2, 3, 4, 5, 4, 4]
    assert [queues.of(priority).rules for priority in range(1, 6)] == list(levels)


@pytest.mark.parametrize(
    ("one", "asked_ns", "patience_ns", "answer_within_ns"),
    [
        (rules(), 0, 0, 0),
        (rules(), 5, 0, 5),
        (rules(timeout_override=True), 5, 0, 5),
        (rules(timeout_ns=9), 0, 9, 0),
        (rules(timeout_ns=9), 5, 9, 0),
        (rules(timeout_ns=9, timeout_override=True), 0, 9, 0),
        (rules(timeout_ns=9, timeout_override=True), 5, 5, 0),
        (rules(timeout_ns=9, timeout_override=True), 10, 9, 0),
        (rules(delay=True), 0, 0, 0),
        (rules(delay=True), 5, 5, 0),
        (rules(timeout_ns=9, delay=True), 5, 9, 0),
    ],
)
def test_the_models_time_out_counts_and_the_clients_where_it_may(
    one: QueueRules, asked_ns: int, patience_ns: int, answer_within_ns: int
) -> None:
    queue = LaneQueue(1, one)
    assert (queue.patience_ns(asked_ns), queue.answer_within_ns(asked_ns)) == (patience_ns, answer_within_ns)


def test_a_pool_has_what_its_most_demanding_lane_needs() -> None:
    plain = config(max_queue_size=8)
    two = config(priority_levels=2, default_priority=1, queues=(rules(), rules(max_queue_size=10)))
    five = config(priority_levels=5, queues=(rules(),) * 5)
    delaying = config(priority_levels=2, default_priority=1, queues=(rules(), rules(delay=True)))
    assert pool_queues([plain]) == (8, 3)
    assert pool_queues([two]) == (10, 2)
    assert pool_queues([plain, two, five]) == (10, 5)
    assert pool_queues([delaying]) == (7, 3)
    assert pool_queues([plain, delaying]) == (8, 4)
