"""One message a packet, descriptors beside it, and what happens when the peer is slow, gone or wrong."""

from __future__ import annotations

import array
import itertools
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from predictd.server.control.channel import (
    MAX_DESCRIPTORS,
    MAX_MESSAGE_BYTES,
    Channel,
    ChannelClosedError,
)
from predictd.server.control.memory import Growth
from predictd.server.control.messages import Ack, LaneFailed, Stop

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


def raw(channel: Channel) -> socket.socket:
    return channel._socket


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one number is all that is wanted


def lowest_limit_with_room_for(count: int) -> int:
    used = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208
    free = (number for number in itertools.count() if number not in used)
    return next(itertools.islice(free, count, None))


def test_messages_arrive_whole_and_in_order_in_both_directions(pair: Pair) -> None:
    one, other = pair
    for seq in range(100):
        one.send(Ack(seq=seq))
        other.send(Growth(granted=False, reason=f"no {seq}"))
    assert [other.receive() for _ in range(100)] == [(Ack(seq=seq), []) for seq in range(100)]
    assert [one.receive()[0] for _ in range(100)] == [
        Growth(granted=False, reason=f"no {seq}") for seq in range(100)
    ]


def test_as_many_descriptors_travel_as_a_message_may_carry(pair: Pair) -> None:
    one, other = pair
    pipes = [os.pipe() for _ in range(MAX_DESCRIPTORS // 2)]
    one.send(Stop(), [fd for pipe in pipes for fd in pipe])
    message, fds = other.receive()
    assert (message, len(fds)) == (Stop(), MAX_DESCRIPTORS)
    assert not any(os.get_inheritable(fd) for fd in fds)
    for (read_fd, write_fd), (read_copy, write_copy) in zip(
        pipes, zip(fds[::2], fds[1::2], strict=True), strict=True
    ):
        os.write(write_copy, b"x")
        assert os.read(read_fd, 1) == b"x"
        for fd in (read_fd, write_fd, read_copy, write_copy):
            os.close(fd)


def test_too_many_descriptors_and_too_large_messages_are_refused_and_nothing_is_sent(pair: Pair) -> None:
    one, other = pair
    with pytest.raises(ValueError, match=r"^Stop has \d+ bytes and 65 descriptors. This is a bug.$"):
        one.send(Stop(), [1] * (MAX_DESCRIPTORS + 1))
    with pytest.raises(ValueError, match=r"^LaneFailed has \d+ bytes and 0 descriptors"):
        one.send(LaneFailed(lane=1, reason="x" * MAX_MESSAGE_BYTES))
    with pytest.raises(BlockingIOError):
        other.receive(wait=False)


def test_the_largest_message_arrives(pair: Pair) -> None:
    one, other = pair
    message = LaneFailed(lane=1, reason="x" * (MAX_MESSAGE_BYTES - 64))
    one.send(message, wait=False)
    assert other.receive() == (message, [])


def test_a_peer_that_does_not_read_makes_a_sender_wait_or_say_so(pair: Pair) -> None:
    one, other = pair
    sent = 0
    with suppress(BlockingIOError):
        while sent < 10_000:
            one.send(LaneFailed(lane=sent, reason="x" * 10_000), wait=False)
            sent += 1
    assert 0 < sent < 10_000
    received = [other.receive(wait=False)[0] for _ in range(sent)]
    assert [message.lane for message in received if isinstance(message, LaneFailed)] == list(range(sent))
    with pytest.raises(BlockingIOError):
        other.receive(wait=False)


def test_what_was_said_before_the_end_is_heard_and_then_the_end() -> None:
    one, other = Channel.pair()
    one.send(Ack(seq=1))
    one.close()
    assert other.receive() == (Ack(seq=1), [])
    for _ in range(2):
        with pytest.raises(ChannelClosedError):
            other.receive()
        with pytest.raises(ChannelClosedError):
            other.receive(wait=False)
        with pytest.raises(ChannelClosedError):
            other.send(Stop())
    other.close()


def test_a_peer_that_left_without_reading_is_gone_too() -> None:
    one, other = Channel.pair()
    one.send(Ack(seq=1))
    other.close()
    with pytest.raises(ChannelClosedError):
        one.receive()
    one.close()


def test_a_message_that_is_cut_short_is_an_error_and_its_descriptors_are_closed(pair: Pair) -> None:
    one, other = pair
    before = open_files()
    read_fd, write_fd = os.pipe()
    descriptors = array.array("i", [read_fd, write_fd])
    raw(one).sendmsg([bytes(MAX_MESSAGE_BYTES + 1)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    with pytest.raises(ValueError, match="was cut short"):
        other.receive()
    os.close(read_fd)
    os.close(write_fd)
    assert open_files() == before


def test_descriptors_that_cannot_be_taken_are_an_error_that_names_the_limit(pair: Pair) -> None:
    one, other = pair
    read_fd, write_fd = os.pipe()
    one.send(Stop(), [read_fd] * 8)
    before = open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_limit_with_room_for(3), hard))
    try:
        with pytest.raises(ValueError, match="RLIMIT_NOFILE"):
            other.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert open_files() == before
    os.close(read_fd)
    os.close(write_fd)


@pytest.mark.parametrize("data", [b"\x81\xa4type\xa4Nope", b"\xc1", b"\x81\xa4type\xa3Ack"])
def test_what_is_no_message_is_an_error_and_its_descriptors_are_closed(pair: Pair, data: bytes) -> None:
    one, other = pair
    read_fd, write_fd = os.pipe()
    descriptors = array.array("i", [read_fd, write_fd])
    before = open_files()
    raw(one).sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec words it, in several ways
        other.receive()
    assert open_files() == before
    os.close(read_fd)
    os.close(write_fd)


def test_an_end_is_not_inherited_unless_asked_for_and_can_be_opened_by_its_number() -> None:
    one, other = Channel.pair()
    assert not os.get_inheritable(one.fileno())
    again = Channel.from_fd(os.dup(other.fileno()))
    one.send(Ack(seq=5))
    assert again.receive() == (Ack(seq=5), [])
    for channel in (one, other, again):
        channel.close()
