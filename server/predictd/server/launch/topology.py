"""Which CPUs the machine has, and what they share: a core, a cache, a package, a memory node; from `/sys`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from predictd.server.launch.cpulist import format_cpulist, parse_cpulist

Core = tuple[int, ...]
"""The CPUs of one core that may be used, ascending."""

_CPU = Path("sys/devices/system/cpu")
_NODE = Path("sys/devices/system/node")
_P_CORES = Path("sys/devices/cpu_core/cpus")
_STATUS = Path("proc/self/status")
# Cores of one kind differ by a few percent at most, as each is clocked as high as it can be.
_EFFICIENT_BELOW = 3 / 4


@dataclass(frozen=True, slots=True)
class Cpu:
    """A logical CPU.

    Attributes:
        id: Number of the CPU.
        core: The lowest CPU id among those that share its core, which names the core on the whole machine.
            The kernel's own `core_id` repeats from package to package.
        package: Socket.
        node: NUMA node of the nearest memory.
        l3: The lowest CPU id among those that share its L3 cache; 0 where that is not known.
        efficient: It is on one of the slow cores of a hybrid processor.
    """

    id: int
    core: int
    package: int = 0
    node: int = 0
    l3: int = 0
    efficient: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """The online CPUs of the machine.

    Attributes:
        cpus: Ascending by id.
        reasons: What could not be read, and what was assumed instead.
    """

    cpus: tuple[Cpu, ...]
    reasons: tuple[str, ...] = ()
    _known: Mapping[int, Cpu] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Asked for again and again when there are hundreds of pools; a frozen dataclass is set so.
        object.__setattr__(self, "_known", {cpu.id: cpu for cpu in self.cpus})

    @property
    def ids(self) -> tuple[int, ...]:
        """The online CPUs' ids, ascending."""
        return tuple(cpu.id for cpu in self.cpus)

    @property
    def nodes(self) -> tuple[int, ...]:
        """The NUMA nodes that have CPUs and memory, ascending."""
        return tuple(sorted({cpu.node for cpu in self.cpus}))

    def cores(self, cpus: Iterable[int]) -> tuple[Core, ...]:
        """Group CPUs by the core they belong to.

        Args:
            cpus: Ids. One that the topology does not know counts as a core of its own.

        Returns:
            For each core its CPUs among those given, ascending; cores of one node, then of one package, then of one
            cache stand together, slow cores last.
        """
        groups: dict[tuple[bool, int, int, int, int], list[int]] = {}
        for number in sorted(set(cpus)):
            cpu = self._known.get(number, Cpu(number, core=number))
            key = (cpu.efficient, cpu.node, cpu.package, cpu.l3, cpu.core)
            groups.setdefault(key, []).append(number)
        return tuple(tuple(groups[key]) for key in sorted(groups))

    def by_node(self, cores: Iterable[Core]) -> tuple[tuple[Core, ...], ...]:
        """Divide cores among their NUMA nodes."""

        def node(core: Core) -> int:
            return self._known.get(core[0], Cpu(core[0], core[0])).node

        # The order within a node stays.
        return tuple(tuple(group) for _, group in groupby(sorted(cores, key=node), node))

    def by_cache(self, cores: Iterable[Core]) -> tuple[tuple[Core, ...], ...]:
        """Divide the cores of one NUMA node among their L3 caches."""

        def cache(core: Core) -> tuple[int, int]:
            cpu = self._known.get(core[0], Cpu(core[0], core[0]))
            return cpu.package, cpu.l3

        return tuple(tuple(group) for _, group in groupby(sorted(cores, key=cache), cache))

    def efficient(self, core: Core) -> bool:
        """Whether a core is one of the slow ones of a hybrid processor."""
        cpu = self._known.get(core[0])
        return cpu is not None and cpu.efficient

    def nodes_of(self, cpus: Iterable[int]) -> tuple[int, ...]:
        """The NUMA nodes of some CPUs, ascending."""
        return tuple(sorted({self._known[cpu].node for cpu in cpus if cpu in self._known}))


def read_topology(affinity: Collection[int], root: Path = Path("/")) -> Topology:
    """Read the topology.

    Args:
        affinity: The CPUs of the affinity mask: all that is known where a container hides `/sys`.
        root: Where `proc` and `sys` lie.
    """
    reasons: list[str] = []
    online_text = _read(root / _CPU / "online")
    if online_text is None:
        online = tuple(sorted(affinity))
        reasons.append("/sys hides the online CPUs: those of the affinity mask are taken for all there are")
    else:
        online = parse_cpulist(online_text)
    cores = _cores(root, online, reasons)
    nodes = _nodes_with_memory(root, _nodes(root), reasons)
    caches = _caches(root, online, reasons)
    slow = _efficient(root, online, reasons)
    return Topology(
        tuple(
            Cpu(cpu, cores[cpu], _package(root, cpu), nodes.get(cpu, 0), caches[cpu], cpu in slow)
            for cpu in online
        ),
        tuple(reasons),
    )


