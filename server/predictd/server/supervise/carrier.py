"""Which of the two front ends carries the connections: grpcio, or `predictd.native` where that is installed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache

from predictd.server.config.errors import ConfigError
from predictd.server.transport.abi import ABI_VERSION

MODULE = "predictd.native"
# Of the calls between its C and our Python. Raised with each change that an older one would misread.
BRIDGE_VERSION = 2


@dataclass(frozen=True, slots=True)
class Carrier:
    """What carries the connections of front ends.

    Attributes:
        native: It is predictd.native.
        reason: Why, for the plan.
    """

    native: bool
    reason: str


@cache
def native_problem() -> str:
    """What keeps predictd.native from being used; empty if nothing does."""
    try:
        module = importlib.import_module(MODULE)
    except ModuleNotFoundError:
        return "predictd-native is not installed"
    except ImportError as error:
        return f"predictd-native cannot be loaded: {error}"
    found = (module.BRIDGE_VERSION, module.TRANSPORT_VERSION)
    expected = (BRIDGE_VERSION, ABI_VERSION)
    if found != expected:
        return f"predictd-native is of another version: its interfaces are {found}, needed are {expected}"
    return ""


def carrier(asked: str, problem: str) -> Carrier:
    """What carries the connections.

    Args:
        asked: As the setting `frontend` has it.
        problem: Of native_problem.

    Raises:
        ConfigError: What is asked for cannot be had.
    """
    if asked == "grpcio":
        return Carrier(native=False, reason="connections: by grpcio, as frontend says")
    if not problem:
        return Carrier(native=True, reason="connections: by predictd-native")
    if asked == "native":
        raise ConfigError("frontend", f"native cannot be had: {problem}")
    return Carrier(native=False, reason=f"connections: by grpcio; {problem}")
