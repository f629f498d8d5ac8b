"""A matter is settled exactly when everybody concerned has acknowledged or is dead, and is told so once."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from predictd.server.supervise.acks import Acknowledgements

READERS = range(4)
MATTERS = ("a", "b", "c")


class Settling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.acks = Acknowledgements()
        self.owed: dict[int, tuple[int, tuple[str, ...]]] = {}
        self.over: list[int] = []

    @rule(
        reader=st.sampled_from(READERS), matters=st.lists(st.sampled_from(MATTERS), unique=True, max_size=3)
    )
    def expect(self, reader: int, matters: list[str]) -> None:
        seq = self.acks.expect(reader, *matters)
        assert seq not in self.owed
        assert seq not in self.over
        self.owed[seq] = (reader, tuple(matters))

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        if self.owed:
            seq = data.draw(st.sampled_from(sorted(self.owed)))
            self._gone([seq], self.acks.acknowledge(seq))

    @rule(reader=st.sampled_from(READERS))
    def die(self, reader: int) -> None:
        seqs = [seq for seq, (owner, _) in self.owed.items() if owner == reader]
        self._gone(seqs, self.acks.forget(reader))

    @rule(data=st.data())
    def acknowledge_again(self, data: st.DataObject) -> None:
        known = st.sampled_from(self.over) if self.over else st.nothing()
        assert self.acks.acknowledge(data.draw(known | st.just(0) | st.just(10**9))) == []

    def _gone(self, seqs: list[int], settled: list[object]) -> None:
        concerned = {matter for seq in seqs for matter in self.owed.pop(seq)[1]}
        self.over += seqs
        assert sorted(map(str, settled)) == sorted(m for m in concerned if not self._outstanding(m))

    def _outstanding(self, matter: str) -> bool:
        return any(matter in matters for _, matters in self.owed.values())

    @invariant()
    def agrees(self) -> None:
        for matter in MATTERS:
            assert self.acks.is_settled(matter) != self._outstanding(matter)
        assert self.acks.is_settled("never heard of")


TestSettling = Settling.TestCase
