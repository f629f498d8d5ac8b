"""Rules that are written in C and in Python: both must give the same, for whatever comes."""

from __future__ import annotations

import ctypes
import random
import re
import shutil
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from predictd.server.frontend.expectation import Expectation
from predictd.server.frontend.native.inflate import WINDOW_BITS, UnreadableMessageError, inflate
from predictd.server.observe.buckets import DURATION_BOUNDS_NS
from predictd.server.observe.deltas import NATIVE_WAYS
from predictd.server.transport import records
from predictd.server.transport.allocator import size_class
from predictd.server.transport.blocks import (
    INPUT_DESCRIPTOR,
    OUTPUT_DESCRIPTOR,
    REQUEST_HEADER,
    RESPONSE_HEADER,
)

SOURCES = Path(__file__).parents[2] / "server" / "native" / "src"
EXPECTATION_BYTES = 4096


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The files that have such rules and need nothing else."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    built = tmp_path_factory.mktemp("rules") / "rules.so"
    files = [SOURCES / name for name in ("expectation.c", "arena.c", "counts.c", "inflate.c")]
    options = ["-std=c11", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1"]
    subprocess.run([compiler, *options, "-o", built, *files, "-lz"], check=True, timeout=60)
    library = ctypes.CDLL(str(built))
    library.arena_class_bytes.restype = ctypes.c_size_t
    library.arena_class_bytes.argtypes = [ctypes.c_size_t]
    library.inflate_message.restype = ctypes.c_void_p
    library.expectation_wait_ns.restype = ctypes.c_uint64
    library.expectation_excess_ns.restype = ctypes.c_uint64
    return library


@given(size=st.integers(1, 1 << 36))
@settings(max_examples=300)
def test_sizes_of_blocks(library: Any, size: int) -> None:
    assert library.arena_class_bytes(size) == size_class(size)


def test_ways_have_the_same_numbers() -> None:
    names = re.findall(r"WAY_(\w+),", (SOURCES / "ways.h").read_text())
    in_c = {"LANE": "model", "CLIENT": "client_limit", "SLOW": "upload"}
    assert [in_c.get(name, name.lower()) for name in names] == list(NATIVE_WAYS)


ANSWER = st.tuples(st.integers(0, 500), st.integers(0, 10**11), st.integers(0, 10**10), st.integers(0, 10**9))


@given(
    answers=st.lists(ANSWER, max_size=60), ahead=st.integers(0, 2000), left_ns=st.integers(-(10**10), 10**12)
)
@settings(max_examples=200)
def test_expected_waits(
    library: Any, answers: Sequence[tuple[int, int, int, int]], ahead: int, left_ns: int
) -> None:
    python, native = Expectation(), ctypes.create_string_buffer(EXPECTATION_BYTES)
    now_ns = 10**9
    for before, queue_ns, compute_ns, passed_ns in answers:
        now_ns += passed_ns
        python.answered(before, queue_ns, compute_ns, now_ns)
        library.expectation_answered(
            native, ctypes.c_uint32(before), *map(ctypes.c_uint64, (queue_ns, compute_ns, now_ns))
        )
        # Asked in between, as it is remembered for a few answers.
        assert _wait(library, native, ahead, now_ns) == python.wait_ns(ahead, now_ns)
    for later_ns in (0, 10**9, 10**13):
        now = now_ns + later_ns
        assert _wait(library, native, ahead, now) == python.wait_ns(ahead, now)
        assert library.expectation_excess_ns(
            native, ctypes.c_uint32(ahead), ctypes.c_int64(left_ns), ctypes.c_uint64(now)
        ) == python.excess_ns(ahead, left_ns, now)


def _wait(library: Any, native: Any, ahead: int, now_ns: int) -> int:
    return int(library.expectation_wait_ns(native, ctypes.c_uint32(ahead), ctypes.c_uint64(now_ns)))


def _inflated(
    library: Any, encoding: str, message: bytes, limit_bytes: int, left_ns: int = 10**12
) -> bytes | None:
    """What C makes of it; None: it is Python's."""
    size, left = ctypes.c_size_t(), ctypes.c_uint64(left_ns)
    content = ctypes.create_string_buffer(message, len(message))
    # `struct pn_bytes`: data, size, capacity.
    packed = (ctypes.c_size_t * 3)(ctypes.addressof(content), len(message), len(message))
    bits = library.inflate_format(encoding.encode(), ctypes.c_size_t(len(encoding)))
    found = library.inflate_message(
        bits,
        ctypes.byref(packed),
        ctypes.c_uint64(limit_bytes),
        ctypes.byref(left),
        ctypes.byref(size),
    )
    assert left.value <= left_ns
    return ctypes.string_at(found, size.value) if found else None


def _packed(encoding: str, plain: bytes, level: int) -> bytes:
    packer = zlib.compressobj(level, wbits={"gzip": 31, "deflate": 15}[encoding])
    return packer.compress(plain) + packer.flush()


PLAIN_BYTES_MAX = 128 * 1024
PLAIN = st.one_of(
    st.binary(max_size=3000),
    # Of pieces, so that they are large and come to few bytes; about as large as C reads, some of them.
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=300), st.integers(1, 600)),
    st.integers(PLAIN_BYTES_MAX - 2, PLAIN_BYTES_MAX + 2).map(bytes),
)


