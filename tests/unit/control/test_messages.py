"""Every message can be told from every other, and keeps what it says."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from predictd.server.config.lane import LaneSignature, WireTensor
from predictd.server.control import messages
from predictd.server.control.message import Message
from predictd.server.control.messages import AnyMessage, LaneLoaded
from predictd.server.control.publication import LaneView, PublishModel
from tests.fixtures.supervision import lane_config

ALL = get_args(AnyMessage)


def test_every_message_of_the_module_can_be_received() -> None:
    declared = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    }
    # A LaneView travels inside PublishModel only.
    assert declared - {LaneView} == set(ALL)


@pytest.mark.parametrize("kind", ALL)
def test_a_message_says_what_it_is(kind: type[Message]) -> None:
    assert kind.__struct_config__.tag == kind.__name__
    assert kind.__doc__


def test_nested_configurations_and_signatures_survive() -> None:
    signature = LaneSignature(
        inputs=(WireTensor("x", 11, (-1, 2)), WireTensor("s", 11, (), optional=True)),
        outputs=(WireTensor("y", 11, (-1,)),),
        batches=True,
        max_rows=None,
        engine="fake",
    )
    view = LaneView(version=3, state="READY", config=lane_config(4), signature=signature)
    for message in (
        LaneLoaded(lane=4, signature=signature, load_seconds=0.5, warmup_seconds=0.25),
        PublishModel(seq=0, name="m", default_version=3, versions=[view]),
    ):
        assert msgspec.msgpack.Decoder(AnyMessage).decode(msgspec.msgpack.encode(message)) == message


def test_messages_cannot_be_changed() -> None:
    message: Any = messages.Ack(seq=1)
    with pytest.raises(AttributeError):
        message.seq = 2
