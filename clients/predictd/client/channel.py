"""How a target is reached: the options of a channel, and the paths of predictd.v1."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from predictd.client import tokens

if TYPE_CHECKING:
    from predictd.client.tls import Tls

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
    # A server that comes back shall not wait for its clients for the two minutes that gRPC lets pass in the end.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A server that vanished without a word, with its machine or behind a firewall, is found out while calls wait for
    # it, else each of them would run into its deadline. The daemon allows a question in 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Of its own accord gRPC waits a minute, whatever the timeout of the keepalive says.
    ("grpc.http2.ping_timeout_ms", 20_000),
)
# A name that is longer is left to the request: servers bound what metadata may have.
_NAME_CHARACTERS = 1024


def arguments(target: str, tls: Tls | None, health_service: str | None) -> Arguments:
    """The options of a channel: one that shares its connection with no other, and balances over all addresses."""
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if health_service is not None:
        config["healthCheckConfig"] = {"serviceName": health_service}
    more: list[tuple[str, int | str]] = []
    if tls is not None and tls.server_name is not None:
        more.append(("grpc.ssl_target_name_override", tls.server_name))
    if tokens.stays_here(target):
        # gRPC would send also what is for this machine to a proxy that the environment names.
        more.append(("grpc.enable_http_proxy", 0))
    return (
        *OPTIONS,
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config", json.dumps(config)),
        *more,
    )


def about(model: str, priority: int) -> Metadata:
    """The metadata of a request. A name that metadata cannot carry is left to the request."""
    if not (0 < len(model) <= _NAME_CHARACTERS and model.isascii() and model.isprintable()):
        return ()
    if model.strip() != model:
        return ()
    named = ((_MODEL_KEY, model),)
    return (*named, (_PRIORITY_KEY, str(priority))) if priority else named
