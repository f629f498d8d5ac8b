"""What of the settings decides who is let in."""

from __future__ import annotations

from dataclasses import dataclass

from predictd.server.access.identity import EVERY_ROLE, Identity, Role

# Whoever calls from this machine, or reaches an address that only this machine reaches, where nobody needs a token.
LOCAL = Identity("", EVERY_ROLE)
# The same from elsewhere.
REMOTE = Identity("", frozenset({Role.INFER, Role.OBSERVE}))


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """Who is let in.

    Attributes:
        tls: Connections over TCP are encrypted.
        tokens: There is a file of tokens: whoever is not in it may do nothing.
        client_certificates: Connections over TCP show a certificate of an authority that is trusted.
        private: Only this machine reaches the address.
        allow_control: Without tokens, commands are taken from elsewhere, too.
    """

    tls: bool = False
    tokens: bool = False
    client_certificates: bool = False
    private: bool = True
    allow_control: bool = False

    def anybody(self, *, local: bool) -> Identity:
        """Who calls, where there are no tokens.

        Args:
            local: The call came through the unix socket.
        """
        return LOCAL if local or self.private or self.allow_control else REMOTE
