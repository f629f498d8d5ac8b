"""What clients can be asked to do, told without doing it: one table for the asyncio and the blocking client.

Each function describes a call step by step, as a generator. It yields an `Ask` where a message is to be sent and gets
the answer, or has the `PredictdError` thrown into it; it yields a `Pause` where time shall pass; it returns the result.
Who drives it does nothing else, so that deadlines, retries and checks are the same however a client waits.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from google.protobuf.message import DecodeError

from predictd.client import channel, errors, messages, wire
from predictd.client.description import Model, only_input
from predictd.client.messages import Prediction, Request
from predictd.protos.v1 import control_pb2 as control
from predictd.protos.v1 import predictd_pb2 as v1
from predictd.protos.v1 import routing_pb2 as routing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.client.channel import Metadata
    from predictd.client.session import Session
    from predictd.client.tensors import TensorLike

T = TypeVar("T")

IN_FLIGHT = 64

Inputs: TypeAlias = "Mapping[str, TensorLike] | TensorLike"


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC.

    Attributes:
        path: Its path.
        write: Makes a request's bytes.
        parse: Makes what the caller of `Ask` gets of an answer's bytes, unless they are none.
        repeatable: Asking twice does no harm.
    """

    path: str
    write: Callable[[Any], bytes]
    parse: Callable[[bytes], Any]
    repeatable: bool

    def read(self, data: bytes) -> Any:
        """What the caller of `Ask` gets. gRPC is not asked for it: it would hide why an answer cannot be read.

        Raises:
            InternalError: It is no answer.
        """
        try:
            return self.parse(data)
        except (ValueError, DecodeError) as error:
            raise errors.unreadable(error) from error


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request, and come back with the answer. The metadata has the token: it is not shown."""

    method: Method
    request: Any = field(repr=False)
    seconds: float
    metadata: Metadata = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """Let time pass."""

    seconds: float


Step = Ask | Pause
Steps = Generator[Step, Any, T]


def _method(path: str, request: Any, response: Any, *, repeatable: bool) -> Method:
    return Method(path, request.SerializeToString, response.FromString, repeatable)


PREDICT = Method(channel.PREDICT, wire.join, wire.answer, repeatable=True)
PREDICT_STREAM = Method(channel.PREDICT_STREAM, bytes, wire.streamed, repeatable=True)
_LIST = _method(channel.LIST_MODELS, v1.ListModelsRequest, v1.ListModelsResponse, repeatable=True)
_GET = _method(channel.GET_MODEL, v1.GetModelRequest, v1.Model, repeatable=True)
_GET_INPUTS = replace(_GET, parse=messages.with_inputs)
_SET_LABEL = _method(channel.SET_LABEL, routing.SetLabelRequest, routing.SetLabelResponse, repeatable=False)
_SET_SPLIT = _method(channel.SET_SPLIT, routing.SetSplitRequest, routing.SetSplitResponse, repeatable=False)
_LOAD = _method(channel.LOAD_MODEL, control.LoadModelRequest, control.LoadModelResponse, repeatable=False)
_UNLOAD = _method(
    channel.UNLOAD_MODEL, control.UnloadModelRequest, control.UnloadModelResponse, repeatable=False
)


def predict(
    session: Session,
    model: str | Model,
    inputs: Inputs,
    *,
    outputs: Sequence[str] = (),
    version: int | None = None,
    label: str | None = None,
    priority: int = 0,
    deadline: float | None = None,
    id: str = "",  # noqa: A002 - the protocol's word
) -> Steps[Prediction]:
    """Run a model once.

    Args:
        model: Its name; or the Model, whose signature the inputs are compared with before they are sent.
        inputs: Arrays, or what NumPy makes arrays of, by input name. An array alone is the input of a model that has
            one. `predictd.client.tensors` says how BF16 and strings are given.
        outputs: Names wanted; empty for all.
        version: The version to ask; neither version nor label asks the default.
        label: Instead of a version, one of its names.
        priority: 0 is the default; 1 is served first, higher numbers later.
        deadline: Seconds until the answer is no use; None for the client's own.
        id: For logs and traces.

    Raises:
        PredictdError: There is no answer; its subclasses say why.
        TypeError: An input is no array of a dtype that predictd knows.
        ValueError: An input is ragged, or version and label are both given.
    """
    until = _until(session, deadline)
    name = model.name if isinstance(model, Model) else model
    if not isinstance(inputs, Mapping):
        if not isinstance(model, Model):
            described = yield from _described(session, name, version, label, until)
            inputs = {only_input(described, version, label): inputs}
        else:
            inputs = {only_input(model, version, label): inputs}
    if isinstance(model, Model):
        model.check(inputs, version=version, label=label)
    request = Request(
        model=name,
        inputs=inputs,
        outputs=outputs,
        version=version,
        label=label,
        priority=priority,
        id=id,
    )
    parts = messages.parts(request)
    answer = yield from _ask(session, PREDICT, parts, until, channel.about(name, priority))
    return messages.prediction(answer)


@dataclass(frozen=True, slots=True)
class Many:
    """Many runs of one model, pipelined.

    Attributes:
        describe: One run.
        inputs: What to run it on.
        in_flight: How many may be asked and not yet taken by the caller.
        unary: Each is a call of its own.
    """

    describe: Callable[[Inputs], Steps[Prediction]]
    inputs: Iterable[Inputs] | AsyncIterable[Inputs]
    in_flight: int
    unary: bool


def predict_many(
    session: Session,
    model: str | Model,
    inputs: Iterable[Inputs] | AsyncIterable[Inputs],
    *,
    outputs: Sequence[str] = (),
    version: int | None = None,
    label: str | None = None,
    priority: int = 0,
    deadline: float | None = None,
    in_flight: int = IN_FLIGHT,
    unary: bool = False,
) -> Many:
    """Run a model on many inputs and yield the answers in the order of the inputs.

    Inputs are taken only as answers are: at most `in_flight` are asked for ahead. A run that fails yields its error
    and the others go on. Stopping early gives up what is in flight.

    Args:
        model: As `predict` has it, and so have the arguments that are not named here.
        inputs: What `predict` takes, one after another; the asyncio client also takes them asynchronously.
        outputs: Names wanted.
        version: The version to ask.
        label: Instead of a version.
        priority: Of all of them.
        deadline: Seconds for each, from when it is asked.
        in_flight: How many are asked at once.
        unary: Each is a call of its own, whose deadline the daemon knows. Without it they share streams, which cost
            less a request; there the client alone watches the deadline.

    Yields:
        A Prediction, or the PredictdError that it met, for each of the inputs.

    Raises:
        TypeError: As `predict` does, or `inputs` are those of one run, by name.
        ValueError: As `predict` does, or `in_flight` is less than 1.
    """
    if isinstance(inputs, Mapping):
        raise TypeError(
            "predict_many takes the inputs of many runs, such as a list of dicts; predict takes one dict"
        )
    if in_flight < 1:
        raise ValueError(f"at least 1 request is in flight, not {in_flight}")

    def describe(one: Inputs) -> Steps[Prediction]:
        return predict(
            session,
            model,
            one,
            outputs=outputs,
            version=version,
            label=label,
            priority=priority,
            deadline=deadline,
        )

    return Many(describe, inputs, in_flight, unary)


def signature_of(describe: Callable[..., Any], method: Callable[..., Any]) -> None:
    """Let a client's method look like its description, with `self` for the session."""
    of = inspect.signature(describe)
    _, *rest = of.parameters.values()
    self_ = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__name__, method.__doc__ = describe.__name__, describe.__doc__
    method.__signature__ = of.replace(  # type: ignore[attr-defined]
        parameters=(self_, *rest), return_annotation=inspect.Signature.empty
    )


