"""All that is fuzzed, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz import api_targets, file_targets, transport_targets
from tests.fuzz.target import Target

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (*api_targets.TARGETS, *file_targets.TARGETS, *transport_targets.TARGETS)
}
