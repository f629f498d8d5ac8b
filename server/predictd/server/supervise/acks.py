"""Who still has to acknowledge what: the supervisor waits for all readers before it lets a writer go on.

A matter is anything that may be waited for, such as "segment 3 of front end 7" or "worker 12 may serve". It
is settled when nothing that concerns it is outstanding; a reader that dies settles everything it owed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable

Matter = Hashable


class Acknowledgements:
    """Pure bookkeeping: the caller sends the messages and acts on what is settled."""

    def __init__(self) -> None:
        self._sequence = itertools.count(1)
        self._owed: dict[int, tuple[int, tuple[Matter, ...]]] = {}
        self._outstanding: Counter[Matter] = Counter()

    def expect(self, reader: int, *matters: Matter) -> int:
        """A sequence number that `reader` is to acknowledge; the matters wait for it."""
        seq = next(self._sequence)
        self._owed[seq] = (reader, matters)
        self._outstanding.update(matters)
        return seq

    def acknowledge(self, seq: int) -> list[Matter]:
        """The reader did. Returns the matters that are settled by this."""
        owed = self._owed.pop(seq, None)
        return self._settle(owed[1]) if owed else []

    def forget(self, reader: int) -> list[Matter]:
        """The reader is dead. Returns the matters that are settled by this."""
        gone = [seq for seq, (owner, _) in self._owed.items() if owner == reader]
        return self._settle(itertools.chain.from_iterable(self._owed.pop(seq)[1] for seq in gone))

    def is_settled(self, matter: Matter) -> bool:
        """Whether nothing about the matter is outstanding."""
        return self._outstanding[matter] == 0

    def _settle(self, matters: Iterable[Matter]) -> list[Matter]:
        settled = []
        for matter in matters:
            self._outstanding[matter] -= 1
            if self._outstanding[matter] <= 0:
                del self._outstanding[matter]
                settled.append(matter)
        return settled