def models(session: Session, *, deadline: float | None = None) -> Steps[tuple[Model, ...]]:
    """Every model that the daemon serves, or tries to."""
    response = yield from _ask(session, _LIST, v1.ListModelsRequest(), _until(session, deadline))
    return tuple(messages.model(each) for each in response.models)


def model(session: Session, name: str, *, deadline: float | None = None) -> Steps[Model]:
    """One model. Raises NotFoundError if the daemon has none of that name."""
    request = v1.GetModelRequest(model=name)
    return messages.model((yield from _ask(session, _GET, request, _until(session, deadline))))


def set_label(
    session: Session,
    model: str,
    label: str,
    version: int | None,
    *,
    allow_unready: bool = False,
    deadline: float | None = None,
) -> Steps[None]:
    """Give a version a label, or take the label back. Every call that follows is routed the new way.

    Args:
        model: Its name.
        label: What requests shall say.
        version: What it shall mean. None takes back what was set at run time; what the model's configuration says
            of the label holds again.
        allow_unready: Also for a version that is not ready; the label means what it meant before until it is.
        deadline: Seconds; None for the client's own.

    Raises:
        NotFoundError: There is no such model, version or label.
        PredictdError: The version is not ready, or the daemon takes no changes here.
    """
    request = messages.label_change(model, label, version, allow_unready=allow_unready)
    yield from _ask(session, _SET_LABEL, request, _until(session, deadline))


