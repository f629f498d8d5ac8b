from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from predictd.server.worker.efficiency import Efficiency

Cost = Callable[[int], float]


def settle(
    cost: Cost,
    waiting: int,
    *,
    largest: int = 32,
    runs: int = 2000,
    seed: int = 0,
    made: Efficiency | None = None,
) -> tuple[Efficiency, float]:
    """Serve a constant load on a machine that is disturbed, and give the mean batch of the last half."""
    noise = random.Random(seed)
    efficiency = made or Efficiency(largest)
    allowed, sizes = efficiency.limit, []
    for _ in range(runs):
        rows = min(allowed, waiting)
        disturbed = 1 + abs(noise.gauss(0, 0.01)) + 4 * (noise.random() < 0.03)
        allowed = efficiency.ran(rows, int(cost(rows) * disturbed))
        assert 1 <= efficiency.limit <= largest
        assert 1 <= allowed <= largest
        sizes.append(rows)
    return efficiency, sum(sizes[runs // 2 :]) / (runs - runs // 2)


def tiny(rows: int) -> float:
    """What a run costs is in starting it."""
    return 15e3 + 1e3 * rows


def spills(rows: int) -> float:
    """Four rows fit into the cache."""
    return 4e5 + 9e6 * rows * (1.0 if rows <= 4 else 1.12)


def wide(rows: int) -> float:
    """Sixteen rows cost what one does: a device that is idle in between."""
    return 50e6 * -(-rows // 16)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("cost", "waiting", "least", "most"),
    [(tiny, 32, 30, 32), (tiny, 8, 7, 8), (spills, 32, 2, 6), (spills, 16, 2, 6), (wide, 32, 14, 18)],
)
def test_batches_get_the_size_at_which_a_row_costs_least(
    cost: Cost, waiting: int, least: float, most: float, seed: int
) -> None:
    mean = settle(cost, waiting, seed=seed)[1]
    assert least <= mean <= most


def test_a_limit_that_is_no_power_of_two_is_tried_as_it_is() -> None:
    efficiency, mean = settle(tiny, 24, largest=24)
    assert efficiency.limit == 24
    assert mean > 22


def test_it_follows_when_the_costs_change() -> None:
    efficiency, small = settle(spills, 32)
    assert settle(tiny, 32, made=efficiency)[1] > 28 > small


def test_a_single_caller_changes_nothing() -> None:
    efficiency, mean = settle(tiny, 1)
    assert (efficiency.limit, mean) == (32, 1.0)


def test_a_request_beyond_the_limit_teaches_nothing() -> None:
    efficiency = Efficiency(4)
    assert [efficiency.ran(64, 1) for _ in range(10)] == [4] * 10


def test_a_limit_of_one_stays() -> None:
    assert settle(spills, 8, largest=1)[1] == 1.0


def test_sixteen_callers_who_divide_themselves_unevenly_are_served_in_the_best_size_all_the_same() -> None:
    efficiency = Efficiency(32)
    allowed, in_flight, sizes = 32, 0, []
    for _ in range(600):
        # Who was answered asks again while the next batch runs.
        rows = min(allowed, max(16 - in_flight, 1))
        in_flight = rows
        allowed = efficiency.ran(rows, int(spills(rows)))
        sizes.append(rows)
    assert efficiency.limit in (2, 4)
    assert sum(sizes[300:]) / 300 < 6
