"""HandleReloadConfigRequest of TensorFlow Serving's API: the list of all models that shall be served."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from predictd.protos.tfs import serving_pb2 as pb
from predictd.server.control.commands import ListedModel
from predictd.server.errors import ForbiddenError, InvalidRequestError, RequestError, UnauthenticatedError
from predictd.server.frontend.status import status_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.server.frontend.control import Control

# Everybody who comes from TensorFlow Serving says "tensorflow"; what counts is what lies in the folder.
_PLATFORMS = ("", "tensorflow", "onnx", "onnxruntime")


async def reload_config(control: Control, request: pb.ReloadConfigRequest) -> pb.ReloadConfigResponse:
    """Serve what the request lists. What is wrong with it stands in the answer, as with TensorFlow Serving.

    Raises:
        ForbiddenError: Whoever asks may not give commands.
        UnauthenticatedError: Nobody knows who asks.
    """
    try:
        await control.serve(listed(request))
    except (ForbiddenError, UnauthenticatedError):
        raise
    except RequestError as error:
        status = pb.StatusProto(error_code=status_name(error), error_message=str(error))
        return pb.ReloadConfigResponse(status=status)
    return pb.ReloadConfigResponse(status=pb.StatusProto())


def listed(request: pb.ReloadConfigRequest) -> Sequence[ListedModel]:
    """The models of a request.

    Raises:
        InvalidRequestError: It asks for something that predictd does not do.
    """
    if request.metric_names:
        raise InvalidRequestError("metric_names: metrics are not given here, but over HTTP at /metrics")
    kind = request.config.WhichOneof("config")
    if kind != "model_config_list":
        raise InvalidRequestError(f"the config must be a model_config_list, not {kind or 'empty'}")
    return [_listed(model) for model in request.config.model_config_list.config]


def _listed(model: pb.ModelConfig) -> ListedModel:
    if not model.name:
        raise InvalidRequestError("model_config_list has a model without a name")
    where = f"model {model.name!r}"
    if model.model_platform not in _PLATFORMS:
        raise InvalidRequestError(f"{where}: model_platform {model.model_platform!r} is not served here")
    if model.HasField("logging_config"):
        raise InvalidRequestError(f"{where}: logging_config: requests are not logged")
    policy = model.model_version_policy
    config = ""
    if policy.WhichOneof("policy_choice"):
        config = json.dumps({"version_policy": MessageToDict(policy, preserving_proto_field_name=True)})
    return ListedModel(
        name=model.name, base_path=model.base_path, config=config, labels=dict(model.version_labels)
    )
