"""Whatever becomes of a repository, its loads and its workers, the reconciler gets there and drops nothing."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from predictd.server.repository.reconcile import (
    Cancel,
    Content,
    Forget,
    LaneState,
    Observed,
    Retire,
    Start,
    Wanted,
    default_version,
    reconcile,
)

MODELS = ("a", "b")
contents = st.lists(
    st.builds(Content, st.integers(1, 3), st.sampled_from("xyz")),
    unique_by=lambda content: content.version,
    max_size=3,
).map(tuple)


class Repository(RuleBasedStateMachine):
    """Lanes as a supervisor would have them. `bad` is content that cannot be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.wanted: dict[str, Wanted] = {}
        self.lanes: dict[int, Observed] = {}
        self.bad: set[tuple[str, Content]] = set()
        self.served: set[str] = set()

    # What happens in the world ----------------------------------------------------------------------------------

    @rule(model=st.sampled_from(MODELS), found=contents, available=st.booleans())
    def change(self, model: str, found: tuple[Content, ...], available: bool) -> None:
        self.wanted[model] = Wanted(found, available)

    @rule(model=st.sampled_from(MODELS))
    def vanish(self, model: str) -> None:
        self.wanted.pop(model, None)

    @rule(
        model=st.sampled_from(MODELS), content=st.builds(Content, st.integers(1, 3), st.sampled_from("xyz"))
    )
    def spoil(self, model: str, content: Content) -> None:
        self.bad.add((model, content))

    def among(self, *states: LaneState) -> list[int]:
        return [number for number, lane in self.lanes.items() if lane.state in states]

    @precondition(lambda self: self.among(LaneState.LOADING))
    @rule(data=st.data())
    def loaded(self, data: st.DataObject) -> None:
        self.end_load(data.draw(st.sampled_from(self.among(LaneState.LOADING))))

    @precondition(lambda self: self.among(LaneState.READY))
    @rule(data=st.data())
    def worker_is_given_up(self, data: st.DataObject) -> None:
        """The lane's worker died too often. Availability is gone without anybody having decided so."""
        number = data.draw(st.sampled_from(self.among(LaneState.READY)))
        self.put(number, LaneState.FAILED)
        self.served = {model for model in self.served if self.ready(model)}

    @precondition(lambda self: self.among(LaneState.UNLOADING))
    @rule(data=st.data())
    def finished(self, data: st.DataObject) -> None:
        del self.lanes[data.draw(st.sampled_from(self.among(LaneState.UNLOADING)))]

    @rule()
    def act(self) -> None:
        """As the keeper does: until nothing is left to do."""
        rounds = 0
        while actions := reconcile(self.wanted, self.lanes.values()):
            rounds += 1
            assert rounds < 20, f"the reconciler never comes to rest: {actions}"
            for action in actions:
                self.carry_out(action)

    # What is done -----------------------------------------------------------------------------------------------

    def put(self, number: int, state: LaneState) -> None:
        lane = self.lanes[number]
        self.lanes[number] = Observed(number, lane.model, lane.content, state)

    def end_load(self, number: int) -> None:
        lane = self.lanes[number]
        failed = (lane.model, lane.content) in self.bad
        self.put(number, LaneState.FAILED if failed else LaneState.READY)
        if not failed:
            self.served.add(lane.model)

    def ready(self, model: str) -> list[Observed]:
        return [lane for lane in self.lanes.values() if lane.model == model and lane.state is LaneState.READY]

    def carry_out(self, action: Start | Retire | Cancel | Forget) -> None:
        match action:
            case Start(model=model, content=content):
                wanted = self.wanted[model]
                lanes = [lane for lane in self.lanes.values() if lane.model == model]
                assert content in wanted.contents
                assert all(lane.content != content or lane.state is LaneState.UNLOADING for lane in lanes)
                if not wanted.preserve_availability:
                    assert all(lane.content in wanted.contents for lane in lanes), "the old is not gone yet"
                    assert all(lane.state is not LaneState.UNLOADING for lane in lanes), "nor is this"
                number = next(self.numbers)
                self.lanes[number] = Observed(number, model, content, LaneState.LOADING)
            case Retire(lane=number):
                lane = self.lanes[number]
                wanted = self.wanted.get(lane.model, Wanted(()))
                assert lane.state is LaneState.READY
                assert lane.content not in wanted.contents
                self.put(number, LaneState.UNLOADING)
                if not wanted.contents or not wanted.preserve_availability:
                    self.served.discard(lane.model)
            case Cancel(lane=number):
                assert self.lanes[number].state is LaneState.LOADING
                del self.lanes[number]
            case Forget(lane=number):
                assert self.lanes[number].state is LaneState.FAILED
                del self.lanes[number]

    # What always holds ------------------------------------------------------------------------------------------

    @invariant()
    def what_was_served_is_served(self) -> None:
        """Unless it was given up, is not wanted, or was to make room first."""
        for model in self.served:
            assert self.ready(model), model

    @invariant()
    def only_what_is_ready_is_routed_to(self) -> None:
        for model in MODELS:
            lanes = [lane for lane in self.lanes.values() if lane.model == model]
            chosen = default_version(self.wanted.get(model, Wanted(())), lanes)
            ready = {lane.content.version for lane in self.ready(model)}
            assert chosen in ready if ready else chosen is None

    @invariant()
    def it_converges(self) -> None:
        """Once the repository rests and every load and every request comes to its end."""
        before, served = dict(self.lanes), set(self.served)
        for _ in range(20):
            self.act()
            moving = self.among(LaneState.LOADING, LaneState.UNLOADING)
            if not moving:
                break
            for number in moving:
                if self.lanes[number].state is LaneState.LOADING:
                    self.end_load(number)
                else:
                    del self.lanes[number]
        else:
            raise AssertionError("it never comes to rest")
        for model in MODELS:
            self.check_end(model)
        self.lanes, self.served = before, served

    def check_end(self, model: str) -> None:
        wanted = set(self.wanted.get(model, Wanted(())).contents)
        lanes = [lane for lane in self.lanes.values() if lane.model == model]
        ready = {lane.content for lane in lanes if lane.state is LaneState.READY}
        failed = {lane.content for lane in lanes if lane.state is LaneState.FAILED}
        assert wanted <= ready | failed
        assert failed <= wanted
        assert len(lanes) == len(ready) + len(failed), "a content is there twice"
        # Nothing old is left but what stands in for content that failed.
        assert not (ready - wanted) or failed


TestRepository = Repository.TestCase


@given(contents, contents, st.booleans())
def test_it_asks_for_nothing_that_is_so(
    found: tuple[Content, ...], old: tuple[Content, ...], kept: bool
) -> None:
    wanted = {"a": Wanted(found, kept)}
    lanes = [Observed(at, "a", content, LaneState.READY) for at, content in enumerate(found)]
    assert reconcile(wanted, lanes) == []
    retiring = [Observed(100 + at, "a", content, LaneState.UNLOADING) for at, content in enumerate(old)]
    assert reconcile(wanted, [*lanes, *retiring]) == []
