"""Durations, sizes, addresses and the other values of the configuration, as people write them.

Each parser raises ValueError with one line that quotes the text and says what to write instead; each
formatter gives text that its parser reads back to the same value.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")

_NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_BINARY_BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DECIMAL_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES = {"b": 1} | {unit.lower(): scale for unit, scale in (_BINARY_BYTES | _DECIMAL_BYTES).items()}
_DURATION_HINT = "write for example 10ms (units: ns, us, ms, s, m, h)"
_SIZE_HINT = "write for example 64MiB (units: B, KiB, MiB, GiB, TiB, KB, MB, GB, TB)"

# Both travel as signed 64-bit integers.
LARGEST = 2**63 - 1

_QUANTITY = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,18})?) ?([A-Za-zµμ]*)")
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?")
_PORT = re.compile(r"[0-9]{1,5}")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*)(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*\.?")
_ADDRESS_HINT = "write HOST:PORT, for example 127.0.0.1:8001, localhost:8001 or [::1]:8001"

# Where an address leaves the host out, the daemon stays private to the machine.
LOOPBACK = "127.0.0.1"


def parse_duration_ns(text: str) -> int:
    """Read a duration such as "500us", "1.5s" or "0"; a bare number other than 0 is refused."""
    number, unit = _quantity(text, "a duration", _DURATION_HINT)
    if not unit and number == 0:
        return 0
    if not unit:
        raise ValueError(f"{text!r} has no unit; {_DURATION_HINT}")
    scale = _NANOSECONDS.get("us" if unit in ("µs", "μs") else unit)
    if scale is None:
        raise ValueError(f"{text!r} has an unknown unit; {_DURATION_HINT}")
    return _whole(number * scale, text, "nanoseconds")


def format_duration(ns: int) -> str:
    """Write a duration in the largest unit that divides it."""
    if ns == 0:
        return "0s"
    unit, scale = next((u, s) for u, s in reversed(_NANOSECONDS.items()) if ns % s == 0)
    return f"{ns // scale}{unit}"


def parse_size_bytes(text: str) -> int:
    """Read a size such as "64KiB", "10MB" or a plain number of bytes."""
    number, unit = _quantity(text, "a size", _SIZE_HINT)
    scale = _BYTES.get(unit.lower() or "b")
    if scale is None:
        raise ValueError(f"{text!r} has an unknown unit; {_SIZE_HINT}")
    return _whole(number * scale, text, "bytes")


def format_size(size_bytes: int) -> str:
    """Write a size exactly, in the unit that makes it shortest."""
    if size_bytes == 0:
        return "0"
    units = _BINARY_BYTES | _DECIMAL_BYTES
    exact = [f"{size_bytes // scale}{unit}" for unit, scale in units.items() if size_bytes % scale == 0]
    return min([*exact, str(size_bytes)], key=len)


def _quantity(text: str, what: str, hint: str) -> tuple[Fraction, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not {what}; {hint}")
    return Fraction(match[1]), match[2]


def _whole(value: Fraction, text: str, unit: str) -> int:
    if value.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of {unit}")
    if value > LARGEST:
        raise ValueError(f"{text!r} is too large")
    return int(value)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Attributes:
        host: A host name, an IPv4 address, or an IPv6 address without brackets.
        port: 0 takes a free port.
    """

    host: str
    port: int

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read "HOST:PORT"; ":PORT" alone listens on 127.0.0.1, and IPv6 addresses stand in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port; {_ADDRESS_HINT}")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"{text!r} has no port between 0 and 65535; {_ADDRESS_HINT}")
    return Address(_host(host, text), int(port))


def _host(host: str, text: str) -> str:
    if not host:
        return LOOPBACK
    try:
        if host.startswith("[") and host.endswith("]"):
            return str(ipaddress.IPv6Address(host[1:-1]))
        if re.fullmatch(r"[0-9.]+", host):
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise ValueError(f"{text!r} has an invalid IP address; {_ADDRESS_HINT}") from None
    if ":" in host:
        raise ValueError(f"{text!r} is ambiguous: an IPv6 address stands in brackets; {_ADDRESS_HINT}")
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{text!r} has an invalid host; {_ADDRESS_HINT}")
    return host


def suggestion(word: str, known: Iterable[str]) -> str:
    """Text to append to an error about an unknown word: "; did you mean 'x'?", or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of configuration value: how it is read and written.

    Attributes:
        metavar: Placeholder in help texts.
        expected: What a wrong TOML type is told to be.
        toml: The TOML types that may carry it.
        read: From the text of a flag or environment variable, or from a TOML value of one of these types.
        write: To text that `read` takes back, where there is a value.
        word: A string that TOML may have in place of the usual type.
    """

    metavar: str
    expected: str
    toml: tuple[type, ...]
    read: Callable[[Any], T]
    write: Callable[[T], str]
    word: str | None = None

    def read_toml(self, value: object) -> T:
        """Read a TOML value; raises ValueError on a wrong type, too."""
        # By identity of type: a TOML boolean must not pass as an integer.
        if type(value) not in self.toml and (self.word is None or value != self.word):
            raise ValueError(
                f"expected {self.expected}, not {_TOML_NAMES.get(type(value), 'a date or time')}"
            )
        return self.read(value)


