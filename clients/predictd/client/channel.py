"""How a target is reached: the options of a channel, and the paths of predictd.v1."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

_SERVICE = "/predictd.v1.PredictionService"
PREDICT = f"{_SERVICE}/Predict"
PREDICT_STREAM = f"{_SERVICE}/PredictStream"
LIST_MODELS = f"{_SERVICE}/ListModels"
GET_MODEL = f"{_SERVICE}/GetModel"
_ROUTING = "/predictd.v1.RoutingService"
SET_LABEL = f"{_ROUTING}/SetLabel"
SET_SPLIT = f"{_ROUTING}/SetSplit"
_CONTROL = "/predictd.v1.ControlService"
LOAD_MODEL = f"{_CONTROL}/LoadModel"
UNLOAD_MODEL = f"{_CONTROL}/UnloadModel"

# What a request is for, told before it is sent: a daemon that has too much to do then refuses it unsent.
_MODEL_KEY = "predictd-model"
_PRIORITY_KEY = "predictd-priority"

Metadata = tuple[tuple[str, str], ...]
Arguments = tuple[tuple[str, int | str], ...]

# The daemon bounds messages; gRPC's own 4 MiB would refuse many an answer. -1 is no limit.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC begins a call anew by itself where the server said goodbye to the connection before it looked at the call.
    # One that is larger than this, by default 256 KiB, is lost.
    ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted connection.

    Attributes:
        root_certificates: Whom to trust, in PEM; None for those that gRPC brings.
        certificate_chain: What the client shows the server, in PEM.
        private_key: Of that certificate, in PEM.
        server_name: The name in the server's certificate, where it is not the target's.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """The same for gRPC."""
        return grpc.ssl_channel_credentials(self.root_certificates, self.private_key, self.certificate_chain)


def arguments(tls: Tls | None, health_service: str | None) -> Arguments:
    """The options of a channel: one that shares its connection with no other, and balances over all addresses."""
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if health_service is not None:
        config["healthCheckConfig"] = {"serviceName": health_service}
    named: Sequence[tuple[str, str]] = ()
    if tls is not None and tls.server_name is not None:
        named = (("grpc.ssl_target_name_override", tls.server_name),)
    return (
        *OPTIONS,
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config", json.dumps(config)),
        *named,
    )


def about(model: str, priority: int) -> Metadata:
    """The metadata of a request. A name that metadata cannot carry is left to the request."""
    if not (model and model.isascii() and model.isprintable() and model.strip() == model):
        return ()
    named = ((_MODEL_KEY, model),)
    return (*named, (_PRIORITY_KEY, str(priority))) if priority else named