def _cores(root: Path, online: Sequence[int], reasons: list[str]) -> Mapping[int, int]:
    """For each CPU the lowest that shares its core."""
    siblings = {cpu: _siblings(root, cpu) for cpu in online}
    hidden = [cpu for cpu in online if cpu not in siblings[cpu]]
    if hidden:
        reasons.append(
            f"/sys hides which CPUs share a core: each of {format_cpulist(hidden)} counts as a core"
        )
    return {cpu: cpu if cpu in hidden else min(siblings[cpu]) for cpu in online}


def _siblings(root: Path, cpu: int) -> tuple[int, ...]:
    topology = root / _CPU / f"cpu{cpu}" / "topology"
    # The first is the name since Linux 5.3, the second the older one.
    text = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")
    return parse_cpulist(text or "")


def _package(root: Path, cpu: int) -> int:
    text = _read(root / _CPU / f"cpu{cpu}" / "topology" / "physical_package_id")
    # Some Arm kernels say -1 for "unknown".
    return max(0, int(text)) if text else 0


def _nodes(root: Path) -> Mapping[int, tuple[int, ...]]:
    """The CPUs of each NUMA node that has some."""
    folders = {int(path.name.removeprefix("node")): path for path in (root / _NODE).glob("node[0-9]*")}
    found = {node: parse_cpulist(_read(folders[node] / "cpulist") or "") for node in sorted(folders)}
    return {node: cpus for node, cpus in found.items() if cpus}


def _nodes_with_memory(
    root: Path, nodes: Mapping[int, tuple[int, ...]], reasons: list[str]
) -> Mapping[int, int]:
    """For each CPU the nearest node whose memory this process may use."""
    text = _read(root / _NODE / "has_memory")
    memory = set(nodes) if text is None else set(parse_cpulist(text))
    usable = memory & _allowed_memory(root, memory)
    nearest: dict[int, int] = {}
    for node, cpus in nodes.items():
        chosen = node
        if usable and node not in usable:
            chosen = _nearest(root, node, usable)
            what = "memory that this process may use" if node in memory else "memory"
            reasons.append(f"NUMA node {node} has no {what}: its CPUs count as those of node {chosen}")
        nearest |= dict.fromkeys(cpus, chosen)
    return nearest


def _allowed_memory(root: Path, memory: Iterable[int]) -> set[int]:
    text = status_field(root, "Mems_allowed_list")
    return set(memory) if text is None else set(parse_cpulist(text))


def _nearest(root: Path, node: int, usable: Collection[int]) -> int:
    """The closest of some nodes by the firmware's table of distances, which has one number for each online node."""
    text = _read(root / _NODE / f"node{node}" / "distance") or ""
    online = parse_cpulist(_read(root / _NODE / "online") or "")
    distances = dict(zip(online, map(int, text.split()), strict=False))
    return min(usable, key=lambda other: (distances.get(other, 255), other))


def _caches(root: Path, online: Sequence[int], reasons: list[str]) -> Mapping[int, int]:
    """For each CPU the lowest that shares its L3 cache."""
    shared = {cpu: _l3_cpus(root, cpu) for cpu in online}
    hidden = [cpu for cpu, cpus in shared.items() if cpus is None]
    if hidden:
        reasons.append(
            f"/sys hides the caches of {format_cpulist(hidden)}: a NUMA node counts as one L3 cache there"
        )
    return {cpu: min(cpus) if cpus else 0 for cpu, cpus in shared.items()}


def _l3_cpus(root: Path, cpu: int) -> tuple[int, ...] | None:
    """Empty where the processor has no L3 cache, None where nothing is shown."""
    folder = root / _CPU / f"cpu{cpu}" / "cache"
    # The kernel numbers them from the core outwards, instructions and data apart: L3 is mostly index3.
    for index in ("index3", "index2", "index4"):
        if (_read(folder / index / "level") or "").strip() == "3":
            return parse_cpulist(_read(folder / index / "shared_cpu_list") or "")
    return () if folder.is_dir() else None


def _efficient(root: Path, online: Sequence[int], reasons: list[str]) -> frozenset[int]:
    """The CPUs on the slow cores of a hybrid processor; none where all are alike."""
    fast = _read(root / _P_CORES)
    if fast is not None:
        slow, source = set(online) - set(parse_cpulist(fast)), f"/{_P_CORES}"
    else:
        capacities = {cpu: _capacity(root, cpu) for cpu in online}
        best = max(capacities.values(), default=0)
        slow = {cpu for cpu, capacity in capacities.items() if capacity < best * _EFFICIENT_BELOW}
        source = "cpu_capacity"
    if not slow or slow == set(online):
        return frozenset()
    fast_cpus = format_cpulist(set(online) - slow)
    reasons.append(f"hybrid: CPUs {fast_cpus} are on P cores, {format_cpulist(slow)} on E cores, by {source}")
    return frozenset(slow)


def _capacity(root: Path, cpu: int) -> int:
    # The kernel's scale; where it shows nothing, all CPUs are alike.
    return int(_read(root / _CPU / f"cpu{cpu}" / "cpu_capacity") or 1024)


def status_field(root: Path, name: str) -> str | None:
    """A field of the process's own status; None where it is not shown."""
    for line in (_read(root / _STATUS) or "").splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    return None


def _read(path: Path) -> str | None:
    """A file's text, or None where the kernel or a container does not show it."""
    try:
        # A process may be called anything, and its name stands in its status.
        return path.read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, PermissionError):
        return None
