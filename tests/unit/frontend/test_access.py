"""Guarding methods: who calls is found out at the headers, and a method without a rule does not exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from typing_extensions import override

from predictd.server.access.identity import EVERY_ROLE, Identity, Role
from predictd.server.access.methods import ANY, CONTROL, INFER, PUBLIC, READ_OR_CONTROL, RULES, Rule
from predictd.server.access.rules import AccessRules
from predictd.server.access.tokens import Credential, Keyring, digest_of
from predictd.server.errors import ForbiddenError, RefusalReason, UnauthenticatedError
from predictd.server.frontend.access import Access, caller_name
from predictd.server.frontend.apis import rpc
from predictd.server.frontend.registry import Registry
from predictd.server.frontend.uploads import Received, Uploads
from tests.unit.apis.test_fake_core import refusal, serving

FRIEND = Identity("friend", EVERY_ROLE, ("mine*",))
REASONS: list[RefusalReason] = []


class Call:
    """A call's context."""

    def __init__(
        self, *authorization: str | bytes, peer: str = "ipv4:1.2.3.4:5", **about: list[bytes]
    ) -> None:
        self._metadata = tuple(("authorization", value) for value in authorization)
        self._peer = peer
        self._about = about

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return (("x", "y"), *self._metadata)

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._about


def access(*, certificates: bool = False, **more: bool) -> tuple[Access, list[RefusalReason]]:
    reasons: list[RefusalReason] = []
    made = Access(AccessRules(tokens=True, client_certificates=certificates, **more), reasons.append)
    made.take(Keyring([(digest_of("secret"), FRIEND)]))
    return made, reasons


def admit(made: Access, call: Any, rule: Rule = INFER) -> None:
    made.admit(rule, call)


@pytest.mark.parametrize("shown", ["Bearer secret", "bearer secret", "BEARER  secret "])
def test_a_token_is_shown_as_bearer(shown: str) -> None:
    made, reasons = access()
    admit(made, Call(shown))
    assert (caller_name(), reasons) == ("friend", [])


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (Call(), "no_credentials"),
        (Call(peer="unix:"), "no_credentials"),
        (Call("secret"), "invalid_credentials"),
        (Call("Basic secret"), "invalid_credentials"),
        (Call("Bearer "), "invalid_credentials"),
        (Call("Bearer Secret"), "invalid_credentials"),
        (Call(b"Bearer secret"), "invalid_credentials"),
        # Which of two a proxy before us looked at nobody knows.
        (Call("Bearer secret", "Bearer secret"), "invalid_credentials"),
    ],
)
def test_strangers_are_told_no_more_than_that(call: Any, reason: RefusalReason) -> None:
    made, reasons = access()
    with pytest.raises(UnauthenticatedError) as caught:
        admit(made, call)
    assert reasons == [reason]
    assert str(caught.value) in (
        "the token is not valid",
        "a token is needed, as metadata 'authorization: Bearer TOKEN'",
    )
    admit(made, call, PUBLIC)
    assert not made.sees("mine")


def test_a_certificate_counts_where_it_was_asked_for_and_no_token_is_shown() -> None:
    shown: dict[str, Any] = {
        "x509_subject_alternative_name": [b"a.example", b"spiffe://x"],
        "x509_common_name": [b"a"],
    }
    seen: list[Credential] = []

    class Watching(Keyring):
        @override
        def find(self, credential: Credential) -> Identity | None:
            seen.append(credential)
            return FRIEND

    for certificates, call in (
        (True, Call(**shown)),
        (True, Call("Bearer x", **shown)),
        (False, Call(**shown)),
        (True, Call(peer="unix:", **shown)),
    ):
        made, _ = access(certificates=certificates)
        made.take(Watching())
        admit(made, call)
    assert seen == [
        Credential(b"", frozenset({"a.example", "spiffe://x"}), "a"),
        Credential(digest_of("x")),
        Credential(),
        Credential(),
    ]


