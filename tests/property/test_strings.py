"""Strings survive their wire form, and nothing but that form is taken for strings."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.worker.strings import decode_strings, encode_strings

elements = st.lists(st.binary(max_size=40), max_size=20)


@given(elements)
def test_strings_read_back(given_elements: list[bytes]) -> None:
    encoded, ends = encode_strings(given_elements)
    found = decode_strings(memoryview(encoded), len(given_elements))
    assert found.dtype == object
    assert list(found) == given_elements
    assert ends[0] == 0
    assert ends[-1] == len(encoded)
    for at, element in enumerate(given_elements):
        assert encoded[ends[at] : ends[at + 1]] == struct.pack("<I", len(element)) + element


@given(st.lists(st.text(max_size=20), max_size=10))
def test_text_is_encoded_as_utf_8(texts: list[str]) -> None:
    assert encode_strings(np.array(texts, object)) == encode_strings([text.encode() for text in texts])


@given(elements, st.integers(-2, 30))
def test_another_number_of_elements_is_refused(given_elements: list[bytes], count: int) -> None:
    if count == len(given_elements):
        return
    encoded, _ = encode_strings(given_elements)
    with pytest.raises(ValueError, match=r"element|negative"):
        decode_strings(memoryview(encoded), count)


@given(st.binary(max_size=200), st.integers(0, 60))
def test_garbage_is_either_refused_or_exactly_used_up(data: bytes, count: int) -> None:
    try:
        found = decode_strings(memoryview(data), count)
    except ValueError:
        return
    assert encode_strings(found)[0] == data


@given(st.integers(2**32, 2**62))
def test_a_count_beyond_the_data_takes_no_memory(count: int) -> None:
    with pytest.raises(ValueError, match="do not hold"):
        decode_strings(memoryview(b"\0" * 64), count)
