"""What of the system a confined worker needs, whatever it serves."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROGRAMS: Final = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix/store", "/gnu/store")
# Not all of /etc: keys and tokens lie there.
_SYSTEM: Final = (
    "/proc",
    "/sys",
    *(
        f"/etc/{name}"
        for name in (
            "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "localtime", "timezone", "nsswitch.conf",
            "passwd", "group", "hosts", "host.conf", "os-release", "machine-id", "mime.types", "alternatives",
            "python3", "OpenCL", "vulkan", "glvnd", "nvidia",
        )
    ),
)  # fmt: skip
_DEVICES: Final = (
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
    "/dev/shm",  # noqa: S108 - of libraries that share memory by name
)  # fmt: skip
_GPU_DEVICES: Final = ("nvidia*", "dri", "accel", "kfd", "dxg")
_GPU_FILES: Final = (
    "/run/nvidia-persistenced",
    "/run/nvidia-mps",
    "/var/lib/nvidia",
    "/etc/nvidia-container-runtime",
)
# As Python's tempfile looks for them.
_TEMPORARY_VARIABLES: Final = ("TMPDIR", "TEMP", "TMP")
_TEMPORARY: Final = ("/tmp", "/var/tmp", "/usr/tmp")  # noqa: S108 - nothing is made in them here
_LISTS_OF_FOLDERS: Final = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH")


@dataclass(frozen=True, slots=True)
class SystemPaths:
    """Paths that may be read, that may be executed besides, and that may be written."""

    read: tuple[str, ...]
    execute: tuple[str, ...]
    write: tuple[str, ...]


def gpu_devices() -> tuple[str, ...]:
    """What the drivers of GPUs are spoken to through."""
    return tuple(str(path) for pattern in _GPU_DEVICES for path in Path("/dev").glob(pattern))


def system_paths(environment: Mapping[str, str], *, gpu: bool) -> SystemPaths:
    """Those of this process.

    Args:
        environment: Of this process.
        gpu: Those of GPUs, too.
    """
    write = [*_DEVICES, f"/proc/{os.getpid()}", *_temporary(environment)]
    read = [*_SYSTEM]
    if gpu:
        write += [*gpu_devices(), _cuda_cache(environment)]
        read += _GPU_FILES
    return SystemPaths(tuple(read), (*_PROGRAMS, *_python(), *_named(environment)), tuple(write))


def _python() -> Iterator[str]:
    """Where this interpreter and what it may import lie; an archive counts as a file."""
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
    return filter(_is_part, dict.fromkeys((*prefixes, *sys.path)))


def _named(environment: Mapping[str, str]) -> Iterator[str]:
    texts = (environment.get(name, "").replace(" ", ":") for name in _LISTS_OF_FOLDERS)
    return (path for text in texts for path in text.split(":") if _is_part(path))


def _temporary(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The folder of temporary files. Where there is none, the present folder does not stand in for it."""
    named = (environment.get(name, "") for name in _TEMPORARY_VARIABLES)
    return tuple(filter(_is_writable, (*named, *_TEMPORARY)))[:1]


def _is_writable(path: str) -> bool:
    return _is_part(path) and os.access(path, os.W_OK | os.X_OK)


def _is_part(path: str) -> bool:
    """A place in the file system, and not all of it."""
    return Path(path).is_absolute() and Path(path).resolve() != Path("/")


def _cuda_cache(environment: Mapping[str, str]) -> str:
    """What CUDA's driver compiles is kept here; without it, it compiles again at each start."""
    return environment.get("CUDA_CACHE_PATH") or f"{environment.get('HOME', '')}/.nv"