@given(
    encoding=st.sampled_from(["gzip", "deflate"]),
    plain=PLAIN,
    level=st.integers(0, 9),
    damage=st.sampled_from(["", "cut", "more", "flipped", "twice"]),
    at=st.integers(0, 10**6),
    limit_bytes=st.sampled_from([100, 2000, 10**6]),
)
@settings(max_examples=300)
def test_what_is_inflated_in_c_is_what_python_has(
    library: Any, encoding: str, plain: bytes, level: int, damage: str, at: int, limit_bytes: int
) -> None:
    message = bytearray(_packed(encoding, plain, level))
    if damage == "cut":
        del message[-(1 + at % 40) :]
    elif damage == "more":
        message.append(at % 256)
    elif damage == "flipped":
        message[at % len(message)] ^= 1 + at % 255
    elif damage == "twice":
        message *= 2
    # One of no bytes says nothing, and never comes to be inflated in C.
    assume(message)
    try:
        expected: bytes | None = inflate(bytes(message), encoding, limit_bytes)
    except UnreadableMessageError:
        expected = None
    found = _inflated(library, encoding, bytes(message), limit_bytes)
    if found is not None or (expected is not None and len(expected) < min(limit_bytes, PLAIN_BYTES_MAX)):
        assert found == expected


def test_encodings_that_are_known(library: Any) -> None:
    for name in ("gzip", "deflate", "", "identity", "GZIP", "gzipx", "gzi", "snappy"):
        bits = library.inflate_format(name.encode(), ctypes.c_size_t(len(name)))
        assert bits == WINDOW_BITS.get(name, 0)


def test_what_takes_long_is_not_inflated_in_c(library: Any) -> None:
    message = _packed("gzip", random.Random(0).randbytes(60_000), 6)
    assert _inflated(library, "gzip", message, 10**6) is not None
    assert _inflated(library, "gzip", message, 10**6, left_ns=1) is None
    assert _inflated(library, "gzip", _packed("gzip", b"a", 6), 10**6, left_ns=0) is None


OFFSETS = r"""
#include <stdio.h>
#include "records.h"
#define SHOW(type, field) printf("%s.%s %zu\n", #type, #field, offsetof(struct type, field));
int main(void)
{
    printf("abi %d\n", ABI_VERSION);
    SHOW(ticket, shape_key) SHOW(ticket, bytes) SHOW(ticket, priority) SHOW(ticket, flags) SHOW(ticket, attempt)
    SHOW(ticket, frontend) SHOW(ticket, segment) SHOW(ticket, lane) SHOW(ticket, rows)
    SHOW(ticket, slot) SHOW(ticket, generation) SHOW(ticket, block) SHOW(ticket, enqueued_ns) SHOW(ticket, deadline_ns)
    SHOW(completion, slot) SHOW(completion, generation) SHOW(completion, first_row) SHOW(completion, rows)
    SHOW(completion, worker) SHOW(completion, segment) SHOW(completion, block) SHOW(completion, batch_rows)
    SHOW(completion, answers) SHOW(completion, lane) SHOW(completion, queue_ns) SHOW(completion, compute_ns)
    SHOW(completion, status)
    SHOW(release, frontend) SHOW(release, segment) SHOW(release, block) SHOW(release, count)
    printf("request_header %zu\nresponse_header %zu\noutput_descriptor %zu\n", sizeof(struct request_header),
           sizeof(struct response_header), sizeof(struct output_descriptor));
    return 0;
}
"""


def test_records_lie_as_the_transport_has_them(library: Any, tmp_path: Path) -> None:
    del library  # There is a compiler.
    source, program = tmp_path / "offsets.c", tmp_path / "offsets"
    source.write_text(OFFSETS)
    subprocess.run(["cc", "-std=c11", f"-I{SOURCES}", "-o", program, source], check=True, timeout=60)
    shown = dict(
        line.split()
        for line in subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    )
    assert int(shown.pop("abi")) == records.ABI_VERSION
    for name, layout in (
        ("request_header", REQUEST_HEADER),
        ("response_header", RESPONSE_HEADER),
        ("output_descriptor", OUTPUT_DESCRIPTOR),
    ):
        assert int(shown.pop(name)) == layout.size
    assert INPUT_DESCRIPTOR.size == 24
    for field, offset in shown.items():
        record, _, name = field.partition(".")
        dtype = {"ticket": records.TICKET, "completion": records.COMPLETION, "release": records.RELEASE}[
            record
        ]
        assert dtype.fields is not None
        assert dtype.fields[name][1] == int(offset), field


def test_buckets_of_durations(library: Any) -> None:
    bounds = (ctypes.c_uint64 * len(DURATION_BOUNDS_NS))(*DURATION_BOUNDS_NS)
    library.counts_set_bounds.restype = ctypes.c_char_p
    assert library.counts_set_bounds(bounds, ctypes.c_size_t(len(bounds))) is None
    library.counts_buckets.restype = ctypes.c_size_t
    assert library.counts_buckets() == len(DURATION_BOUNDS_NS) + 1