_TOML_NAMES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a float",
    bool: "a boolean",
    list: "an array",
    dict: "a table",
}


def integer(low: int, high: int) -> Kind[int]:
    """A whole number between two bounds, both included."""

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise ValueError(f"{text!r} is not a whole number")
        return int(text)

    return Kind("N", "a whole number", (int,), _bounded(parse, low, high, str), str)


def duration(low_ns: int, high_ns: int) -> Kind[int]:
    """A duration in nanoseconds between two bounds, both included."""
    read = _bounded(parse_duration_ns, low_ns, high_ns, format_duration)
    # An integer is let through so that the parser can ask for its unit.
    return Kind("DURATION", 'a duration such as "10ms"', (str, int), read, format_duration)


def size(low_bytes: int, high_bytes: int) -> Kind[int]:
    """A size in bytes between two bounds, both included."""
    read = _bounded(parse_size_bytes, low_bytes, high_bytes, format_size)
    return Kind("SIZE", 'a size such as "64MiB"', (str, int), read, format_size)


def choice(*values: str) -> Kind[str]:
    """One of a few words."""

    def read(value: str) -> str:
        if value not in values:
            raise ValueError(f"{value!r} is not one of {', '.join(values)}{suggestion(value, values)}")
        return value

    return Kind("|".join(values), f"one of {', '.join(values)}", (str,), read, str)


def auto(kind: Kind[T]) -> Kind[T | None]:
    """The same, or the word "auto", which is None: the daemon decides."""

    def read(value: object) -> T | None:
        return None if value == "auto" else kind.read(value)

    def write(value: T | None) -> str:
        return "auto" if value is None else kind.write(value)

    return Kind(f"{kind.metavar}|auto", f'{kind.expected}, or "auto"', kind.toml, read, write, word="auto")


def boolean() -> Kind[bool]:
    """True or false, with the spellings that environment variables have."""
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }

    def read(value: object) -> bool:
        try:
            return words[str(value).lower()]
        except KeyError:
            raise ValueError(f"{value!r} is neither true nor false") from None

    return Kind("BOOL", "true or false", (bool,), read, lambda value: str(value).lower())


def utf8_path(text: str) -> Path:
    """A path that processes can tell each other. Raises ValueError for any other."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the path {text!r} is not UTF-8: rename it") from None
    return Path(text)


def optional_path() -> Kind[Path | None]:
    """A path, or nothing."""

    def read(value: str) -> Path:
        if not value:
            raise ValueError("expected a path, not an empty string")
        return utf8_path(value)

    return Kind("FILE", "a path", (str,), read, lambda value: "none" if value is None else str(value))


def path_or(*words: str) -> Kind[Path | str]:
    """A path, or one of a few words."""

    def read(value: str) -> Path | str:
        if not value:
            raise ValueError(f"expected a path or one of {', '.join(words)}, not an empty string")
        return value if value in words else utf8_path(value)

    return Kind(f"FILE|{'|'.join(words)}", f"a path, or one of {', '.join(words)}", (str,), read, str)


def many_paths() -> Kind[tuple[Path, ...]]:
    """Several paths: an array in TOML, separated as in PATH in an environment variable."""

    def read(value: str | Sequence[object]) -> tuple[Path, ...]:
        texts = value.split(os.pathsep) if isinstance(value, str) else value
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError("expected an array of paths, none of them empty")
        return tuple(utf8_path(str(text)) for text in texts)

    return Kind(
        "PATH", "an array of paths", (list,), read, lambda paths: os.pathsep.join(map(str, paths)) or "none"
    )


def user() -> Kind[str | None]:
    """A user and perhaps a group, by name or number, or nothing."""

    def read(value: str) -> str:
        if not _USER.fullmatch(value):
            raise ValueError(f"{value!r} is not a user; write USER or USER:GROUP, names or numbers")
        return value

    return Kind("USER[:GROUP]", "a user", (str,), read, lambda value: value or "none")


def names() -> Kind[tuple[str, ...]]:
    """Several names: an array in TOML, a flag that may be repeated, and separated by commas in a variable."""

    def read(value: str | Sequence[object]) -> tuple[str, ...]:
        texts = [text.strip() for text in value.split(",")] if isinstance(value, str) else value
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError("expected an array of names, none of them empty")
        return tuple(dict.fromkeys(map(str, texts)))

    return Kind("NAME", "an array of names", (list,), read, lambda found: ",".join(found) or "none")


def _bounded(
    parse: Callable[[str], int], low: int, high: int, write: Callable[[int], str]
) -> Callable[[Any], int]:
    def read(value: object) -> int:
        number = parse(str(value))
        if number < low:
            raise ValueError(f"{value} is too small: the least is {write(low)}")
        if number > high:
            raise ValueError(f"{value} is too large: the most is {write(high)}")
        return number

    return read
