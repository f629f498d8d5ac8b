"""What adapters reach for a caller: models of its own, and refusals that tell nothing of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from predictd.server.access.identity import EVERY_ROLE, Identity, Role
from predictd.server.access.methods import PUBLIC
from predictd.server.access.rules import AccessRules
from predictd.server.access.tokens import Keyring, digest_of
from predictd.server.errors import ForbiddenError, OverloadedError, UnauthenticatedError
from predictd.server.frontend.access import Access
from predictd.server.frontend.guarded import GuardedControl, GuardedCore
from predictd.server.frontend.heading import Heading
from tests.unit.frontend.test_access import Call


class Crowded:
    """A core that would refuse whatever it is asked, and says for which models it was asked."""

    ready = pressed = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def check_unread(self, heading: Heading, *_: object) -> None:
        self.asked.append(heading.model)
        raise OverloadedError("the queue of model 'other' is full")

    check_unparsed = check_unread


def access_for(*models: str, roles: frozenset[Role] = EVERY_ROLE) -> Access:
    made = Access(AccessRules(tokens=True), lambda _: None)
    made.take(Keyring([(digest_of("x"), Identity("a", roles, models))]))
    call: Any = Call("Bearer x")
    made.admit(PUBLIC, call)
    return made


def test_under_overload_a_refusal_tells_only_of_models_that_are_the_caller_s() -> None:
    core = Crowded()
    limited, free = (GuardedCore(core, access_for(*models)) for models in (("mine",), ("*",)))  # type: ignore[arg-type]
    for check in (limited.check_unread, limited.check_unparsed):
        with pytest.raises(ForbiddenError):
            check(Heading("other"), "api", 0)
    assert core.asked == []
    # Nobody knows yet for which model it is: it is received, and looked at then.
    limited.check_unread(Heading(""), "api", 0)
    assert core.asked == []
    for core_, name in ((limited, "mine"), (free, ""), (free, "other")):
        with pytest.raises(OverloadedError):
            core_.check_unread(Heading(name), "api", 0)
    assert core.asked == ["mine", "", "other"]


@pytest.mark.parametrize(
    "command",
    [
        lambda control: control.load("m"),
        lambda control: control.unload("m"),
        lambda control: control.reload(),
        lambda control: control.serve([]),
        lambda control: control.set_log_level("debug"),
    ],
)
def test_commands_need_control_even_where_their_method_does_not(
    command: Callable[[GuardedControl], Any],
) -> None:
    sent: list[object] = []
    observer = GuardedControl(sent.append, access_for("*", roles=frozenset({Role.OBSERVE, Role.INFER})))
    with pytest.raises(ForbiddenError, match="has not the role control"):
        asyncio.run(command(observer))
    assert not observer.allowed
    nobody = GuardedControl(sent.append, Access(AccessRules(tokens=True), lambda _: None))
    with pytest.raises(UnauthenticatedError):
        asyncio.run(command(nobody))
    assert sent == []
