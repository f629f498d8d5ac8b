"""The unix socket beside the TCP port: a file, which outlives a daemon that was killed."""

from __future__ import annotations

import contextlib
import socket
import stat
from pathlib import Path

from predictd.server.supervise.ports import AddressError

# What the kernel's sockaddr_un holds, with a zero at its end.
_PATH_BYTES_MAX = 107
_ASK_SECONDS = 5.0


def claim(path: Path) -> Path:
    """Make way for a socket: one that a dead daemon left is removed. Returns the absolute path.

    Raises:
        AddressError: A living process listens there, or nothing can be put there.
    """
    path = path.absolute()
    if len(bytes(path)) > _PATH_BYTES_MAX:
        raise AddressError(f"{path} is longer than the {_PATH_BYTES_MAX} bytes of a socket's path")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if path.parent.is_dir():
            return path
        raise AddressError(f"{path}: there is no folder {path.parent}") from None
    except OSError as error:
        raise AddressError(f"{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise AddressError(f"{path} is there and is no socket")
    if _is_alive(path):
        raise AddressError(f"{path} is already in use by another process")
    try:
        path.unlink()
    except OSError as error:
        raise AddressError(f"{path}: {error.strerror}") from error
    return path


def remove(path: Path) -> None:
    """Take the socket away, at the end."""
    with contextlib.suppress(OSError):
        path.unlink()


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_ASK_SECONDS)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            return True  # It listens, and has no time.
        except OSError as error:
            raise AddressError(f"{path}: {error.strerror}") from error
    return True
