"""predictd.v1.RoutingService: what is passed on, what is refused before that, and from where."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from predictd.protos.v1 import routing_pb2 as pb
from predictd.server.control.commands import SetLabel, SetSplit
from predictd.server.control.message import Message
from predictd.server.errors import ModelUnavailableError
from predictd.server.frontend import changes as changes_module
from predictd.server.frontend.apis import routing_v1
from predictd.server.frontend.changes import Changes
from tests.unit.apis.test_fake_core import refusal, serving, unary

SHARES = [pb.SetSplitRequest().shares.add(version=version, percent=50) for version in (1, 2)]


class Supervisor:
    """Answers each change at once, in the order told."""

    def __init__(self, status: str = "", message: str = "") -> None:
        self.asked: list[Message] = []
        self.changes = Changes(self._send)
        self._answer = (status, message)

    def _send(self, message: Message, fds: list[int]) -> None:
        assert isinstance(message, SetLabel | SetSplit)
        assert fds == []
        self.asked.append(message)
        # One that nobody asked for is passed over.
        self.changes.on_done(message.seq + 1000, "NOT_FOUND", "another")
        self.changes.on_done(message.seq, *self._answer)


def call(
    supervisor: Supervisor, request: pb.SetLabelRequest | pb.SetSplitRequest | bytes
) -> tuple[grpc.StatusCode, str | None]:
    method = "SetSplit" if isinstance(request, pb.SetSplitRequest) else "SetLabel"
    data = request if isinstance(request, bytes) else request.SerializeToString()

    async def scenario() -> tuple[grpc.StatusCode, str | None]:
        async with serving(routing_v1.handlers(supervisor.changes)) as channel:
            one = unary(channel, f"/{routing_v1.SERVICE}/{method}")(data, timeout=30)
            if await one.code() is grpc.StatusCode.OK:
                assert await one == b""
                return grpc.StatusCode.OK, ""
            error = await refusal(one)
            return error.code(), error.details()

    return asyncio.run(scenario())


def test_a_change_reaches_the_supervisor_as_it_was_asked_for() -> None:
    supervisor = Supervisor()
    for request in (
        pb.SetLabelRequest(model="m", label="canary", version=3),
        pb.SetLabelRequest(model="m", label="canary", version=3, allow_unready=True),
        pb.SetLabelRequest(model="m", label="canary", remove=True),
        pb.SetSplitRequest(model="m", shares=SHARES),
        pb.SetSplitRequest(model="m", allow_unready=True),
    ):
        assert call(supervisor, request) == (grpc.StatusCode.OK, "")
    assert supervisor.asked == [
        SetLabel(seq=1, model="m", label="canary", version=3, allow_unready=False),
        SetLabel(seq=2, model="m", label="canary", version=3, allow_unready=True),
        SetLabel(seq=3, model="m", label="canary", version=None, allow_unready=False),
        SetSplit(seq=4, model="m", split=((1, 50), (2, 50)), allow_unready=False),
        SetSplit(seq=5, model="m", split=(), allow_unready=True),
    ]


@pytest.mark.parametrize("status", ["NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAVAILABLE"])
def test_a_refusal_of_the_supervisor_is_the_calls_status(status: str) -> None:
    answer = call(Supervisor(status, "because"), pb.SetLabelRequest(model="m", label="a", version=1))
    assert answer == (grpc.StatusCode[status], "because")


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (pb.SetLabelRequest(label="a", version=1), "INVALID_ARGUMENT", "the request names no model"),
        (pb.SetLabelRequest(model="m", label="a"), "INVALID_ARGUMENT", "gives the label no version"),
        (
            pb.SetLabelRequest(model="m", label="a", remove=False),
            "INVALID_ARGUMENT",
            "gives the label no version",
        ),
        (pb.SetLabelRequest(model="m", label="a b", version=1), "INVALID_ARGUMENT", "cannot be a label"),
        (
            pb.SetLabelRequest(model="m", label="x" * 10**6, version=1),
            "INVALID_ARGUMENT",
            "xxx…",
        ),
        (pb.SetLabelRequest(model="m" * 10**6, label="a", version=1), "NOT_FOUND", "1000000 characters"),
        (pb.SetSplitRequest(model="m", shares=SHARES[:1]), "INVALID_ARGUMENT", "make 50%, not 100%"),
        (pb.SetSplitRequest(model="m", shares=SHARES[:1] * 4000), "INVALID_ARGUMENT", "at most 16 versions"),
        (b"\xff", "INVALID_ARGUMENT", "not a valid predictd.v1.SetLabelRequest message"),
    ],
    ids=lambda value: None if isinstance(value, str) else "request",
)
def test_what_no_supervisor_would_do_never_reaches_it(
    request_: pb.SetLabelRequest | pb.SetSplitRequest | bytes, code: str, message: str
) -> None:
    supervisor = Supervisor()
    found, said = call(supervisor, request_)
    assert (found.name, message in (said or "")) == (code, True), said
    assert supervisor.asked == []


def test_a_supervisor_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        changes = Changes(lambda *_: None)
        monkeypatch.setattr(changes_module, "TIMEOUT_SECONDS", 0.0)
        with pytest.raises(ModelUnavailableError, match="does not say whether the change was made"):
            await changes.set_label("m", "a", 1, allow_unready=False)
        # Its answer comes all the same.
        changes.on_done(1, "", "")

    asyncio.run(scenario())
