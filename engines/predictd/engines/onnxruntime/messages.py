"""ONNX Runtime's error texts on one line, without C++ source positions, codes and advice to programmers.

Pure. The texts are all there is: a bound run raises a plain RuntimeError whatever its cause.
"""

from __future__ import annotations

import re

from predictd.engines.api import EngineError, InvalidInputError

_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |^Error in execution: ")
_LOADING = re.compile(r"Load model (?:from )?\S.*? failed[:.] ?")
_SOURCE_WITH_SIGNATURE = re.compile(r"\S*/\S+\.(?:cc|cpp|h|hpp|inc):\d+ ")
_SOURCE_WITH_NAME = re.compile(r"\b\w+\.(?:cc|cpp|h|hpp|inc):\d+ [\w:~]+ ")
# What ORT_ENFORCE prints before the reason: the C++ condition.
_CONDITION = re.compile(r"^[^.]+ was false\. (?=\S)")
_NODE = re.compile(
    r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: "
)
_ADVICE = re.compile(r"Please fix either the inputs/outputs or the model\.?")

_REFUSED_SHAPE = re.compile(
    r"OrtValue provided for output .* has shape|OrtValue shape verification failed", re.DOTALL
)
# Kernels report bad data with every status there is, so the words decide.
_INPUT_FAULT = re.compile(
    r"\binvalid\b|INVALID_ARGUMENT|out of (?:data )?bounds|out of range|mismatch|must match"
    r"|cannot be reshaped|broadcast|incompatible|unexpected input|missing input|division by zero",
    re.IGNORECASE,
)


def one_line(text: str) -> str:
    """The reason in an error text of ONNX Runtime."""
    text = _ADVICE.sub("", text)
    text = _LOADING.sub("", _CODE.sub("", text))
    node = _NODE.search(text)
    if node is not None:
        text = text[node.end() :]
    text = _CODE.sub("", _without_source(text))
    text = " ".join(_CONDITION.sub("", text).split()).rstrip(" .")
    if node is None:
        return text or "no reason given"
    operator, name = node.groups()
    return f"{operator} node{f' {name!r}' if name else ''}: {text}"


def run_error(error: Exception) -> EngineError:
    """What a failed run means: InvalidInputError where the inputs are to blame, else EngineError."""
    text = str(error)
    kind = InvalidInputError if _INPUT_FAULT.search(text) else EngineError
    return kind(one_line(text))


def refuses_output_shape(error: Exception) -> bool:
    """Whether a run failed because a bound output buffer has another shape than the result."""
    return _REFUSED_SHAPE.search(str(error)) is not None


def _without_source(text: str) -> str:
    """Drop `/path/file.cc:12 type function(arguments) const ` and `file.cc:12 function `."""
    while (match := _SOURCE_WITH_SIGNATURE.search(text)) is not None:
        text = text[: match.start()] + text[_end_of_signature(text, match.end()) :]
    return _SOURCE_WITH_NAME.sub("", text)


def _end_of_signature(text: str, start: int) -> int:
    """The index after a C++ signature: its first balanced parentheses and a trailing `const`."""
    depth = 0
    for index in range(text.find("(", start), len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            rest = text[index + 1 :]
            return len(text) - len(rest.removeprefix(" const").lstrip())
    return start
