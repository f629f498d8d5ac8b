"""What this system has for a worker to use: allocators, OpenMP runtimes, huge pages, a frequency governor.

Libraries are looked for by their sonames, which is what the packages of distributions install; the names without a
version come with the packages for developers only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from predictd.server.launch.sandbox.confinement import Support
from predictd.server.launch.sandbox.support import read_support

SONAMES: Mapping[str, tuple[str, ...]] = {
    "jemalloc": ("libjemalloc.so.2",),
    # The small one first: the other one's profiler is not used.
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"),
}
_LIBIOMP5 = "libiomp5.so"
# PyTorch's wheels carry it under a name with a hash in it.
_LIBGOMP = ("libgomp.so.1", "libgomp-*.so.1*")
_GLIBC_VERSION = re.compile(rb"GNU C Library [^\n]*release version (\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Facilities:
    """What was found.

    Attributes:
        allocators: Path of the library, for each allocator of SONAMES that is there.
        libiomp5: Path of Intel's and LLVM's OpenMP runtime.
        libgomp: Path of GCC's OpenMP runtime.
        transparent_hugepages: "always", "madvise" or "never".
        governor: Of the CPUs' frequency; several are joined with a comma.
        glibc: Version of the C library; None also when it is another one.
        sandbox: What confines workers; of another machine than this one nothing is known.
    """

    allocators: Mapping[str, str] = field(default_factory=dict)
    libiomp5: str | None = None
    libgomp: str | None = None
    transparent_hugepages: str | None = None
    governor: str | None = None
    glibc: tuple[int, int] | None = None
    sandbox: Support = field(default_factory=Support)


def read_facilities(root: Path = Path("/"), prefix: Path = Path(sys.prefix)) -> Facilities:
    """Look at the system below a folder.

    Args:
        root: Of the system.
        prefix: Of the Python environment, as the system itself calls it.
    """
    system, python = tuple(_system_folders(root)), tuple(_python_folders(root / prefix.relative_to("/")))
    found = {name: _find(system, sonames) for name, sonames in SONAMES.items()}
    return Facilities(
        allocators={name: _inside(root, path) for name, path in found.items() if path is not None},
        libiomp5=_named(root, _find((*python, *system), (_LIBIOMP5,))),
        libgomp=_named(root, _find((*python, *system), _LIBGOMP)),
        transparent_hugepages=_huge_pages(root),
        governor=_governor(root),
        glibc=_glibc(_find(system, ("libc.so.6",))),
        sandbox=read_support() if root == Path("/") else Support(),
    )


def _system_folders(root: Path) -> Iterator[Path]:
    # The cache of ld.so(8) is in a format of its own and may be stale or absent; these are what it is made from.
    multiarch = f"{os.uname().machine}-linux-gnu"
    for base in ("usr/local/lib", "usr/lib", "lib"):
        yield from (root / base / multiarch, root / f"{base}64", root / base)


def _python_folders(prefix: Path) -> Iterator[Path]:
    yield prefix / "lib"
    for packages in sorted(prefix.glob("lib/python3.*/site-packages")):
        yield from (packages / "torch" / "lib", packages / "torch.libs")


def _find(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The first file by these names, which may be patterns; an earlier name wins over an earlier folder."""
    places = tuple(folders)
    found = (path for name in names for folder in places for path in sorted(folder.glob(name)))
    return next((path for path in found if path.is_file()), None)


def _named(root: Path, path: Path | None) -> str | None:
    return None if path is None else _inside(root, path)


def _inside(root: Path, path: Path) -> str:
    """A path as processes of that system see it."""
    return f"/{path.relative_to(root)}"


def _huge_pages(root: Path) -> str | None:
    text = _read(root / "sys/kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", text)
    return chosen[1] if chosen else None


def _governor(root: Path) -> str | None:
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ",".join(sorted({text for file in files if (text := _read(file))})) or None


def _glibc(library: Path | None) -> tuple[int, int] | None:
    """The version that the library itself says. No process of that system need run for it."""
    if library is None:
        return None
    try:
        match = _GLIBC_VERSION.search(library.read_bytes())
    except OSError:
        return None
    return (int(match[1]), int(match[2])) if match else None


def _read(path: Path) -> str:
    """Text of a file of the kernel; containers hide some."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
