"""Requests, predictions and models as the user sees them, and their predictd.v1 messages. No I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictd.client import errors, tensors, wire
from predictd.client.description import Label, Model, ModelVersion, Setting, Split, TensorSpec
from predictd.protos.v1 import control_pb2 as control
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.protos.v1 import routing_pb2 as routing

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

    from predictd.client.tensors import Array, TensorLike

DEADLINE_SECONDS = 60.0
# What every platform can wait for; Windows no longer than that.
_LONGEST_SECONDS = 4_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """One request of a stream. What the fields mean is said at `AsyncClient.predict`."""

    model: str
    inputs: Mapping[str, TensorLike]
    outputs: Sequence[str] = ()
    version: int | None = None
    label: str | None = None
    priority: int = 0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the daemon spent the time of a request.

    Attributes:
        queue_seconds: From the acceptance of the request to the start of its run.
        compute_seconds: The run of the batch.
        batch_rows: Rows in the batch that the request ran in; 0 for a model that does not batch.
    """

    queue_seconds: float
    compute_seconds: float
    batch_rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """An answer.

    Attributes:
        outputs: Arrays by name, in the order asked for, else of the model's signature. They are read-only.
        dtypes: What predictd calls each output's dtype; tells BF16, which comes as uint16 bits, from UINT16.
        model: The model that answered.
        version: Its version.
        timing: Where the time went.
    """

    outputs: Mapping[str, Array]
    dtypes: Mapping[str, str]
    model: str
    version: int
    timing: Timing


def parts(request: Request) -> wire.Parts:
    """Return the message of a request in parts; large arrays are not copied into them.

    Raises:
        TypeError: An input is no array of a dtype that predictd knows.
        ValueError: An input is ragged, or version and label are both given.
    """
    if request.version is not None and request.label is not None:
        raise ValueError("a request names a version or a label, not both")
    if not isinstance(request.inputs, Mapping):
        raise TypeError(f"inputs map names to arrays, {type(request.inputs).__name__} does not")
    if isinstance(request.outputs, str):
        raise TypeError("outputs are a sequence of names, not one string")
    head = v1.PredictRequest(
        model=request.model,
        version=request.version,
        label=request.label,
        id=request.id,
        outputs=request.outputs,
        priority=request.priority,
    )
    return wire.request_parts(head, [tensors.describe(name, value) for name, value in request.inputs.items()])


def build(request: Request) -> v1.PredictRequest:
    """Return the message of a request. Raises as `parts` does."""
    return v1.PredictRequest.FromString(wire.join(parts(request)))


def prediction(answer: wire.Answer) -> Prediction:
    """Return what an answer says. Raises InternalError if it contradicts itself."""
    message, timing = answer.message, answer.message.timing
    return Prediction(
        outputs={
            tensor.name: tensors.read(tensor, data)
            for tensor, data in zip(message.outputs, answer.data, strict=True)
        },
        dtypes={tensor.name: v1.DataType.Name(tensor.dtype) for tensor in message.outputs},
        model=message.model,
        version=message.version,
        timing=Timing(timing.queue_ns / 1e9, timing.compute_ns / 1e9, timing.batch_rows),
    )


def result(
    message: v1.PredictStreamResponse, answer: wire.Answer | None
) -> Prediction | errors.PredictdError:
    """Return what a stream's answer says: a prediction, or why there is none."""
    if answer is None:
        return errors.from_message(message.error)
    try:
        return prediction(answer)
    except errors.InternalError as error:
        return error


def model(message: v1.Model) -> Model:
    """Return what a model's message says."""
    return Model(
        name=message.name,
        versions=tuple(_version(each) for each in message.versions),
        default_version=message.default_version,
        labels=tuple(_label(each) for each in message.labels),
        split=_split(message.split) if message.HasField("split") else None,
        settings=tuple(Setting(one.name, one.value, one.origin) for one in message.settings),
    )


def with_inputs(data: bytes) -> v1.Model:
    """Return a model's message, of which a version at least says what its inputs are called.

    Raises:
        UnavailableError: None does: none was loaded yet.
    """
    message = v1.Model.FromString(data)
    if not any(each.inputs for each in message.versions):
        raise errors.not_loaded(message.name)
    return message


def label_change(
    model: str, label: str, version: int | None, *, allow_unready: bool
) -> routing.SetLabelRequest:
    """Return the message that gives a version a label, or removes it."""
    request = routing.SetLabelRequest(model=model, label=label, allow_unready=allow_unready)
    if version is None:
        request.remove = True
    else:
        request.version = version
    return request


def split_change(model: str, shares: Mapping[int, int], *, allow_unready: bool) -> routing.SetSplitRequest:
    """Return the message that divides a model's requests."""
    return routing.SetSplitRequest(
        model=model,
        shares=[v1.Share(version=version, percent=percent) for version, percent in shares.items()],
        allow_unready=allow_unready,
    )


def deadline_seconds(deadline: float | None, default: float) -> float:
    """Return a call's deadline: its own, else the client's. Raises ValueError for one that never comes."""
    seconds = default if deadline is None else deadline
    if not math.isfinite(seconds):
        raise ValueError(f"a deadline is a finite number of seconds, not {seconds}")
    return min(float(seconds), _LONGEST_SECONDS)


def _version(message: v1.ModelVersion) -> ModelVersion:
    return ModelVersion(
        version=message.version,
        state=_name(v1.ModelState, message.state),
        reason=message.reason,
        engine=message.engine,
        inputs=tuple(_spec(each) for each in message.inputs),
        outputs=tuple(_spec(each) for each in message.outputs),
        max_batch_size=message.max_batch_size,
        labels=tuple(message.labels),
        tuned=message.tuned,
    )


def _label(message: v1.Label) -> Label:
    set_by = _name(v1.SetBy, message.set_by)
    return Label(message.name, message.version, set_by, message.next_version or None)


def _split(message: v1.Split) -> Split:
    shares = {share.version: share.percent for share in message.shares}
    return Split(shares, _name(v1.SetBy, message.set_by))


def _spec(message: v1.TensorSpec) -> TensorSpec:
    return TensorSpec(message.name, _name(v1.DataType, message.dtype), tuple(message.shape), message.optional)


def _name(enum: EnumTypeWrapper, number: int) -> str:
    """Return a value's name, also for one that a newer daemon knows and this client does not."""
    return str(enum.Name(number)) if number in enum.values() else f"UNKNOWN_{number}"


def load_request(name: str, config: Mapping[str, object] | None) -> control.LoadModelRequest:
    """The message that loads a model. Raises TypeError if its configuration cannot be JSON."""
    return control.LoadModelRequest(model=name, config=json.dumps(config) if config else "")
