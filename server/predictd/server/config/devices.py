"""Devices as a configuration names them: one, or several for the instances of a model to take turns. Pure."""

from __future__ import annotations

import re

# "cpu", "0", "cuda:1", "0,1"
DEVICES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}(,[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}){0,63}")


def device_of(devices: str, instance: int) -> str:
    """The device of an instance, counted from 0."""
    names = devices.split(",")
    return names[instance % len(names)]
