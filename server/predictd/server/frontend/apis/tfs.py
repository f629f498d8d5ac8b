"""TensorFlow Serving's API: the services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from predictd.protos.tfs import serving_pb2 as pb
from predictd.server.errors import (
    FailedPreconditionError,
    InvalidRequestError,
    ModelUnavailableError,
    UnknownModelError,
)
from predictd.server.frontend.apis import headings
from predictd.server.frontend.apis.rpc import (
    MESSAGE_BYTES_MAX,
    Context,
    Handler,
    fitting,
    inference,
    parse,
    service,
    unary,
)
from predictd.server.frontend.apis.tfs_examples import example_inputs, examples
from predictd.server.frontend.apis.tfs_models import (
    SIGNATURE,
    Choice,
    check_metadata_fields,
    choice,
    model_metadata,
    resolve,
)
from predictd.server.frontend.apis.tfs_predict import decode_predict, encode_predict
from predictd.server.frontend.apis.tfs_reload import reload_config
from predictd.server.frontend.apis.tfs_scores import Encode, classifying, regressing
from predictd.server.frontend.apis.tfs_status import model_status
from predictd.server.frontend.inference import InferRequest, InferResponse
from predictd.server.frontend.status import StatusTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from predictd.server.frontend.control import Control
    from predictd.server.frontend.core import Core
    from predictd.server.frontend.inference import VersionInfo

API = "tfs"
PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
SERVICES = (PREDICTION_SERVICE, MODEL_SERVICE)
# Where TensorFlow Serving's own table differs (a version that is not ready, an unknown label), another error is
# raised: the same failure has another meaning once a request was accepted.
STATUSES = StatusTable()


def handlers(
    core: Core,
    max_message_bytes: int = MESSAGE_BYTES_MAX,
    *,
    tensor_content: bool = False,
    control: Control | None = None,
) -> Sequence[grpc.GenericRpcHandler]:
    """The services.

    Args:
        core: Answers.
        max_message_bytes: The largest answer that the server's options let pass, and what the inputs of a request
            may become once they are written out.
        tensor_content: Answer in `tensor_content` rather than in lists of values.
        control: Carries commands out; without it there are none.
    """
    commands = {"HandleReloadConfigRequest": _reload_config(control)} if control else {}
    return (
        service(
            PREDICTION_SERVICE,
            {
                "Predict": _predict(core, max_message_bytes, tensor_content),
                "Classify": _scores(core, max_message_bytes, pb.ClassificationRequest, classifying),
                "Regress": _scores(core, max_message_bytes, pb.RegressionRequest, regressing),
                "GetModelMetadata": _metadata(core),
            },
        ),
        service(MODEL_SERVICE, {"GetModelStatus": _status(core), **commands}),
    )


def _predict(core: Core, max_message_bytes: int, as_content: bool) -> Handler:
    async def predict(data: bytes, deadline: int) -> bytes:
        message = parse(pb.PredictRequest, data)
        if not _is_served(message.model_spec):
            resolve(core, choice(message.model_spec))
            name = message.model_spec.signature_name
            raise FailedPreconditionError(f'Serving signature key "{name}" not found.')
        request = decode_predict(message, max_message_bytes)
        response = await _infer(core, request, deadline)
        return fitting(encode_predict(response, as_content=as_content), max_message_bytes)

    return inference(predict, STATUSES, core, API, headings.tfs)


def _scores(
    core: Core,
    max_message_bytes: int,
    kind: type[pb.ClassificationRequest | pb.RegressionRequest],
    encoding: Callable[[VersionInfo], Encode],
) -> Handler:
    async def answer(data: bytes, deadline: int) -> bytes:
        message = parse(kind, data)
        spec = message.model_spec
        version = resolve(core, choice(spec), draw=True)
        if not _is_served(spec):
            raise InvalidRequestError(f"No signature was found with the name: {spec.signature_name}")
        encode = encoding(version)
        given = examples(message.input)
        inputs = example_inputs(given, version.inputs, max_message_bytes)
        # Of the very version whose signature was read.
        request = InferRequest(model=spec.name, inputs=inputs, version=version.version)
        response = await _infer(core, request, deadline)
        return fitting(encode(response, len(given.rows)), max_message_bytes)

    return inference(answer, STATUSES, core, API, headings.tfs)


def _metadata(core: Core) -> Handler:
    async def metadata(data: bytes, _: Context) -> bytes:
        request = parse(pb.GetModelMetadataRequest, data)
        check_metadata_fields(request)
        chosen = choice(request.model_spec)
        return model_metadata(chosen.model, resolve(core, chosen)).SerializeToString()

    return unary(metadata, STATUSES)


def _status(core: Core) -> Handler:
    async def status(data: bytes, _: Context) -> bytes:
        return model_status(core, parse(pb.GetModelStatusRequest, data)).SerializeToString()

    return unary(status, STATUSES)


def _reload_config(control: Control) -> Handler:
    async def reload(data: bytes, _: Context) -> bytes:
        return (await reload_config(control, parse(pb.ReloadConfigRequest, data))).SerializeToString()

    return unary(reload, STATUSES)


async def _infer(core: Core, request: InferRequest, deadline: int) -> InferResponse:
    try:
        return await core.infer(request, API, deadline)
    except (UnknownModelError, ModelUnavailableError):
        # Either no version serves, which TensorFlow Serving says in its own way, or one that does could not now.
        resolve(core, Choice(request.model, request.version, request.label))
        raise


def _is_served(spec: pb.ModelSpec) -> bool:
    return spec.signature_name in ("", SIGNATURE)
