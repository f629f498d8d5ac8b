"""The control groups that this process lives in: its own and every visible ancestor, of cgroup v1 and v2.

A limit may sit on any of them, and the tightest rules, so everything that reads limits walks all of them.
Which mount shows which controller stands in `/proc/self/mountinfo`, the path below it in `/proc/self/cgroup`.
On a hybrid machine both versions are mounted; a controller lives in one of them, and its files are missing in
the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One control group.

    Attributes:
        directory: Where its files are, below the injected root.
        name: Where its files are, as an operator would type it.
    """

    directory: Path
    name: str


@dataclass(frozen=True, slots=True)
class _Mount:
    version: int
    controllers: frozenset[str]
    root: str
    point: str


def cgroups_of(controller: str, root: Path = Path("/")) -> tuple[Cgroup, ...]:
    """Find the control groups that may limit this process.

    Args:
        controller: Such as `cpu` or `memory`.
        root: Where `proc` and `sys` lie.

    Returns:
        The process's own group first, then its ancestors up to the mount; v1 before v2. Empty where no cgroup
        file system is mounted.
    """
    paths = _own_paths(root)
    mounts = _mounts(root)
    v1 = [m for m in mounts if m.version == 1 and controller in m.controllers]
    v2 = [m for m in mounts if m.version == 2]
    return (*_lineage(v1, paths.get(controller), root), *_lineage(v2, paths.get(""), root))


def _own_paths(root: Path) -> dict[str, str]:
    """The process's path for each v1 controller, and for v2 under the empty name."""
    paths: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def _mounts(root: Path) -> list[_Mount]:
    mounts: list[_Mount] = []
    for line in _lines(root / "proc/self/mountinfo"):
        # id parent device ROOT POINT options [tags …] - TYPE source SUPER_OPTIONS
        left, _, right = line.partition(" - ")
        kind, _, rest = right.partition(" ")
        if kind not in ("cgroup", "cgroup2"):
            continue
        fields = left.split(" ")
        controllers = frozenset(rest.rpartition(" ")[2].split(",")) if kind == "cgroup" else frozenset[str]()
        mounts.append(
            _Mount(1 if kind == "cgroup" else 2, controllers, _unescape(fields[3]), _unescape(fields[4]))
        )
    return mounts


def _lineage(mounts: list[_Mount], path: str | None, root: Path) -> list[Cgroup]:
    if not mounts or path is None:
        return []
    below = {mount: _relative(path, mount.root) for mount in mounts}
    # The mount that shows the most ancestors. If none shows the process's own path, as when the path lies
    # outside the namespace of a container, the mount point itself is all there is to see.
    mount = min(mounts, key=lambda m: (below[m] is None, len(m.root)))
    point = PurePosixPath(mount.point)
    here = point / (below[mount] or "")
    lineage = [here, *(parent for parent in here.parents if parent.is_relative_to(point))]
    groups = [Cgroup(root / str(name).lstrip("/"), str(name)) for name in lineage]
    return [group for group in groups if group.directory.is_dir()]


def _relative(path: str, mount_root: str) -> str | None:
    """The path below the mount's root, or None where the mount does not show it."""
    pure = PurePosixPath(path)
    if ".." in pure.parts or not pure.is_relative_to(mount_root):
        return None
    return str(pure.relative_to(mount_root))


def _unescape(field: str) -> str:
    r"""Mountinfo writes a space as \040, and so on."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (FileNotFoundError, PermissionError):
        return []
