"""Certificate, key and tokens on their way to a front end: in a file that is nowhere but in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Material:
    """What lies in the files: bytes as they are there, empty where there is no file."""

    certificate: bytes = b""
    key: bytes = b""
    client_ca: bytes = b""
    tokens: bytes = b""


def write_material(material: Material) -> int:
    """A descriptor of a file in memory that holds it all. The caller closes it."""
    fd = os.memfd_create("predictd-credentials", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(msgspec.msgpack.encode(material))
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_material(fd: int) -> Material:
    """What such a file holds. Closes it."""
    try:
        # By position: all who were handed the file share one.
        return msgspec.msgpack.decode(os.pread(fd, os.fstat(fd).st_size, 0), type=Material)
    finally:
        os.close(fd)
