"""Client of the predictd inference daemon.

with Client("127.0.0.1:8001") as client:
    prediction = client.predict("resnet50", {"x": array})
    prediction.outputs["y"]
"""

from predictd.client.aio import AsyncClient
from predictd.client.description import Label, Model, ModelVersion, Setting, Split, TensorSpec
from predictd.client.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PredictdError,
    RequestCancelledError,
    TlsError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from predictd.client.messages import Prediction, Request, Timing
from predictd.client.retries import NO_RETRIES, Retries
from predictd.client.sync import Client
from predictd.client.tensors import BFloat16
from predictd.client.tls import Tls
from predictd.client.tokens import TokenFile

__all__ = [
    "NO_RETRIES",
    "AsyncClient",
    "BFloat16",
    "Client",
    "DeadlineExceededError",
    "InternalError",
    "InvalidRequestError",
    "Label",
    "Model",
    "ModelVersion",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "PredictdError",
    "Prediction",
    "Request",
    "RequestCancelledError",
    "Retries",
    "Setting",
    "Split",
    "TensorSpec",
    "Timing",
    "Tls",
    "TlsError",
    "TokenFile",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
]
