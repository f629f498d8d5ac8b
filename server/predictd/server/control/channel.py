"""The control channel: a SOCK_SEQPACKET socketpair that carries one message a packet and descriptors beside it.

The kernel keeps packets whole and in order, closes with the peer, and hands descriptors over atomically
(unix(7), SCM_RIGHTS). At most MAX_DESCRIPTORS travel with one message.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from predictd.server.control.message import Message
from predictd.server.control.messages import AnyMessage

MAX_MESSAGE_BYTES: Final = 160 * 1024
MAX_DESCRIPTORS: Final = 64
_SOCKET_BUFFER_BYTES: Final = 4 * 1024 * 1024
_FD_BYTES: Final = array.array("i").itemsize


def _from_path(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} does not travel. This is a bug.")


def _to_path(kind: type, value: Any) -> Path:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} does not travel. This is a bug.")


_encode = msgspec.msgpack.Encoder(enc_hook=_from_path).encode
_decode = msgspec.msgpack.Decoder(AnyMessage, dec_hook=_to_path).decode


def decode_message(data: bytes) -> AnyMessage:
    """What a packet says. Raises ValueError if it is no message."""
    try:
        message: AnyMessage = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # One line, whatever stands in it: a broken engine may have sent it.
        raise ValueError(f"a control message cannot be read: {str(error)[:200]!r}") from None
    return message


class ChannelClosedError(Exception):
    """The peer is gone."""


class Channel:
    """One end of a control channel. Sending and receiving may happen in different threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # The least of what was asked for and net.core.wmem_max is granted; both suffice.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, neither inherited by default."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """The end whose descriptor this process inherited."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def send(self, message: Message, fds: Sequence[int] = (), *, wait: bool = True) -> None:
        """Send a message and copies of descriptors.

        Raises:
            BlockingIOError: The peer does not read and the call shall not wait.
            ChannelClosedError: The peer is gone.
            ValueError: The message is too large. This is a bug.
        """
        data = _encode(message)
        if len(data) > MAX_MESSAGE_BYTES or len(fds) > MAX_DESCRIPTORS:
            raise ValueError(
                f"{type(message).__name__} has {len(data)} bytes and {len(fds)} descriptors. This is a bug."
            )
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._socket.sendmsg(
                [data], ancillary, socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT)
            )
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosedError from error

    def receive(self, *, wait: bool = True) -> tuple[AnyMessage, list[int]]:
        """Receive a message and its descriptors, which the caller owns.

        Raises:
            BlockingIOError: Nothing is there and the call shall not wait.
            ChannelClosedError: The peer is gone.
            ValueError: What came is no message, or was cut short.
        """
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                MAX_MESSAGE_BYTES,
                socket.CMSG_SPACE(MAX_DESCRIPTORS * _FD_BYTES),
                socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT),
            )
        except ConnectionResetError as error:
            raise ChannelClosedError from error
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % _FD_BYTES])
        if not data:
            raise ChannelClosedError
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for fd in fds:
                os.close(fd)
            raise ValueError(
                "a control message was cut short: the descriptor limit (RLIMIT_NOFILE) may be reached"
            )
        try:
            return decode_message(data), list(fds)
        except ValueError:
            for fd in fds:
                os.close(fd)
            raise

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
