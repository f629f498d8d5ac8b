"""What both clients must agree on: the paths of predictd.v1 and the options of a channel."""

from __future__ import annotations

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


def about(model: str, priority: int) -> tuple[tuple[str, str], ...]:
    """The metadata of a request. A name that metadata cannot carry is left to the request."""
    if not (model and model.isascii() and model.isprintable() and model.strip() == model):
        return ()
    named = ((_MODEL_KEY, model),)
    return (*named, (_PRIORITY_KEY, str(priority))) if priority else named


# The daemon bounds messages; gRPC's own 4 MiB would refuse many an answer. -1 is no limit.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC begins a call anew by itself where the server said goodbye to the connection before it looked at the call.
    # One that is larger than this, by default 256 KiB, is lost.
    ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),
)
