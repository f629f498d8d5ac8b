"""GetModelStatus of TensorFlow Serving's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from predictd.protos.tfs import error_codes_pb2 as error_pb
from predictd.protos.tfs import serving_pb2 as pb
from predictd.server.errors import InvalidRequestError, UnknownModelError
from predictd.server.frontend.apis.tfs_models import Choice, choice, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from predictd.server.frontend.core import Core
    from predictd.server.frontend.inference import ModelInfo, VersionInfo

_STATES: Mapping[str, pb.ModelVersionStatus.State] = {
    "LOADING": pb.ModelVersionStatus.LOADING,
    "READY": pb.ModelVersionStatus.AVAILABLE,
    "UNLOADING": pb.ModelVersionStatus.UNLOADING,
    "FAILED": pb.ModelVersionStatus.END,
}


def model_status(core: Core, request: pb.GetModelStatusRequest) -> pb.GetModelStatusResponse:
    """The states of a model's versions, or of the one that is asked for, highest first.

    Raises:
        InvalidRequestError: No model is named, or there is no such label.
        UnknownModelError: There is no such model or version.
    """
    if not request.HasField("model_spec"):
        raise InvalidRequestError("Missing ModelSpec")
    chosen = choice(request.model_spec)
    try:
        model = core.model(chosen.model)
    except UnknownModelError:
        if chosen.version is None:
            raise UnknownModelError(f"Could not find any versions of model {chosen.model}") from None
        raise _no_version(chosen) from None
    return pb.GetModelStatusResponse(model_version_status=map(_status, _versions(model, chosen)))


def _versions(model: ModelInfo, chosen: Choice) -> Sequence[VersionInfo]:
    if chosen.label is not None:
        versions = [version for version in model.versions if chosen.label in version.labels]
        if not versions:
            raise unknown(chosen)
        return versions
    versions = [version for version in model.versions if chosen.version in (None, version.version)]
    if not versions:
        raise _no_version(chosen)
    return versions


def _no_version(chosen: Choice) -> UnknownModelError:
    return UnknownModelError(f"Could not find version {chosen.version} of model {chosen.model}")


def _status(version: VersionInfo) -> pb.ModelVersionStatus:
    failed = version.state == "FAILED"
    return pb.ModelVersionStatus(
        version=version.version,
        state=_STATES[version.state],
        status=pb.StatusProto(
            error_code=error_pb.UNKNOWN if failed else error_pb.OK,
            error_message=version.reason if failed else "",
        ),
    )
