"""What the loop in C has learned of a queue's waits, for requests of the same queue that Python answers."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from typing_extensions import override

from predictd.server.frontend.expectation import Expectation

_EXPECTED = struct.Struct("<dQQ")


@dataclass(slots=True)
class SharedExpectation(Expectation):
    """An expectation that goes by what the loop knows, as long as that knows anything.

    Attributes:
        memory: A `struct expected`, which the loop writes.
    """

    memory: bytearray = field(default_factory=lambda: bytearray(_EXPECTED.size))

    @override
    def _known(self, now_ns: int) -> bool:
        cost_ns, run_ns, until_ns = _EXPECTED.unpack(self.memory)
        if now_ns > until_ns or not cost_ns:
            # A class with slots is another one than its own methods think.
            return super(SharedExpectation, self)._known(now_ns)
        self._cost_ns, self._run_ns = cost_ns, run_ns
        return True