def set_split(
    session: Session,
    model: str,
    shares: Mapping[int, int],
    *,
    allow_unready: bool = False,
    deadline: float | None = None,
) -> Steps[None]:
    """Divide the requests that name neither version nor label. Every call that follows is routed the new way.

    Args:
        model: Its name.
        shares: Percent by version; they make 100. None at all: the highest version that is ready gets all.
        allow_unready: Also with versions that are not ready; the others share their requests until they are.
        deadline: Seconds; None for the client's own.

    Raises:
        InvalidRequestError: The shares do not make 100.
        NotFoundError: There is no such model or version.
        PredictdError: A version is not ready, or the daemon takes no changes here.
    """
    request = messages.split_change(model, shares, allow_unready=allow_unready)
    yield from _ask(session, _SET_SPLIT, request, _until(session, deadline))


def load_model(
    session: Session,
    name: str,
    *,
    config: Mapping[str, object] | None = None,
    deadline: float | None = None,
) -> Steps[None]:
    """Load a model as it is on the daemon's disk now, again if it failed; done once it is served.

    Args:
        name: Its name.
        config: Fields of Triton's ModelConfig that lie over the model's own configuration.
        deadline: Seconds to wait; the daemon goes on loading. None for the client's own.

    Raises:
        PredictdError: It cannot be loaded; `code` and the message say why. What served before serves on.
    """
    request = messages.load_request(name, config)
    yield from _ask(session, _LOAD, request, _until(session, deadline))


def unload_model(session: Session, name: str, *, deadline: float | None = None) -> Steps[None]:
    """Unload a model of a daemon whose models are loaded by command; done once its requests are finished."""
    request = control.UnloadModelRequest(model=name)
    yield from _ask(session, _UNLOAD, request, _until(session, deadline))


@dataclass(frozen=True, slots=True)
class _Until:
    """The deadline of a call.

    Attributes:
        seconds: What it was given.
        monotonic_seconds: When they are over.
    """

    seconds: float
    monotonic_seconds: float

    def left_seconds(self) -> float:
        return self.monotonic_seconds - time.monotonic()


def _until(session: Session, deadline: float | None) -> _Until:
    seconds = messages.deadline_seconds(deadline, session.deadline_seconds)
    return _Until(seconds, time.monotonic() + seconds)


def _ask(session: Session, method: Method, request: Any, until: _Until, about: Metadata = ()) -> Steps[Any]:
    """One call: asked, and where that is safe and of use, asked again."""
    attempt = 1
    while True:
        left = until.left_seconds()
        if left <= 0:
            raise errors.too_late(until.seconds)
        try:
            answer = yield Ask(method, request, left, (*about, *session.metadata()))
        except errors.PredictdError as error:
            left = until.left_seconds()
            pause = session.budget.pause_seconds(error, attempt, left) if method.repeatable else None
            if pause is None:
                raise
        else:
            session.budget.succeeded()
            return answer
        yield Pause(pause)
        attempt += 1


def _described(
    session: Session, name: str, version: int | None, label: str | None, until: _Until
) -> Steps[Model]:
    """A model with the signature of a version, asked for once: names of inputs do not change, or the daemon says so."""
    known = session.described.get(name)
    if known is None or known.signature(version, label) is None:
        known = messages.model((yield from _ask(session, _GET_INPUTS, v1.GetModelRequest(model=name), until)))
        session.described[name] = known
    return known
