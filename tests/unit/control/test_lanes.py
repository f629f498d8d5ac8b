"""Lanes on their way to a worker."""

from __future__ import annotations

from pathlib import Path

from predictd.server.config.model_config import TensorConfig, Warmup, WarmupSample, WarmupTensor
from predictd.server.control.channel import MAX_MESSAGE_BYTES, Channel
from predictd.server.control.lanes import lane_messages
from predictd.server.control.messages import AddLanes
from tests.fixtures.frontend import config


def test_what_a_configuration_says_arrives_as_it_was_sent() -> None:
    tensor = WarmupTensor(name="x", dtype="FP32", shape=(1, 2), rows=1, data="file", file=Path("/m/x"))
    lane = config(
        inputs=(TensorConfig(name="x", dtype="FP32", shape=(-1, 2), model_shape=(-1, 1, 2)),),
        outputs=(TensorConfig(name="y", labels_file=Path("/m/labels.txt")),),
        warmup=Warmup(mode="samples", samples=(WarmupSample(name="s", runs=2, inputs=(tensor,)),)),
        origins={"inputs": "/m/config.pbtxt:3"},
    )
    one, other = Channel.pair()
    one.send(AddLanes(lanes=[lane]))
    message, _ = other.receive()
    assert message == AddLanes(lanes=[lane])
    one.close()
    other.close()


def test_lanes_go_in_as_few_messages_as_their_sizes_allow() -> None:
    long = tuple(TensorConfig(name=f"{number}{'x' * 1000}") for number in range(60))
    lanes = [config(number, inputs=long if number % 10 == 0 else ()) for number in range(1, 41)]
    messages = list(lane_messages(lanes, 25))
    assert [lane for message in messages for lane in message.lanes] == lanes
    assert [len(message.lanes) for message in messages] == [25, 15]
    lanes = [config(number, inputs=long) for number in range(1, 6)]
    messages = list(lane_messages(lanes, 25))
    assert [len(message.lanes) for message in messages] == [2, 2, 1]
    one, other = Channel.pair()
    for message in messages:
        one.send(message)
        assert other.receive()[0] == message
    one.close()
    other.close()
    assert MAX_MESSAGE_BYTES < 3 * 60_000
    assert list(lane_messages([], 25)) == []
