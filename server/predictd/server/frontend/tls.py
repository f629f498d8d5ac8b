"""The certificate that a front end shows, which may be another for the next connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from predictd.server.access.material import Material


class ServerTls:
    """Keeps what new connections are shown."""

    def __init__(self, *, client_certificates: bool) -> None:
        self._client_certificates = client_certificates
        self._current: grpc.ServerCertificateConfiguration | None = None

    def take(self, material: Material) -> None:
        """Show this from now on."""
        self._current = grpc.ssl_server_certificate_configuration(
            [(material.key, material.certificate)], material.client_ca or None
        )

    def credentials(self) -> grpc.ServerCredentials:
        """For one port: each has to hear of a change by itself."""
        if self._current is None:
            raise RuntimeError("there is no certificate yet. This is a bug.")
        # The stubs forget that None says that there is nothing new.
        news: Any = self._news(self._current)
        return grpc.dynamic_ssl_server_credentials(
            self._current, news, require_client_authentication=self._client_certificates
        )

    def _news(
        self, first: grpc.ServerCertificateConfiguration
    ) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        told = first

        # gRPC asks at each handshake, in a thread of its own.
        def news() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            current = self._current
            if current is told or current is None:
                return None
            told = current
            return current

        return news
