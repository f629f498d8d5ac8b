from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.config.units import (
    LARGEST,
    Address,
    auto,
    boolean,
    choice,
    duration,
    format_duration,
    format_size,
    integer,
    many_paths,
    optional_path,
    parse_address,
    parse_duration_ns,
    parse_size_bytes,
    path_or,
    size,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("0s", 0),
        ("7ns", 7),
        ("500us", 500_000),
        ("500µs", 500_000),
        ("10ms", 10_000_000),
        ("1.5s", 1_500_000_000),
        ("2 s", 2_000_000_000),
        ("1m", 60_000_000_000),
        ("1h", 3_600_000_000_000),
        ("0.000000001s", 1),
    ],
)
def test_durations_are_read_exactly(text: str, ns: int) -> None:
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10", "has no unit; write for example 10ms"),
        ("0.5", "has no unit"),
        ("", "is not a duration"),
        ("-1s", "is not a duration"),
        ("1 000ms", "is not a duration"),
        ("1_000ms", "is not a duration"),
        ("ten ms", "is not a duration"),
        ("1e3ms", "is not a duration"),
        ("\uff11ms", "is not a duration"),
        ("10M", "has an unknown unit"),
        ("10sec", "has an unknown unit"),
        ("0.5ns", "is not a whole number of nanoseconds"),
        ("9999999999h", "is too large"),
        ("1s\n", "is not a duration"),
    ],
)
def test_a_wrong_duration_is_refused_with_its_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} {message}")):
        parse_duration_ns(text)


@given(st.integers(0, LARGEST))
def test_a_formatted_duration_reads_back(ns: int) -> None:
    assert parse_duration_ns(format_duration(ns)) == ns


@given(st.integers(1, 10**6), st.sampled_from(["ns", "us", "ms", "s", "m", "h"]))
def test_formatting_a_duration_never_takes_more_digits_than_were_written(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    assert len(format_duration(parse_duration_ns(text))) <= len(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("123", 123),
        ("123B", 123),
        ("64KiB", 65536),
        ("256MiB", 268435456),
        ("256mib", 268435456),
        ("1GiB", 1073741824),
        ("1TiB", 1099511627776),
        ("10MB", 10_000_000),
        ("1.5KB", 1500),
        ("2 GB", 2_000_000_000),
    ],
)
def test_sizes_are_read_exactly(text: str, size_bytes: int) -> None:
    assert parse_size_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a size"),
        ("-1", "is not a size"),
        ("64K", "has an unknown unit; write for example 64MiB"),
        ("10Mbit", "has an unknown unit"),
        ("0.3KiB", "is not a whole number of bytes"),
        ("9223372036854775808", "is too large"),
    ],
)
def test_a_wrong_size_is_refused_with_its_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} {message}")):
        parse_size_bytes(text)


@given(st.integers(0, LARGEST))
def test_a_formatted_size_reads_back(size_bytes: int) -> None:
    assert parse_size_bytes(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(2**28, "256MiB"), (10**7, "10MB"), (1023, "1023"), (2**41, "2TiB")]
)
def test_sizes_are_written_short(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8001", Address("127.0.0.1", 8001)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
        ("[::1]:8001", Address("::1", 8001)),
        ("[0:0:0:0:0:0:0:1]:8001", Address("::1", 8001)),
        ("[::]:0", Address("::", 0)),
        ("[fe80::1%eth0]:80", Address("fe80::1%eth0", 80)),
        ("localhost:8001", Address("localhost", 8001)),
        ("model_server.example.org:65535", Address("model_server.example.org", 65535)),
        (":8001", Address("127.0.0.1", 8001)),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8001", "has no port"),
        ("localhost", "has no port"),
        ("localhost:", "has no port between 0 and 65535"),
        ("localhost:http", "has no port between 0 and 65535"),
        ("localhost:65536", "has no port between 0 and 65535"),
        ("localhost:-1", "has no port between 0 and 65535"),
        ("::1:8001", "is ambiguous"),
        ("http://localhost:8001", "is ambiguous"),
        ("[::1:8001", "is ambiguous"),
        ("[localhost]:8001", "has an invalid IP address"),
        ("[127.0.0.1]:8001", "has an invalid IP address"),
        ("256.0.0.1:8001", "has an invalid IP address"),
        ("1.2.3:8001", "has an invalid IP address"),
        ("*:8001", "has an invalid host"),
        ("my host:8001", "has an invalid host"),
        (f"{'a' * 254}:1", "has an invalid host"),
    ],
)
def test_a_wrong_address_is_refused_with_its_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{text!r} {message}")):
        parse_address(text)


_HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z][a-z0-9-]{0,20}){0,3}", fullmatch=True),
)


@given(_HOSTS, st.integers(0, 65535))
def test_a_written_address_reads_back(host: str, port: int) -> None:
    assert parse_address(str(Address(host, port))) == Address(host, port)


def refusal(parse: Callable[[str], object], text: str) -> str | None:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None


@given(st.text(max_size=30))
def test_no_text_breaks_a_parser_in_another_way_than_valueerror(text: str) -> None:
    for parse in (parse_duration_ns, parse_size_bytes, parse_address):
        message = refusal(parse, text)
        assert message is None or (repr(text) in message and "\n" not in message)


def test_bounds_are_inclusive_and_told_in_the_kind_s_own_unit() -> None:
    kind = duration(10**9, 60 * 10**9)
    assert (kind.read("1s"), kind.read("1m")) == (10**9, 60 * 10**9)
    with pytest.raises(ValueError, match="999ms is too small: the least is 1s"):
        kind.read("999ms")
    with pytest.raises(ValueError, match="61s is too large: the most is 1m"):
        kind.read("61s")
    with pytest.raises(ValueError, match="1023 is too small: the least is 1KiB"):
        size(1024, 2048).read("1023")
    with pytest.raises(ValueError, match="-1 is too small: the least is 1"):
        integer(1, 2).read("-1")


def test_auto_is_none_and_the_rest_is_the_kind_s() -> None:
    kind = auto(integer(1, 8))
    assert (kind.read("auto"), kind.read_toml("auto"), kind.read_toml(4), kind.write(None)) == (
        None,
        None,
        4,
        "auto",
    )
    with pytest.raises(ValueError, match='expected a whole number, or "auto", not a string'):
        kind.read_toml("4")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("OFF", False), ("no", False)])
def test_booleans_have_the_spellings_of_environment_variables(text: str, *, value: bool) -> None:
    assert boolean().read(text) is value


def test_neither_true_nor_false() -> None:
    with pytest.raises(ValueError, match="'ture' is neither true nor false"):
        boolean().read("ture")
    with pytest.raises(ValueError, match="expected true or false, not an integer"):
        boolean().read_toml(1)


def test_a_wrong_choice_is_answered_with_the_close_one() -> None:
    with pytest.raises(ValueError, match="is not one of auto, shared; did you mean 'shared'"):
        choice("auto", "shared").read("share")


def test_paths() -> None:
    assert [str(path) for path in many_paths().read("/a:/b c")] == ["/a", "/b c"]
    assert [str(path) for path in many_paths().read_toml(["/a:b"])] == ["/a:b"]
    with pytest.raises(ValueError, match="none of them empty"):
        many_paths().read_toml(["/a", 3])
    with pytest.raises(ValueError, match="none of them empty"):
        many_paths().read("/a::/b")
    with pytest.raises(ValueError, match="not an empty string"):
        optional_path().read("")
    for kind in (many_paths(), optional_path(), path_or("auto")):
        with pytest.raises(ValueError, match=r"the path 'm\\udcff' is not UTF-8: rename it"):
            kind.read("m\udcff")


def test_a_toml_boolean_is_no_integer() -> None:
    with pytest.raises(ValueError, match="expected a whole number, not a boolean"):
        integer(0, 8).read_toml(True)
