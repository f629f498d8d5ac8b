"""Records are 64 bytes, and both ways of reading them, struct and NumPy, see the same."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.transport.records import (
    COMPLETION,
    COMPLETION_STRUCT,
    PIPE_BUF_BYTES,
    RECORD_BYTES,
    RELEASE,
    RELEASE_STRUCT,
    TICKET,
    TICKET_STRUCT,
    chunks,
    words,
)

CODECS = {
    "ticket": (TICKET, struct.Struct(TICKET_STRUCT)),
    "completion": (COMPLETION, struct.Struct(COMPLETION_STRUCT)),
    "release": (RELEASE, struct.Struct(RELEASE_STRUCT)),
}
codecs = pytest.mark.parametrize("kind", CODECS)


def named(dtype: np.dtype[Any]) -> list[str]:
    """The fields that say something, in their order."""
    assert dtype.names is not None
    return [name for name in dtype.names if not name.startswith("reserved")]


def values(dtype: np.dtype[Any]) -> st.SearchStrategy[dict[str, int]]:
    limits = [np.iinfo(dtype[name]) for name in named(dtype)]
    numbers = st.tuples(*(st.integers(int(limit.min), int(limit.max)) for limit in limits))
    return numbers.map(lambda found: dict(zip(named(dtype), found, strict=True)))


def as_array(dtype: np.dtype[Any], record: Mapping[str, int]) -> Any:
    array = np.zeros(1, dtype)
    for name, value in record.items():
        array[name] = value
    return array


@codecs
def test_a_record_takes_64_bytes(kind: str) -> None:
    dtype, layout = CODECS[kind]
    assert dtype.itemsize == layout.size == RECORD_BYTES == 64


@codecs
@given(st.data())
def test_struct_and_numpy_agree_on_every_field(kind: str, data: st.DataObject) -> None:
    dtype, layout = CODECS[kind]
    record = data.draw(values(dtype))
    encoded = layout.pack(*record.values())
    assert encoded == as_array(dtype, record).tobytes()
    decoded = np.frombuffer(encoded, dtype)[0]
    assert {name: int(decoded[name]) for name in named(dtype)} == record
    assert dict(zip(named(dtype), layout.unpack(encoded), strict=True)) == record


@codecs
@given(st.binary(min_size=64, max_size=64))
def test_any_64_bytes_are_read_alike(kind: str, encoded: bytes) -> None:
    dtype, layout = CODECS[kind]
    decoded = np.frombuffer(encoded, dtype)[0]
    assert [int(decoded[name]) for name in named(dtype)] == list(layout.unpack(encoded))


@codecs
def test_every_field_is_little_endian_and_aligned_to_its_size(kind: str) -> None:
    dtype, _ = CODECS[kind]
    for name in named(dtype):
        field, offset = dtype.fields[name][:2] if dtype.fields else (dtype, 0)
        assert offset % field.itemsize == 0, name
        assert field.newbyteorder("<") == field, name


@given(values(TICKET), values(TICKET))
def test_words_show_what_must_be_equal_in_a_batch(one: dict[str, int], other: dict[str, int]) -> None:
    pair = np.concatenate((as_array(TICKET, one), as_array(TICKET, other)))
    matrix = words(pair)
    assert matrix.shape == (2, 8)
    same_slab = all(one[name] == other[name] for name in ("frontend", "segment"))
    assert (matrix[0, 0] == matrix[1, 0]) == same_slab
    alike = ("lane", "rows", "shape_key", "bytes", "priority", "flags", "attempt")
    assert (matrix[0, 1:4] == matrix[1, 1:4]).all() == all(one[name] == other[name] for name in alike)


@given(values(TICKET))
def test_the_word_that_a_completion_repeats_is_slot_and_generation(ticket: dict[str, int]) -> None:
    completion = np.zeros(1, COMPLETION)
    words(completion)[:, 0] = words(as_array(TICKET, ticket))[:, 4]
    assert int(completion["slot"][0]) == ticket["slot"]
    assert int(completion["generation"][0]) == ticket["generation"]


@given(st.integers(0, 300))
def test_writes_are_whole_records_that_a_pipe_does_not_split(count: int) -> None:
    records = bytes(at % 251 for at in range(count * RECORD_BYTES))
    writes = chunks(records)
    assert b"".join(writes) == records
    assert all(0 < len(write) <= PIPE_BUF_BYTES and len(write) % RECORD_BYTES == 0 for write in writes)
