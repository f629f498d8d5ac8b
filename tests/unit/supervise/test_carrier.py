"""What carries the connections of front ends."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from predictd.server.config.errors import ConfigError
from predictd.server.supervise.carrier import BRIDGE_VERSION, MODULE, carrier, native_problem
from predictd.server.transport.abi import ABI_VERSION


@pytest.mark.parametrize(
    ("asked", "problem", "native", "reason"),
    [
        ("auto", "", True, "connections: by predictd-native"),
        ("native", "", True, "connections: by predictd-native"),
        ("auto", "it is not there", False, "connections: by grpcio; it is not there"),
        ("grpcio", "", False, "connections: by grpcio, as frontend says"),
    ],
)
def test_the_fast_one_is_taken_where_it_is(asked: str, problem: str, native: bool, reason: str) -> None:
    taken = carrier(asked, problem)
    assert (taken.native, taken.reason) == (native, reason)


def test_who_asks_for_what_is_not_there_hears_so() -> None:
    with pytest.raises(ConfigError, match="frontend: native cannot be had: it is not there"):
        carrier("native", "it is not there")


@pytest.mark.parametrize(
    ("bridge", "transport", "problem"),
    [
        (BRIDGE_VERSION, ABI_VERSION, ""),
        (BRIDGE_VERSION + 1, ABI_VERSION, "of another version"),
        (BRIDGE_VERSION, ABI_VERSION + 1, "of another version"),
    ],
)
def test_versions_have_to_agree(
    bridge: int, transport: int, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(BRIDGE_VERSION=bridge, TRANSPORT_VERSION=transport)
    monkeypatch.setitem(sys.modules, MODULE, module)
    native_problem.cache_clear()
    try:
        assert problem in native_problem()
        assert bool(native_problem()) == bool(problem)
    finally:
        native_problem.cache_clear()
