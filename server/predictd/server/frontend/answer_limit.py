"""How large the answer to one request may be.

A larger one is refused before it is computed where its size is known by then, else before it is copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from predictd.engines.api import DType
from predictd.server.config.lane import LaneSignature
from predictd.server.errors import InvalidRequestError

# The length before each string.
_STRING_BYTES = 4


@dataclass(frozen=True, slots=True)
class ResponseLimit:
    """How many bytes, and which setting says so."""

    size_bytes: int
    setting: str

    @classmethod
    def of(cls, max_response_bytes: int, max_message_bytes: int) -> ResponseLimit:
        """The tighter of both limits; `max_response_bytes` may be 0 for none."""
        if 0 < max_response_bytes < max_message_bytes:
            return cls(max_response_bytes, "max_response_size")
        return cls(max_message_bytes, "max_message_size")


# What gRPC itself can send.
NO_LIMIT = ResponseLimit(2**31 - 1, "max_message_size")


@dataclass(frozen=True, slots=True)
class AnswerLimit:
    """The limit for the answers of one lane.

    Attributes:
        model: Its name, for messages.
        limit: For the outputs of one answer.
        least_bytes: What each output has at least: of one row, or as a whole where there are no rows.
    """

    model: str
    limit: ResponseLimit
    least_bytes: tuple[int, ...]

    @classmethod
    def of(cls, model: str, signature: LaneSignature, limit: ResponseLimit) -> AnswerLimit:
        """The limit for a lane with such outputs. A dimension that varies may have the size 0."""
        least = []
        for output in signature.outputs:
            shape = output.shape[1:] if signature.batches else output.shape
            item_bytes = DType(output.dtype).itemsize or _STRING_BYTES
            least.append(math.prod(max(size, 0) for size in shape) * item_bytes)
        return cls(model, limit, tuple(least))

    def expect(self, wanted: Sequence[int], rows: int) -> None:
        """Refuse a request whose answer is known to be too large.

        Args:
            wanted: Indices of the outputs that are asked for.
            rows: Of the request; 1 for a model that does not batch.

        Raises:
            InvalidRequestError: It is.
        """
        self.check(rows * sum(self.least_bytes[index] for index in wanted))

    def check(self, size_bytes: int) -> None:
        """Refuse an answer that is too large. Raises InvalidRequestError."""
        if size_bytes > self.limit.size_bytes:
            raise InvalidRequestError(
                f"the answer of model '{self.model}' has {size_bytes} bytes and may have {self.limit.size_bytes} "
                f"({self.limit.setting}); ask for fewer rows or outputs"
            )
