"""Who is let in: every call is looked at here, at its headers, before any of its messages is received.

What is decided stands in `predictd.server.access.decisions`; this finds out who calls, and says what became of it.
A stream is looked at again for each of its messages, by then perhaps with other tokens.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from predictd.server.access.decisions import model_refusal, refusal
from predictd.server.access.identity import Identity, Role
from predictd.server.access.methods import ANY, INFER, Rule
from predictd.server.access.rules import LOCAL, AccessRules
from predictd.server.access.tokens import Credential, Keyring, digest_of
from predictd.server.errors import ForbiddenError, RefusalReason, RequestError, UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER = "authorization"
_SCHEME = "bearer "
_UNIX = "unix:"
_NOTHING = Credential()
_OF_ROLE = {role: Rule(frozenset({role})) for role in Role}

_log = logging.getLogger(__name__)


class Calling(Protocol):
    """A call, as far as it says who makes it."""

    def peer(self) -> str:
        """The client, as gRPC writes it."""

    def invocation_metadata(self) -> Any:
        """What came with the call: names and values."""

    def auth_context(self) -> Any:
        """What the client's certificate says."""


class Memory(Protocol):
    """Whoever remembers what was decided, and lets calls in without asking."""

    def shown(self, context: Calling) -> bytes:
        """What a call shows of its caller, as it is remembered; empty if it is nothing to remember."""

    def infers(self, shown: bytes, identity: Identity) -> None:
        """Whoever shows this was let infer, with the models that are its own, until it expires."""

    def clear(self) -> None:
        """Nothing that was decided holds any more."""


class Caller:
    """Who makes the present call.

    Args:
        credential: What it showed.
        peer: Where it calls from.
        local: That is the unix socket.
        shown: What it showed, as a `Memory` has it.
    """

    __slots__ = ("_identity", "_keyring", "credential", "local", "peer", "shown")

    def __init__(self, credential: Credential, peer: str, *, local: bool, shown: bytes = b"") -> None:
        self.credential = credential
        self.peer = peer
        self.local = local
        self.shown = shown
        self._keyring: Keyring | None = None
        self._identity: Identity | None = None

    def identity(self, keyring: Keyring) -> Identity | None:
        """Who it is, to these keys; found out once for each."""
        if self._keyring is not keyring:
            self._keyring, self._identity = keyring, keyring.find(self.credential)
        return self._identity


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def caller_name() -> str:
    """The name of the present call's caller; empty where it needs none."""
    caller = _caller.get()
    identity = None if caller is None else caller._identity  # noqa: SLF001 - the class is this module's
    return identity.name if identity is not None else ""


