"""The parameters of Open Inference Protocol requests: those that predictd honours, a refusal of the others.

A parameter without a meaning to any server is the client's own business with its model. An ONNX model has no
use for one, so it is accepted, as Triton does, and has no effect. One that asks for something that predictd
does not do is refused: an answer that silently leaves it out would be a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.server.errors import InvalidRequestError, UnsupportedError

Parameters: TypeAlias = Mapping[str, pb.InferParameter]

_SEQUENCE = {
    "sequence_id": ("int64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
}
_RESERVED = ("headers", "binary_data_output")
_CUSTOM = ("bool_param", "int64_param", "string_param", "double_param")


@dataclass(frozen=True, slots=True)
class RequestParameters:
    """What a request's parameters ask for.

    Attributes:
        priority: 0 is the default, 1 the highest.
        timeout_ns: Time that the answer may take, 0 for any.
    """

    priority: int = 0
    timeout_ns: int = 0


_NONE = RequestParameters()


def request_parameters(parameters: Parameters) -> RequestParameters:
    """Read the parameters of a request.

    Raises:
        InvalidRequestError: One has a wrong type or value, or a reserved name.
        UnsupportedError: One asks for something that predictd does not do.
    """
    if not parameters:
        return _NONE
    priority = timeout_us = 0
    for name, parameter in parameters.items():
        if name == "priority":
            priority = _natural(name, parameter, "int64_param", "uint64_param")
        elif name == "timeout":
            timeout_us = _natural(name, parameter, "int64_param")
        else:
            _check(name, parameter)
    return RequestParameters(priority, timeout_us * 1000)


def refuse_input_parameters(name: str, parameters: Parameters) -> None:
    """Refuse the parameters of an input: there is none that predictd honours.

    Raises:
        UnsupportedError: One asks for something that predictd does not do.
        InvalidRequestError: One has no meaning.
    """
    for parameter in parameters:
        _refuse("input", name, parameter)


def class_count(name: str, parameters: Parameters) -> int:
    """How many classes are asked for instead of an output, 0 for the output itself. Raises as for inputs."""
    count = 0
    for key, parameter in parameters.items():
        if key != "classification":
            _refuse("output", name, key)
        count = int(_value(key, parameter, "int64_param"))
        if count < 1:
            raise InvalidRequestError(
                f"output {name!r}: parameter 'classification' must be at least 1, not {count}"
            )
    return count


def _refuse(kind: str, name: str, parameter: str) -> NoReturn:
    if parameter.startswith("shared_memory_"):
        raise UnsupportedError(f"{kind} {name!r}: parameter {parameter!r} is not supported")
    raise InvalidRequestError(f"{kind} {name!r}: unknown parameter {parameter!r}")


def _check(name: str, parameter: pb.InferParameter) -> None:
    if name in _SEQUENCE:
        if _value(name, parameter, *_SEQUENCE[name]):
            raise UnsupportedError(f"parameter {name!r} is not supported: predictd has no sequence batching")
    elif name == "classification":
        raise InvalidRequestError("parameter 'classification' is one of outputs, not of requests")
    elif name.startswith("shared_memory_"):
        raise UnsupportedError(f"parameter {name!r} is not supported")
    elif name == "triton_enable_empty_final_response":
        # Only models that answer more than once have such a response to enable; ours always answer once.
        _value(name, parameter, "bool_param")
    elif name.startswith("triton_"):
        raise InvalidRequestError(f"unknown parameter {name!r}: names that begin with 'triton_' are reserved")
    elif name in _RESERVED:
        raise InvalidRequestError(f"parameter {name!r} is a reserved name")
    else:
        _value(name, parameter, *_CUSTOM)


def _natural(name: str, parameter: pb.InferParameter, *choices: str) -> int:
    value = int(_value(name, parameter, *choices))
    if value < 0:
        raise InvalidRequestError(f"parameter {name!r} must not be negative, not {value}")
    return value


def _value(name: str, parameter: pb.InferParameter, *choices: str) -> bool | int | str | float:
    choice = parameter.WhichOneof("parameter_choice")
    if choice not in choices:
        raise InvalidRequestError(
            f"parameter {name!r} must be sent as {' or '.join(choices)}, not as {choice or 'nothing'}"
        )
    value: bool | int | str | float = getattr(parameter, choice)
    return value
