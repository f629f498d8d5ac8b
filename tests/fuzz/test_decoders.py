"""Whatever comes, a decoder takes it or refuses it in words, soon and within bounds."""

from __future__ import annotations

import math
import secrets

import pytest

from tests.fuzz.target import Target, fuzz
from tests.fuzz.targets import TARGETS

# Together a hundred thousand, and two million.
MESSAGES = 100_000
SOAK_MESSAGES = 2_000_000


def messages(target: Target, total: int) -> int:
    """How many of all messages are its."""
    return math.ceil(total * target.share / sum(each.share for each in TARGETS.values()))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_seeds_are_taken(target: Target) -> None:
    assert all(target.taken(seed) for seed in target.seeds)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_mutated_messages_are_taken_or_refused(target: Target) -> None:
    fuzz(target, messages(target, MESSAGES), seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_many_mutated_messages_are_taken_or_refused(target: Target) -> None:
    """With other random numbers each time; the message that fails is shown, and so is the seed."""
    fuzz(target, messages(target, SOAK_MESSAGES), secrets.randbits(32))
