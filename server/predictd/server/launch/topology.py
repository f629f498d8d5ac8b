"""Which CPUs the machine has, and which of them share a core, a package or a memory node; from `/sys`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from predictd.server.launch.cpulist import format_cpulist, parse_cpulist

_CPU = Path("sys/devices/system/cpu")
_NODE = Path("sys/devices/system/node")


@dataclass(frozen=True, slots=True)
class Cpu:
    """A logical CPU.

    Attributes:
        id: Number of the CPU.
        core: The lowest CPU id among those that share its core, which names the core on the whole machine.
            The kernel's own `core_id` repeats from package to package.
        package: Socket.
        node: NUMA node.
    """

    id: int
    core: int
    package: int = 0
    node: int = 0


@dataclass(frozen=True, slots=True)
class Topology:
    """The online CPUs of the machine.

    Attributes:
        cpus: Ascending by id.
        reasons: What could not be read, and what was assumed instead.
    """

    cpus: tuple[Cpu, ...]
    reasons: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """The online CPUs' ids, ascending."""
        return tuple(cpu.id for cpu in self.cpus)

    def cores(self, cpus: Iterable[int]) -> tuple[tuple[int, ...], ...]:
        """Group CPUs by the core they belong to.

        Args:
            cpus: Ids. One that the topology does not know counts as a core of its own.

        Returns:
            For each core its CPUs among those given, ascending; cores of one node, then of one package, stand
            together.
        """
        known = {cpu.id: cpu for cpu in self.cpus}
        groups: dict[tuple[int, int, int], list[int]] = {}
        for number in sorted(set(cpus)):
            cpu = known.get(number, Cpu(number, core=number))
            groups.setdefault((cpu.node, cpu.package, cpu.core), []).append(number)
        return tuple(tuple(groups[key]) for key in sorted(groups))


def read_topology(affinity: Collection[int], root: Path = Path("/")) -> Topology:
    """Read the topology.

    Args:
        affinity: The CPUs of the affinity mask: all that is known where a container hides `/sys`.
        root: Where `sys` lies.
    """
    reasons: list[str] = []
    online_text = _read(root / _CPU / "online")
    if online_text is None:
        online = tuple(sorted(affinity))
        reasons.append("/sys hides the online CPUs: those of the affinity mask are taken for all there are")
    else:
        online = parse_cpulist(online_text)
    nodes = _nodes(root)
    cpus: list[Cpu] = []
    hidden: list[int] = []
    for number in online:
        siblings = _siblings(root, number)
        if number not in siblings:
            hidden.append(number)
        core = min(siblings, default=number) if number in siblings else number
        cpus.append(Cpu(number, core, _package(root, number), nodes.get(number, 0)))
    if hidden:
        reasons.append(
            f"/sys hides which CPUs share a core: each of {format_cpulist(hidden)} counts as a core"
        )
    return Topology(tuple(cpus), tuple(reasons))


def _nodes(root: Path) -> dict[int, int]:
    """The memory node of each CPU. A node without CPUs has an empty list."""
    return {
        cpu: int(folder.name.removeprefix("node"))
        for folder in (root / _NODE).glob("node[0-9]*")
        for cpu in parse_cpulist(_read(folder / "cpulist") or "")
    }


def _siblings(root: Path, cpu: int) -> tuple[int, ...]:
    topology = root / _CPU / f"cpu{cpu}" / "topology"
    # The first is the name since Linux 5.3, the second the older one.
    text = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")
    return parse_cpulist(text or "")


def _package(root: Path, cpu: int) -> int:
    text = _read(root / _CPU / f"cpu{cpu}" / "topology" / "physical_package_id")
    # Some Arm kernels say -1 for "unknown".
    return max(0, int(text)) if text else 0


def _read(path: Path) -> str | None:
    """A file's text, or None where the kernel or a container does not show it."""
    try:
        return path.read_text(encoding="ascii")
    except (FileNotFoundError, PermissionError):
        return None
