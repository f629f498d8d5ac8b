"""What the plan is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from predictd.server.launch.facilities import Facilities
from predictd.server.launch.sandbox.confinement import Confinement, SandboxRequest, User

DEFAULT_CPU_WEIGHT = 100


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """A pool of identical workers.

    Attributes:
        name: Of the pool.
        instances: Workers; None lets the plan decide.
        threads: Threads of one run; None lets the plan decide.
        shared: The pool hosts the lanes of many models, each with an engine and engine threads of its own.
        engines: Of its lanes; an empty set says that they may be any.
        own_engine: One of them is none of ours.
        allocator: That its workers shall have; None lets the plan decide.
        openmp: OpenMP runtime that its workers shall have; None is whichever the engine brings.
        spin: Threads that wait for each other within a run may spin; None lets the plan decide.
        cpu_weight: Its share of the CPUs beside the weights of the other pools; None has no opinion.
        origins: Where the numbers above come from, by the name of the attribute.
    """

    name: str
    instances: int | None = None
    threads: int | None = None
    shared: bool = False
    engines: frozenset[str] = frozenset()
    own_engine: bool = False
    allocator: str | None = None
    openmp: str | None = None
    spin: bool | None = None
    cpu_weight: int | None = None
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def asked(self, name: str) -> str:
        """The end of a reason: that a number was asked for, and where."""
        return as_asked(self.origins, name)


@dataclass(frozen=True, slots=True)
class RunningPool:
    """A pool that runs already and goes on beside those to plan; it stays where it is.

    Attributes:
        request: What it was asked to be.
        cpus: Where its workers run.
    """

    request: PoolRequest
    cpus: frozenset[int]


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the user asked for.

    Attributes:
        pools: Each with a name of its own.
        frontends: Front-end processes; None lets the plan decide.
        environment: The variables that the user exported.
        facilities: What the system has.
        warnings: What was found wrong with the request before.
        beside: Pools that run already.
        origins: Where the number of front ends comes from, by its name.
        carrier: What carries the connections, and why.
        sandbox: What workers shall be kept from.
    """

    pools: tuple[PoolRequest, ...]
    frontends: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    facilities: Facilities = field(default_factory=Facilities)
    warnings: tuple[str, ...] = ()
    beside: tuple[RunningPool, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    carrier: str = ""
    sandbox: SandboxRequest = field(default_factory=SandboxRequest)

    @property
    def everyone(self) -> tuple[PoolRequest, ...]:
        """All pools that want CPUs, in an order that does not depend on which of them run already."""
        pools = (*self.pools, *(running.request for running in self.beside))
        # What follows "~" only tells a pool from one that it replaces.
        return tuple(sorted(pools, key=lambda pool: (pool.name.partition("~")[0], pool.name)))


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """One process.

    Attributes:
        cpus: Its affinity mask, ascending.
        threads: Threads that compute at once.
        owns_cores: It is a worker, and no other worker of any pool is allowed on its CPUs.
        spin: Threads that wait for each other within a run may spin.
        environment: The variables that the plan decides, over what the supervisor inherited.
        reasons: Why all that.
        numa_nodes: Memory nodes that it prefers; none leaves its memory where its CPUs are.
        confinement: What it keeps itself from; None for nothing.
        user: Who it is; None for whoever the supervisor is.
    """

    cpus: tuple[int, ...]
    threads: int
    owns_cores: bool
    spin: bool
    environment: Mapping[str, str]
    reasons: tuple[str, ...]
    numa_nodes: tuple[int, ...] = ()
    confinement: Confinement | None = None
    user: User | None = None


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """All children.

    Attributes:
        frontends: One each.
        pools: For each pool its workers.
        reasons: Why so many.
        warnings: What the user asked for and should think over, and what of the machine costs time.
    """

    frontends: tuple[ChildPlan, ...]
    pools: Mapping[str, tuple[ChildPlan, ...]]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def workers(self) -> Iterator[ChildPlan]:
        """The workers of all pools."""
        for workers in self.pools.values():
            yield from workers


@dataclass(frozen=True, slots=True)
class Choice:
    """A number, and why."""

    value: int
    reason: str
    warning: str = ""


def check(request: PlanRequest) -> None:
    """Raise ValueError for a number below 1, and where two pools have one name."""
    names = [pool.name for pool in request.everyone]
    if len(set(names)) != len(names):
        raise ValueError(f"two pools have one name: {', '.join(names)}")
    numbers = {"frontends": request.frontends}
    for pool in request.pools:
        for name in ("instances", "threads", "cpu_weight"):
            numbers[f"{name} of {pool.name}"] = getattr(pool, name)
    for what, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{what} must be at least 1, not {number}")


def as_asked(origins: Mapping[str, str], name: str) -> str:
    """The end of a reason: that a number was asked for, and where."""
    return f"as {origins[name]} says" if name in origins else "as asked"


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