class Access:
    """Lets callers in or refuses them. Runs on the event loop alone.

    Args:
        rules: Who is let in.
        count: Told the reason of each refusal.

    Attributes:
        memory: Told who may infer.
    """

    def __init__(self, rules: AccessRules, count: Callable[[RefusalReason], None]) -> None:
        self._rules = rules
        self._count = count
        self._keyring = Keyring()
        self._anybody = rules.anybody(local=False)
        self.memory: Memory | None = None

    def take(self, keyring: Keyring) -> None:
        """Know these tokens and certificates from now on, and no others."""
        self._keyring = keyring
        if self.memory is not None:
            self.memory.clear()

    @property
    def by_model(self) -> bool:
        """Some callers may use some models and not others."""
        return self._rules.tokens

    def guards(self, rule: Rule) -> bool:
        """Whether calls of a method have to be looked at. Those that anybody may make cost nothing."""
        return self._rules.tokens or (Role.CONTROL in rule.roles and self._anybody != LOCAL)

    def admit(self, rule: Rule, context: Calling) -> None:
        """Let a call in, of which the headers have come.

        Raises:
            UnauthenticatedError: Nobody knows who calls.
            ForbiddenError: It may not call this.
        """
        caller = self._recognise(context)
        _caller.set(caller)
        reason = refusal(rule, self._identity(caller), time.time())
        if reason is not None:
            raise self._refused(reason, rule, caller)

    def note(self, context: Calling) -> None:
        """Have the present call be of this caller, who was let in elsewhere."""
        caller = self._recognise(context)
        _caller.set(caller)
        self._identity(caller)

    def name_of(self, context: Calling) -> str:
        """The name of a call's caller; empty where it needs none, or is known no more."""
        identity = self._identity(self._recognise(context))
        return "" if identity is None else identity.name

    def require(self, role: Role, model: str | None = None) -> None:
        """Have the present call's caller be let do something.

        Args:
            role: That it needs.
            model: That it is about; None for all that there are.

        Raises:
            UnauthenticatedError: What it showed is not good, or not any more.
            ForbiddenError: It may not do this.
        """
        self._require(_OF_ROLE[role], model)

    def require_model(self, model: str) -> None:
        """Have the present call's caller be let know of a model. Raises as `require` does."""
        self._require(ANY, model)

    def _require(self, rule: Rule, model: str | None) -> None:
        caller = _caller.get()
        identity = self._identity(caller)
        reason = refusal(rule, identity, time.time()) or model_refusal(identity, model)
        if reason is not None:
            raise self._refused(reason, rule, caller, model)
        if (
            self.memory is not None
            and rule == INFER
            and caller is not None
            and caller.shown
            and identity is not None
        ):
            self.memory.infers(caller.shown, identity)

    def sees(self, model: str | None) -> bool:
        """Whether the present call's caller may know of a model; of all that there are, for None."""
        identity = self._identity(_caller.get())
        return (refusal(ANY, identity, time.time()) or model_refusal(identity, model)) is None

    def has_role(self, role: Role) -> bool:
        """Whether the present call's caller has a role."""
        return refusal(_OF_ROLE[role], self._identity(_caller.get()), time.time()) is None

    def _identity(self, caller: Caller | None) -> Identity | None:
        if self._rules.tokens:
            return None if caller is None else caller.identity(self._keyring)
        return self._anybody if caller is None else self._rules.anybody(local=caller.local)

    def _recognise(self, context: Calling) -> Caller:
        peer = context.peer()
        local = peer.startswith(_UNIX)
        credential = self._credential(context, local=local) if self._rules.tokens else _NOTHING
        shown = self.memory.shown(context) if self.memory is not None else b""
        return Caller(credential, peer, local=local, shown=shown)

    def _credential(self, context: Calling, *, local: bool) -> Credential:
        shown = [value for key, value in context.invocation_metadata() or () if key == _HEADER]
        if shown:
            return Credential(_token_digest(shown))
        if local or not self._rules.client_certificates:
            return _NOTHING
        about: Mapping[str, Any] = context.auth_context()
        return Credential(
            alternative_names=frozenset(_texts(about, "x509_subject_alternative_name")),
            common_name=next(iter(_texts(about, "x509_common_name")), ""),
        )

    def _refused(
        self, reason: RefusalReason, rule: Rule, caller: Caller | None, model: str | None = None
    ) -> RequestError:
        """The error for a refusal, which is counted and logged."""
        if reason == "no_credentials" and caller is not None and caller.credential.digest:
            reason = "invalid_credentials"
        self._count(reason)
        peer = "" if caller is None else unquote(caller.peer)
        about = {"client": peer, "caller": caller_name()}
        _log.warning(
            "a call was refused: %s", reason, extra={key: text for key, text in about.items() if text}
        )
        match reason:
            case "no_credentials":
                return UnauthenticatedError("a token is needed, as metadata 'authorization: Bearer TOKEN'")
            case "invalid_credentials":
                return UnauthenticatedError("the token is not valid")
            case "model" if model is None:
                return ForbiddenError("this caller may not do that, which is about every model")
            case "model":
                return ForbiddenError(f"this caller may not use model {model!r}")
            case _:
                return ForbiddenError(self._missing(rule))

    def _missing(self, rule: Rule) -> str:
        if self._rules.tokens:
            return f"this caller has not the role {' or '.join(sorted(rule.roles))}, which this needs"
        return "commands are refused because gRPC listens beyond this machine; --allow-control or --tokens lets them in"


def _token_digest(shown: list[str | bytes]) -> bytes:
    """The digest of the token that a call shows. What is no token has one of its own, that no token has."""
    value = shown[0]
    if len(shown) > 1 or not isinstance(value, str) or value[: len(_SCHEME)].lower() != _SCHEME:
        return b"no token"
    return digest_of(value[len(_SCHEME) :].strip())


def _texts(about: Mapping[str, Any], key: str) -> list[str]:
    return [value.decode("utf-8", "replace") for value in about.get(key, ())]
