"""Random mixes of requests: each is answered exactly once, with its own bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from predictd.engines.api import DType, InvalidInputError, TensorSpec
from predictd.server.transport.records import NO_DEADLINE_NS, Status, TicketFlag
from predictd.server.worker.runner import LoadedLane
from tests.unit.worker.harness import Answer, FakeFrontend, running
from tests.unit.worker.lanes import Array, double, doubling_lane, make_lane

POISON = -1.0


def picky(inputs: Sequence[Array | None]) -> list[Array]:
    """Doubles, and refuses a batch with poison in it."""
    assert inputs[0] is not None
    if (inputs[0] == POISON).any():
        raise InvalidInputError("poison")
    return double(inputs)


def reverse(inputs: Sequence[Array | None]) -> list[Array]:
    """Every string backwards, and how many bytes a row has."""
    assert inputs[0] is not None
    result = np.empty(inputs[0].shape, object)
    for at, element in np.ndenumerate(inputs[0]):
        result[at] = element[::-1]
    return [result, np.array([sum(map(len, row)) for row in inputs[0]], np.int64)]


def sums(inputs: Sequence[Array | None]) -> list[Array]:
    """One number, however many rows there are."""
    assert inputs[0] is not None
    return [np.array([inputs[0].sum()], np.float32)]


def lanes(random: Random) -> list[LoadedLane]:
    x, y = TensorSpec("x", DType.FP32, (-1, -1)), TensorSpec("y", DType.FP32, (-1, -1))
    limit = random.choice([1, 3, 8, 100])
    strings = [TensorSpec("reversed", DType.BYTES, (-1, 2)), TensorSpec("length", DType.INT64, (-1,))]
    return [
        doubling_lane(1, max_batch_size=limit, uses_out=random.random() < 0.5),
        make_lane(2, [x], [y], picky, max_batch_size=limit, max_rows=random.choice([None, 2])),
        make_lane(3, [TensorSpec("text", DType.BYTES, (-1, 2))], strings, reverse, max_batch_size=limit),
        make_lane(4, [x], [TensorSpec("sum", DType.FP32, (1,))], sums, batches=False),
        doubling_lane(5, width=5000, max_batch_size=limit),
    ]


def an_input(random: Random, lane: int) -> Array:
    rows = random.choice([0, 1, 1, 1, 2, 5])
    if lane == 3:
        result = np.empty((rows, 2), object)
        for at in np.ndindex(result.shape):
            result[at] = random.randbytes(random.choice([0, 1, 30]))
        return result
    width = {1: 3, 5: 5000}.get(lane) or random.choice([0, 1, 4])
    values = np.array([random.randrange(1000) for _ in range(rows * min(width, 4))], np.float32)
    result = np.resize(values, (rows, width)) if values.size else np.zeros((rows, width), np.float32)
    if lane == 2 and result.size and random.random() < 0.2:
        result[0, 0] = POISON
    return result


def check(answer: Answer, lane: int, given_input: Array) -> None:
    """The answer is what a run of this input alone would have given."""
    if lane == 2 and given_input.size and given_input.flat[0] == POISON:
        assert (answer.status, answer.error) == (Status.INVALID_INPUT, "poison")
        return
    assert answer.status == Status.OK
    compute = {3: reverse, 4: sums}.get(lane, double)
    for found, expected in zip(answer.outputs, compute([given_input]), strict=True):
        assert found.shape == expected.shape
        assert found.tolist() == expected.tolist()


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(1, 100))
def test_every_request_is_answered_once_with_its_own_bytes(seed: int, count: int) -> None:
    random = Random(seed)
    known = lanes(random)
    with running(*known) as worker:
        asked: dict[tuple[int, int], tuple[int, Array, Status | None]] = {}
        answers: dict[tuple[int, int], Answer] = {}
        popular = random.sample(known, random.randint(1, len(known)))

        def collect(frontend: FakeFrontend) -> None:
            for answer in frontend.answers(release=random.random() < 0.9):
                assert (frontend.id, answer.slot) not in answers
                assert frontend.sent[answer.slot, answer.generation].slot == answer.slot
                answers[frontend.id, answer.slot] = answer

        for _ in range(count):
            frontend = worker.frontend(random.choice([1, 1, 2]))
            lane = random.choice(popular)
            value = an_input(random, lane.config.lane)
            fate = random.choice([None] * 8 + [Status.CANCELLED, Status.EXPIRED, Status.UNKNOWN_LANE])
            sent = frontend.request(
                lane,
                value,
                flags=int(random.choice([0] * 9 + [TicketFlag.ALONE])),
                priority=(level := random.choice([2, 2, 1, 3])),
                deadline_ns=time.monotonic_ns() if fate is Status.EXPIRED else NO_DEADLINE_NS,
                lane_id=99 if fate is Status.UNKNOWN_LANE else None,
                new_segment=random.random() < 0.2,
            )
            if fate is Status.CANCELLED:
                frontend.cancel(sent)
            asked[frontend.id, sent.slot] = (lane.config.lane, value, fate)
            frontend.send(sent, level)
            if random.random() < 0.08:
                worker.step()
                collect(frontend)
        worker.serve()
        for frontend in worker.frontends.values():
            collect(frontend)
        assert set(answers) == set(asked)
        for key, (number, value, fate) in asked.items():
            if fate is not None:
                assert answers[key].status == fate
            else:
                check(answers[key], number, value)
        event(f"largest batch: {max((len(batch.tickets) for batch in worker.batches), default=0) // 3 * 3}")


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_the_order_within_a_shape_is_kept_through_the_carry(seed: int, count: int) -> None:
    random = Random(seed)
    known = [doubling_lane(number, max_batch_size=random.choice([1, 2, 5])) for number in (1, 2)]
    with running(*known) as worker:
        frontend = worker.frontend()
        for _ in range(count):
            lane = random.choice(known)
            level = random.choice([2, 2, 3])
            value = np.zeros((random.choice([1, 1, 2]), 3), np.float32)
            frontend.ask(lane, value, shape_key=random.choice([1, 2]), priority=level)
            if random.random() < 0.2:
                worker.step()
        worker.serve()
        seen: dict[tuple[int, ...], list[int]] = {}
        for batch in worker.batches:
            for ticket in batch.tickets:
                key = (int(ticket["lane"]), int(ticket["shape_key"]), int(ticket["priority"]))
                seen.setdefault(key, []).append(int(ticket["slot"]))
        assert sum(map(len, seen.values())) == count
        assert all(slots == sorted(slots) for slots in seen.values())
