"""Metadata as they go between C and Python."""

from __future__ import annotations

import pytest

from predictd.server.frontend.native.metadata import pack, unpack


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("a", "1"), ("a", "2")),
        (("x-bin", b"\x00\xff,"), ("after", "it"), ("y-bin", b""), ("last", "")),
    ],
)
def test_what_is_packed_is_unpacked(metadata: tuple[tuple[str, str | bytes], ...]) -> None:
    assert unpack(pack(metadata)) == metadata


def test_values_of_one_binary_name_may_come_as_one() -> None:
    fields = b"".join(
        len(part).to_bytes(4, "little") + part for part in (b"a-bin", b"AAE,AAI=,AAA#", b"after", b"it")
    )
    assert unpack(fields) == (("a-bin", b"\0\1"), ("a-bin", b"\0\2"), ("after", "it"))
