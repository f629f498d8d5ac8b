"""OpenVINO's error texts on one line, without C++ source positions and conditions. Pure."""

from __future__ import annotations

import re

from predictd.engines.api import EngineError, InvalidInputError

_NOISE = re.compile(
    r"(?:Caught exception: )?Exception from \S+:\d+:"
    r"|Check '.*' failed at \S+:\d+:"
    r"|FrontEnd API failed with \w+:"
    r"|(?:Details|Summary|Not Implemented):"
)
_CONDITION = re.compile(r"\s*Check '.*?' failed at \S+:\d+:")
_SOURCE = re.compile(r"\bsrc/\S+\.[ch]pp:\d+:?\s*")
_KIND = re.compile(r"^(?:ParameterMismatch|NotFound|NotImplemented|RequestBusy): ")
_REFUSED_SHAPE = re.compile(r"Could set new shape|set (?:the output tensor|tensor for output)")
# What can fail in a model that was warmed up: the shapes.
_INPUT_FAULT = re.compile(
    r"\bshapes?\b|\bdim(?:ension)?s?\b|\brank\b|mismatch|incompatible|broadcast|out of (?:range|bounds)|negative",
    re.IGNORECASE,
)


def one_line(text: str) -> str:
    """The reason in an error text of OpenVINO."""
    lines = [line.strip().removeprefix("-- ") for line in text.splitlines()]
    said = [_SOURCE.sub("", _CONDITION.sub(":", line)) for line in lines if not _NOISE.fullmatch(line)]
    joined = " ".join(" ".join(said).split())
    return _KIND.sub("", joined).lstrip(": ").rstrip(" .:") or "no reason given"


def run_error(error: Exception) -> EngineError:
    """What a failed run means: InvalidInputError where the inputs are to blame, else EngineError."""
    text = one_line(str(error))
    return InvalidInputError(text) if _INPUT_FAULT.search(text) else EngineError(text)


def refuses_output_shape(error: Exception) -> bool:
    """Whether a run failed because an output buffer has another shape than the result."""
    return _REFUSED_SHAPE.search(str(error)) is not None
