"""A publication that somebody waits for: taken in by every front end, or by those that live."""

from __future__ import annotations

from typing import Any

from predictd.server.control.message import Message
from predictd.server.control.publication import PublishModel
from predictd.server.supervise.wiring import Wiring

MODEL = PublishModel(seq=0, name="m", default_version=0, versions=[])


class Frontend:
    """Remembers what it was sent."""

    def __init__(self, child_id: int) -> None:
        self.id = child_id
        self.sent: list[Any] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)


def wired(*frontends: Frontend) -> Wiring:
    wiring = Wiring(lambda _: None, lambda _: None)
    for frontend in frontends:
        wiring.add_frontend(None, frontend)  # type: ignore[arg-type]
    return wiring


def test_it_is_done_once_each_front_end_has_said_so() -> None:
    one, other, done = Frontend(1), Frontend(2), []
    wiring = wired(one, other)
    wiring.publish(MODEL, lambda: done.append("first"))
    wiring.publish(MODEL, lambda: done.append("second"))
    assert [message.name for message in (*one.sent, *other.sent)] == ["m"] * 4
    assert len({message.seq for message in (*one.sent, *other.sent)}) == 4
    for message in (one.sent[0], one.sent[1], other.sent[1]):
        wiring.acknowledged(message.seq)
    assert done == ["second"]
    wiring.acknowledged(other.sent[0].seq)
    assert done == ["second", "first"]


def test_a_front_end_that_dies_is_not_waited_for() -> None:
    one, other, done = Frontend(1), Frontend(2), []
    wiring = wired(one, other)
    wiring.publish(MODEL, lambda: done.append("done"))
    wiring.acknowledged(one.sent[0].seq)
    wiring.frontend_gone(other)  # type: ignore[arg-type]
    assert done == ["done"]


def test_without_front_ends_it_is_done_at_once() -> None:
    done: list[str] = []
    wired().publish(MODEL, lambda: done.append("done"))
    assert done == ["done"]
