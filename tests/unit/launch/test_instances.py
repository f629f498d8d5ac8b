"""No more workers than there is memory for, and a reason for each that is not there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.launch.instances import WORKER_BYTES, Fitted, Memory, PoolMemory, fit

MIB = 1 << 20
GIB = 1 << 30
LIMIT = "/app/memory.max"

POOLS = st.lists(
    st.builds(PoolMemory, st.text("ab", min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 4 * GIB)),
    max_size=6,
    unique_by=lambda pool: pool.name,
)


def need(weights_mib: int, workers: int) -> int:
    return PoolMemory("x", 1, weights_mib * MIB).worker_bytes * workers


def one(instances: int, weights_mib: int, left: int) -> Fitted:
    return fit([PoolMemory("p", instances, weights_mib * MIB)], Memory(left, LIMIT))["p"]


def test_what_fits_is_as_asked() -> None:
    assert one(4, 100, need(100, 4)) == Fitted(4)
    assert one(1, 0, WORKER_BYTES) == Fitted(1)


def test_what_does_not_fit_is_fewer_and_says_why() -> None:
    assert one(4, 100, need(100, 4) - 1) == Fitted(
        3,
        "pool p: 3 instead of the 4 workers asked for, as a worker takes about 314 MiB and /app/memory.max leaves "
        "313 MiB for more",
    )


def test_a_pool_has_one_worker_even_when_there_is_no_room_for_it() -> None:
    assert one(1, 1000, GIB) == Fitted(
        1, "pool p: a worker takes about 2564 MiB and /app/memory.max leaves 1024 MiB: tried all the same"
    )
    assert one(2, 1000, -5).instances == 1
    assert one(2, 1000, -5).warning == (
        "pool p: a worker takes about 2564 MiB and /app/memory.max leaves 0 MiB: tried all the same; pool p: 1 instead "
        "of the 2 workers asked for, as a worker takes about 2564 MiB and /app/memory.max leaves 0 MiB for more"
    )


def test_pools_get_further_workers_in_turn() -> None:
    pools = [PoolMemory(name, 3, 100 * MIB) for name in "ab"]
    fitted = fit(pools, Memory(need(100, 5), LIMIT))
    assert {name: fit.instances for name, fit in fitted.items()} == {"a": 3, "b": 2}


def test_a_large_pool_does_not_take_the_room_of_a_small_one() -> None:
    pools = [PoolMemory("large", 2, 1000 * MIB), PoolMemory("small", 4, 10 * MIB)]
    fitted = fit(pools, Memory(need(1000, 1) + need(10, 4), LIMIT))
    assert {name: fit.instances for name, fit in fitted.items()} == {"large": 1, "small": 4}


@given(POOLS, st.integers(-GIB, 40 * GIB))
def test_every_pool_has_a_worker_and_all_further_ones_fit(pools: list[PoolMemory], left: int) -> None:
    fitted = fit(pools, Memory(left, LIMIT))
    taken = sum(fitted[pool.name].instances * pool.worker_bytes for pool in pools)
    assert taken <= left or all(one.instances == 1 for one in fitted.values())
    for pool in pools:
        got = fitted[pool.name]
        assert 1 <= got.instances <= pool.instances
        if got.instances < pool.instances:
            assert taken + pool.worker_bytes > left, "none is left out for nothing"
            assert "instead of" in got.warning
        elif taken <= left:
            assert got.warning == ""
