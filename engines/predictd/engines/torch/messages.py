"""PyTorch's error texts on one line. Pure.

A failed TorchScript run is told in pages: the source of each function on the way, then the reason.
"""

from __future__ import annotations

import re

from predictd.engines.api import EngineError, InvalidInputError

_MOST_CHARACTERS = 400
# The reason stands after the last of these at the start of a line.
_REASON = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception): ", re.MULTILINE)
_CPP_STACK = re.compile(r"\nException raised from .*", re.DOTALL)
_ADVICE = re.compile(r"\. This is an internal miniz error.*", re.DOTALL)
_PREFIX = re.compile(r"(?:(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception): )+")
_INPUT_FAULT = re.compile(
    r"\bmust match|mismatch|shape|size|dimension|out of (?:range|bounds)|broadcast|invalid|expected"
    r"|\bguard\b|channels|scalar type|negative|cannot be multiplied|does not match|divi(?:de|sion) by zero",
    re.IGNORECASE,
)
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)
# What the model's author raises is about what the model was given.
_RAISED_BY_MODEL = re.compile(r"^(?:builtins\.\w+|RuntimeError: AssertionError): ", re.MULTILINE)


def one_line(text: str) -> str:
    """The reason in an error text of PyTorch."""
    text = _ADVICE.sub("", _CPP_STACK.sub("", text))
    reasons = list(_REASON.finditer(text))
    first = text.strip().partition("\n\n")[0].partition("\n:\n")[0]
    text = text[reasons[-1].start() :] if reasons else first
    text = " ".join(_PREFIX.sub("", text, count=1).split()).rstrip(" .")
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}..."
    return text or "no reason given"


def run_error(error: Exception) -> EngineError:
    """What a failed run means: InvalidInputError where the inputs are to blame, else EngineError."""
    text = str(error)
    reason = one_line(text)
    if _OUT_OF_MEMORY.search(reason):
        return EngineError(reason)
    blamed = isinstance(error, AssertionError) or _RAISED_BY_MODEL.search(text) or _INPUT_FAULT.search(reason)
    return InvalidInputError(reason) if blamed else EngineError(reason)
