"""How many workers there is memory for: an estimate, made before they start, as what takes too much is killed.

Each pool gets one worker, whatever it takes: whether it fits is known only once it was tried. Further ones are given in
turn, to one pool after the other, while what they are expected to take is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What a worker takes of its own before it has loaded anything: interpreter, NumPy, the engine's runtime.
WORKER_BYTES = 64 << 20
# An engine holds weights as they were read and in the form that it computes with (measured: 80 MB for 32 MB).
WEIGHTS_FACTOR = 2.5
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What is known of a pool's needs.

    Attributes:
        name: Of the pool.
        instances: Workers that were asked for.
        weights_bytes: The files of all models that each of them loads.
    """

    name: str
    instances: int
    weights_bytes: int

    @property
    def worker_bytes(self) -> int:
        """What one worker is expected to take."""
        return WORKER_BYTES + int(WEIGHTS_FACTOR * self.weights_bytes)


@dataclass(frozen=True, slots=True)
class Memory:
    """What there is.

    Attributes:
        bytes: That workers may take.
        limited_by: Where that limit stands.
    """

    bytes: int
    limited_by: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """How many workers a pool gets.

    Attributes:
        instances: At least 1, at most what was asked for.
        warning: Why they are fewer, or that even one may be too much; empty when all is well.
    """

    instances: int
    warning: str = ""


def fit(pools: Sequence[PoolMemory], memory: Memory) -> Mapping[str, Fitted]:
    """The workers of each pool.

    Args:
        pools: Those that start together.
        memory: That they share.
    """
    left = memory.bytes
    granted: dict[str, int] = {}
    alone: dict[str, str] = {}
    for pool in pools:
        granted[pool.name] = 1
        if pool.worker_bytes > left:
            alone[pool.name] = (
                f"{_need(pool)} and {memory.limited_by} leaves {_mib(max(left, 0))}: tried all the same"
            )
        left -= pool.worker_bytes
    for round_ in range(2, max((pool.instances for pool in pools), default=1) + 1):
        for pool in pools:
            # One that got none in the round before gets none in this: the workers of others leave no more.
            next_one = granted[pool.name] == round_ - 1 and round_ <= pool.instances
            if next_one and pool.worker_bytes <= left:
                granted[pool.name] = round_
                left -= pool.worker_bytes
    return {
        pool.name: _fitted(pool, granted[pool.name], alone.get(pool.name, ""), memory, left) for pool in pools
    }


def _fitted(pool: PoolMemory, instances: int, alone: str, memory: Memory, left: int) -> Fitted:
    warnings = [f"pool {pool.name}: {alone}"] if alone else []
    if instances < pool.instances:
        fewer = f"{instances} instead of the {pool.instances} workers asked for"
        room = f"{memory.limited_by} leaves {_mib(max(left, 0))} for more"
        warnings.append(f"pool {pool.name}: {fewer}, as {_need(pool)} and {room}")
    return Fitted(instances, "; ".join(warnings))


def _need(pool: PoolMemory) -> str:
    return f"a worker takes about {_mib(pool.worker_bytes)}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes // _MIB} MiB"