def test_a_stream_is_looked_at_again_when_tokens_change() -> None:
    made, reasons = access()
    admit(made, Call("Bearer secret"))
    made.require(Role.INFER, "mine")
    with pytest.raises(ForbiddenError, match="may not use model 'yours'"):
        made.require(Role.INFER, "yours")
    with pytest.raises(ForbiddenError, match="about every model"):
        made.require(Role.CONTROL)
    made.take(Keyring([(digest_of("secret"), Identity("friend", frozenset({Role.OBSERVE})))]))
    with pytest.raises(ForbiddenError, match="has not the role infer"):
        made.require(Role.INFER, "mine")
    made.take(Keyring())
    with pytest.raises(UnauthenticatedError, match="the token is not valid"):
        made.require(Role.INFER, "mine")
    assert reasons == ["model", "model", "role", "invalid_credentials"]


def test_without_tokens_only_commands_are_looked_at() -> None:
    private, public = (Access(AccessRules(private=each), REASONS.append) for each in (True, False))
    assert [public.guards(rule) for rule in (PUBLIC, INFER, CONTROL, ANY)] == [False, False, True, True]
    assert [private.guards(rule) for rule in (PUBLIC, INFER, CONTROL, ANY)] == [False] * 4
    with pytest.raises(ForbiddenError, match="--allow-control"):
        admit(public, Call(), CONTROL)
    # The log's settings may be read from everywhere, and changed from here.
    admit(public, Call(), READ_OR_CONTROL)
    assert not public.has_role(Role.CONTROL)
    admit(public, Call(peer="unix:"), READ_OR_CONTROL)
    assert public.has_role(Role.CONTROL)
    admit(public, Call(peer="unix:"), CONTROL)
    admit(private, Call(), CONTROL)


def test_a_method_without_a_rule_cannot_be_registered() -> None:
    async def handler(_: bytes, __: rpc.Context) -> bytes:
        return b""

    with pytest.raises(TypeError, match=r"/predictd\.v1\.ControlService/Forgotten is in no rule"):
        rpc.service("predictd.v1.ControlService", {"Forgotten": grpc.unary_unary_rpc_method_handler(handler)})
    with pytest.raises(TypeError, match="no service has /"):
        Registry((), Access(AccessRules(), REASONS.append), RULES)


def test_what_is_refused_is_not_received_whatever_kind_of_method_it_is() -> None:
    """The request is larger than gRPC sends before somebody reads: its call would not end if it was read."""
    received = []

    async def once(request: bytes, _: Any) -> bytes:
        received.append(len(request))
        return request[:1]

    async def first(_: object, context: Any) -> bytes:
        received.append(len(await context.read()))
        return b"y"

    async def both(_: object, context: Any) -> None:
        await context.write(b"z")

    async def many(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request[:1]

    kinds: dict[str, Any] = {
        "/a.B/Once": grpc.unary_unary_rpc_method_handler(once),
        "/a.B/First": grpc.stream_unary_rpc_method_handler(first),
        "/a.B/Both": grpc.stream_stream_rpc_method_handler(both),
        "/a.B/Many": grpc.stream_stream_rpc_method_handler(many),
    }
    service = grpc.method_handlers_generic_handler("a.B", {path[5:]: kind for path, kind in kinds.items()})
    made, reasons = access()
    data = bytes(200_000)

    async def scenario() -> None:
        registry = Registry((Received(service, Uploads()),), made, dict.fromkeys(kinds, INFER))
        async with serving(registry) as channel:
            for path in ("/a.B/Once", "/a.B/First"):
                ask: Any = channel.unary_unary(path)
                error = await refusal(ask(data, timeout=30))
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert received == []
                answer: bytes = await ask(data, timeout=30, metadata=(("authorization", "Bearer secret"),))
                assert len(answer) == 1
                assert received.pop() == len(data)
            for path in ("/a.B/Both", "/a.B/Many"):
                for metadata, expected in (((), None), ((("authorization", "Bearer secret"),), 1)):
                    opening: Any = channel.stream_stream(path)
                    call = opening(iter([data]), timeout=30, metadata=metadata)
                    if expected is None:
                        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
                    else:
                        assert len(await call.read()) == expected
            missing: Any = channel.unary_unary("/a.B/Unknown")
            unknown = await refusal(missing(b"", timeout=30))
            assert unknown.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(scenario())
    assert reasons == ["no_credentials"] * 4
    with pytest.raises(TypeError, match="before its caller is let in"):
        Registry((service,), made, {"/a.B/Once": INFER})
