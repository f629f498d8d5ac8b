"""Devices as a configuration names them."""

from __future__ import annotations

import pytest

from predictd.server.config.devices import DEVICES, device_of


@pytest.mark.parametrize("text", ["cpu", "0", "cuda:1", "0,1", "cuda:0,cuda:1,cuda:0"])
def test_devices(text: str) -> None:
    assert DEVICES.fullmatch(text)


@pytest.mark.parametrize("text", ["", ",", "0,", "0, 1", "/dev/nvidia0", "-1"])
def test_what_is_no_device(text: str) -> None:
    assert not DEVICES.fullmatch(text)


def test_instances_take_turns() -> None:
    assert [device_of("0,1", instance) for instance in range(4)] == ["0", "1", "0", "1"]
    assert [device_of("cpu", instance) for instance in range(2)] == ["cpu", "cpu"]
