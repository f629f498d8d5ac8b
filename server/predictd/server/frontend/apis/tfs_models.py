"""How TensorFlow Serving names models and describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.protos.tfs import serving_pb2 as pb
from predictd.protos.tfs import signature_pb2 as signature_pb
from predictd.protos.tfs import tensor_pb2 as tensor_pb
from predictd.server.errors import InvalidRequestError, ModelUnavailableError, UnknownModelError
from predictd.server.frontend.apis.tfs_tensors import data_type

if TYPE_CHECKING:
    from predictd.server.frontend.core import Core
    from predictd.server.frontend.inference import TensorInfo, VersionInfo

# The name of the one signature that each model has here, and what may be done with it.
SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
SIGNATURE_DEF = "signature_def"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which version of which model a request is for. At most one of version and label is set."""

    model: str
    version: int | None
    label: str | None

    @property
    def text(self) -> str:
        """As TensorFlow Serving writes it in its messages."""
        return f"Latest({self.model})" if self.version is None else f"Specific({self.model}, {self.version})"


def choice(spec: pb.ModelSpec) -> Choice:
    """What a request's ModelSpec chooses.

    Raises:
        InvalidRequestError: It names no model.
    """
    if not spec.name:
        raise InvalidRequestError("ModelSpec has no name specified.")
    which = spec.WhichOneof("version_choice")
    return Choice(
        spec.name,
        # No version has the number 0. OpenVINO's clients write it when they want the default.
        (spec.version.value or None) if which == "version" else None,
        spec.version_label if which == "version_label" else None,
    )


def resolve(core: Core, chosen: Choice, *, draw: bool = False) -> VersionInfo:
    """The version that would answer; where there is none, TensorFlow Serving's words for it.

    Args:
        core: Knows the models.
        chosen: What the request says.
        draw: It is for one request, of which a split of the default may send each elsewhere.

    Raises:
        UnknownModelError: There is no such model or version, or it is not ready: the same to TensorFlow Serving.
        InvalidRequestError: There is no such label.
    """
    try:
        find = core.draw if draw else core.version
        return find(chosen.model, chosen.version, chosen.label)
    except UnknownModelError:
        raise unknown(chosen) from None
    except ModelUnavailableError as error:
        raise UnknownModelError(f"Servable not found for request: {chosen.text} ({error})") from None


def unknown(chosen: Choice) -> UnknownModelError | InvalidRequestError:
    """TensorFlow Serving's error for a choice that leads nowhere."""
    if chosen.label is not None:
        return InvalidRequestError(f"Unrecognized servable version label: {chosen.label}")
    return UnknownModelError(f"Servable not found for request: {chosen.text}")


def served(spec: pb.ModelSpec, model: str, version: int) -> None:
    """Say in an answer's ModelSpec who gave it."""
    spec.name = model
    spec.version.value = version
    spec.signature_name = SIGNATURE


def check_metadata_fields(request: pb.GetModelMetadataRequest) -> None:
    """Raises InvalidRequestError unless the request asks for what there is."""
    if not request.HasField("model_spec"):
        raise InvalidRequestError("Missing ModelSpec")
    if not request.metadata_field:
        raise InvalidRequestError("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != SIGNATURE_DEF:
            raise InvalidRequestError(f"Metadata field {field} is not supported")


def model_metadata(model: str, version: VersionInfo) -> pb.GetModelMetadataResponse:
    """A version's one signature."""
    signatures = pb.SignatureDefMap()
    signature = signatures.signature_def[SIGNATURE]
    signature.method_name = PREDICT_METHOD
    for tensor in version.inputs:
        _describe(tensor, signature.inputs[tensor.name])
    for tensor in version.outputs:
        _describe(tensor, signature.outputs[tensor.name])
    response = pb.GetModelMetadataResponse()
    response.model_spec.name = model
    response.model_spec.version.value = version.version
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response


def _describe(tensor: TensorInfo, info: signature_pb.TensorInfo) -> None:
    info.name = tensor.name
    info.dtype = data_type(tensor.dtype)
    info.tensor_shape.CopyFrom(
        tensor_pb.TensorShapeProto(dim=[tensor_pb.TensorShapeProto.Dim(size=size) for size in tensor.shape])
    )
