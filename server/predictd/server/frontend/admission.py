"""Is a request what the model takes? Checked against the signature before a byte is copied.

The outcome depends on names, dtypes and shapes alone (but for strings), so it is remembered: a client that sends the
same shape again pays one dictionary look-up.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from predictd.engines.api import DType
from predictd.server.config.lane import LaneConfig, LaneSignature, WireTensor
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.inference import InputTensor
from predictd.server.frontend.limits import shown_shape
from predictd.server.transport.blocks import GENERATION_OFFSET, RequestLayout, lay_out_request
from predictd.server.transport.records import TicketFlag

_U32 = struct.Struct("<I")
_SHAPES_KEPT = 4096
# Far beyond any message, and small enough that sizes in bytes fit every integer on their way.
_MAX_ELEMENTS = 2**40

_Key = tuple[tuple[str, int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Admission:
    """What a checked request looks like in a block.

    Attributes:
        layout: Where its tensors go.
        order: For each input of the layout the position in the request; -1 for an absent optional one.
        shape_key: Requests with equal keys may share a run.
        flags: For the ticket.
    """

    layout: RequestLayout
    order: tuple[int, ...]
    shape_key: int
    flags: int

    def write(
        self, segment: memoryview, offset: int, generation: int, tensors: Sequence[InputTensor]
    ) -> None:
        """Fill a request block: the template of the shape, then the tensors."""
        head = self.layout.head
        segment[offset : offset + len(head)] = head
        _U32.pack_into(segment, offset + GENERATION_OFFSET, generation)
        for at, placed in zip(self.order, self.layout.inputs, strict=True):
            if at >= 0:
                start = offset + placed.offset
                segment[start : start + placed.nbytes] = tensors[at].data


class LaneInputs:
    """Checks the requests of one lane.

    Attributes:
        learned: Told of each shape that is new.
    """

    def __init__(self, config: LaneConfig, signature: LaneSignature, shape_secret: bytes) -> None:
        self._config = config
        self._batches = signature.batches
        self._specs = signature.inputs
        self._position = {spec.name: at for at, spec in enumerate(signature.inputs)}
        self._secret = shape_secret
        self._known: dict[_Key, Admission] = {}
        self.learned: Callable[[Sequence[InputTensor], Admission], None] | None = None

    def admit(self, tensors: Sequence[InputTensor]) -> Admission:
        """Check a request.

        Raises:
            InvalidRequestError: It is not what the model takes; the message names the input.
        """
        key = tuple((t.name, t.dtype, t.shape) for t in tensors)
        admission = self._known.get(key)
        new = admission is None
        if admission is None:
            admission = self._check(tensors)
            if not admission.flags & TicketFlag.VARYING:
                if len(self._known) >= _SHAPES_KEPT:
                    self._known.clear()
                self._known[key] = admission
        for at, placed in zip(admission.order, admission.layout.inputs, strict=True):
            if at >= 0 and len(tensors[at].data) != placed.nbytes:
                raise _wrong_size(self._config.model, tensors[at], placed.nbytes)
        if new and self.learned is not None:
            self.learned(tensors, admission)
        return admission

    def _check(self, tensors: Sequence[InputTensor]) -> Admission:
        order = self._order(tensors)
        rows = self._rows(tensors)
        placed: list[tuple[DType, tuple[int, ...], int] | None] = []
        varying = False
        for spec, at in zip(self._specs, order, strict=True):
            if at < 0:
                placed.append(None)
                continue
            tensor = tensors[at]
            self._check_tensor(spec, tensor)
            elements = math.prod(tensor.shape)
            if tensor.dtype is DType.BYTES:
                _check_strings(self._config.model, tensor, elements)
                varying = True
                placed.append((tensor.dtype, tensor.shape, len(tensor.data)))
            else:
                placed.append((tensor.dtype, tensor.shape, elements * tensor.dtype.itemsize))
        layout = lay_out_request(self._config.lane, rows, placed)
        flags = TicketFlag.VARYING if varying else TicketFlag(0)
        return Admission(layout, tuple(order), self._shape_key(placed), int(flags))

    def _order(self, tensors: Sequence[InputTensor]) -> list[int]:
        order = [-1] * len(self._specs)
        model = self._config.model
        for at, tensor in enumerate(tensors):
            position = self._position.get(tensor.name)
            if position is None:
                expected = ", ".join(f"'{spec.name}'" for spec in self._specs)
                raise InvalidRequestError(
                    f"unexpected input '{tensor.name}' for model '{model}'; it takes {expected}"
                )
            if order[position] >= 0:
                raise InvalidRequestError(f"input '{tensor.name}' of model '{model}' is given twice")
            order[position] = at
        for spec, at in zip(self._specs, order, strict=True):
            if at < 0 and not spec.optional:
                raise InvalidRequestError(
                    f"input '{spec.name}' of model '{model}' is missing; expected {_describe(spec)}"
                )
        return order

    def _rows(self, tensors: Sequence[InputTensor]) -> int:
        """Rows of the request, the same for all inputs; 1 for a model that does not batch."""
        if not self._batches:
            return 1
        model, limit = self._config.model, self._config.max_request_rows
        if not tensors:
            raise InvalidRequestError(f"the request to model '{model}' has no input, so it has no rows")
        first = tensors[0]
        for tensor in tensors:
            if not tensor.shape:
                raise _wrong_shape(model, tensor, self._specs[self._position[tensor.name]])
            if tensor.shape[0] != first.shape[0]:
                raise InvalidRequestError(
                    f"the inputs of model '{model}' have different rows: "
                    f"'{first.name}' has {first.shape[0]}, '{tensor.name}' has {tensor.shape[0]}"
                )
        if first.shape[0] > limit:
            raise InvalidRequestError(
                f"input '{first.name}' of model '{model}' has {first.shape[0]} rows; "
                f"a request may have {limit} (max_request_rows)"
            )
        return first.shape[0]

    def _check_tensor(self, spec: WireTensor, tensor: InputTensor) -> None:
        model = self._config.model
        if tensor.dtype != spec.dtype:
            raise InvalidRequestError(
                f"input '{tensor.name}' of model '{model}' has type {tensor.dtype.name}; "
                f"expected {DType(spec.dtype).name}"
            )
        shape = tensor.shape
        fits = len(shape) == len(spec.shape) and all(
            got >= 0 and wanted in (-1, got) for got, wanted in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            raise _wrong_shape(model, tensor, spec)
        # Zeros left out: NumPy refuses an empty array whose other dimensions are beyond reach.
        if math.prod(size for size in shape if size) > _MAX_ELEMENTS:
            raise InvalidRequestError(
                f"input '{tensor.name}' of model '{model}' has shape {shown_shape(shape)}; "
                f"its dimensions may multiply to {_MAX_ELEMENTS}"
            )

    def _shape_key(self, placed: Sequence[tuple[DType, tuple[int, ...], int] | None]) -> int:
        # The lane is part of the key: equal keys mean equal lanes, which spares workers a comparison.
        digest = hashlib.blake2b(struct.pack("<I", self._config.lane), digest_size=8, key=self._secret)
        for tensor in placed:
            shape = tensor[1][1:] if tensor and self._batches else tensor[1] if tensor else (-1,)
            digest.update(struct.pack(f"<I{len(shape)}q", len(shape), *shape))
        return int.from_bytes(digest.digest(), "little")


def _describe(spec: WireTensor) -> str:
    return f"{DType(spec.dtype).name}{list(spec.shape)}"


def _wrong_shape(model: str, tensor: InputTensor, spec: WireTensor) -> InvalidRequestError:
    return InvalidRequestError(
        f"input '{tensor.name}' of model '{model}' has shape {shown_shape(tensor.shape)}; "
        f"expected {list(spec.shape)} (-1: any size)"
    )


def _wrong_size(model: str, tensor: InputTensor, expected_bytes: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"input '{tensor.name}' of model '{model}' carries {len(tensor.data)} bytes; "
        f"{tensor.dtype.name}{shown_shape(tensor.shape)} takes {expected_bytes}"
    )


def _check_strings(model: str, tensor: InputTensor, elements: int) -> None:
    """Walk the length prefixes: exactly `elements` of them, none reaching beyond the data."""
    data = tensor.data
    size, at, found = len(data), 0, 0
    while at < size and found < elements:
        if at + 4 > size:
            break
        at += 4 + int.from_bytes(data[at : at + 4], "little")
        found += 1
    if found != elements or at != size:
        raise InvalidRequestError(
            f"input '{tensor.name}' of model '{model}' is not {elements} length-prefixed elements "
            f"in {size} bytes; shape {shown_shape(tensor.shape)}"
        )
