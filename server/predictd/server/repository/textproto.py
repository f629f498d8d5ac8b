"""Protocol Buffers' text format, read into a tree in which everything knows its line.

protobuf's own reader needs the generated classes of every message, which the supervisor has no use for
otherwise, stops at the first unknown field, and forgets where a value stood. Every message of ours to the
author of a `config.pbtxt` names the line, so this reads the language itself:

    message  =  { field [ "," | ";" ] }
    field    =  name ":" value  |  name [ ":" ] "{" message "}"      (or "<" message ">")
    value    =  text { text }  |  [ "-" ] number  |  [ "-" ] word  |  message  |  "[" [ value { "," value } ] "]"

What a field may hold is for `protoschema` to know. Extensions and Any, "[name] {}", are refused: nobody
uses them in the files that are read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from predictd.server.config.model_config import ModelConfigError
from predictd.server.config.small_file import read_small_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# protobuf's readers have the same limit.
MOST_LEVELS = 100
MOST_BYTES = 4 * 2**20
_LONGEST_NUMBER = 100


@dataclass(frozen=True, slots=True)
class Text:
    """A string, not necessarily UTF-8."""

    line: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Number:
    """An integer, or a float if it was written as one."""

    line: int
    value: int | float


@dataclass(frozen=True, slots=True)
class Word:
    """An enum's value, a boolean, or a float's "inf" or "nan", which may have a minus before it."""

    line: int
    value: str


@dataclass(frozen=True, slots=True)
class Field:
    """A field as it was written, once.

    Attributes:
        line: Of its name.
        name: Of the field.
        values: One, or those of a list.
        is_list: It was written with "[" and "]".
    """

    line: int
    name: str
    values: tuple[Value, ...]
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its fields in order, repeated ones as often as they were written."""

    line: int
    fields: tuple[Field, ...]


Value = Text | Number | Word | Message


def parse_file(path: Path) -> Message:
    """Read a file.

    Raises:
        ModelConfigError: It cannot be read, or is not text format.
    """
    try:
        data = read_small_file(path, MOST_BYTES)
    except OSError as error:
        raise ModelConfigError(path, None, str(error.strerror).lower()) from error
    except ValueError as error:
        raise ModelConfigError(path, None, str(error)) from error
    return parse(data, path)


def parse(data: bytes, path: Path) -> Message:
    """Read what a file holds.

    Args:
        data: The file's content.
        path: For messages.

    Raises:
        ModelConfigError: This is not text format. It names the line.
    """
    if len(data) > MOST_BYTES:
        raise ModelConfigError(path, 1, f"larger than {MOST_BYTES} bytes: no configuration is")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ModelConfigError(path, line, "not UTF-8 text") from error
    try:
        return _Parser(text).whole()
    except _SyntaxError as error:
        raise ModelConfigError(path, error.line, error.message) from error


class _SyntaxError(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _Token(NamedTuple):
    kind: str  # "word", "number", "text", "end", or the character itself.
    text: str
    line: int

    @property
    def shown(self) -> str:
        """For messages."""
        return "the end of the file" if self.kind == "end" else repr(self.text[:40])


_TOKEN = re.compile(
    r"""
      (?P<space>   [ \t\r\n\f\v]+ | \#[^\n]* )
    | (?P<word>    [A-Za-z_][A-Za-z0-9_]* )
    | (?P<number>  (?: 0[xX][0-9A-Fa-f]+ | (?: [0-9]+ (?: \.[0-9]* )? | \.[0-9]+ ) (?: [eE][+-]?[0-9]+ )? [fF]? )
                   (?![A-Za-z0-9_.]) )
    | (?P<text>    "(?: [^"\\\n] | \\[^\n] )*" | '(?: [^'\\\n] | \\[^\n] )*' )
    | (?P<mark>    [-{}<>\[\]:,;] )
    """,
    re.VERBOSE,
)


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _SyntaxError(line, _unreadable(text[at]))
        kind, found = str(match.lastgroup), match[0]
        if kind != "space":
            yield _Token(found if kind == "mark" else kind, found, line)
        line += found.count("\n")
        at = match.end()
    yield _Token("end", "", line)


def _unreadable(character: str) -> str:
    if character in "\"'":
        return f"a string that begins with {character} is not closed on its line"
    if character.isdigit() or character == ".":
        return "not a number"
    return f"unexpected character {character!r}"


_CLOSING = {"{": "}", "<": ">"}


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = next(self._tokens)
        self._depth = 0

    def whole(self) -> Message:
        return Message(1, tuple(self._fields("end", self._next)))

    def _take(self) -> _Token:
        token = self._next
        if token.kind != "end":
            self._next = next(self._tokens)
        return token

    def _took(self, kind: str) -> bool:
        if self._next.kind != kind:
            return False
        self._take()
        return True

    def _expected(self, what: str) -> NoReturn:
        raise _SyntaxError(self._next.line, f"expected {what}, found {self._next.shown}")

    def _fields(self, closing: str, opened: _Token) -> Iterator[Field]:
        while self._next.kind != closing:
            if self._next.kind == "end":
                raise _SyntaxError(self._next.line, f"'{opened.text}' of line {opened.line} is not closed")
            if self._next.kind != "word":
                self._expected("a field's name" if closing == "end" else f"a field's name or '{closing}'")
            yield self._field()
            if not self._took(","):
                self._took(";")

    def _field(self) -> Field:
        name = self._take()
        colon = self._took(":")
        if self._next.kind == "[":
            return Field(name.line, name.text, tuple(self._list(messages_only=not colon)), is_list=True)
        if not colon and self._next.kind not in _CLOSING:
            self._expected(f"':' or '{{' after {name.text}")
        return Field(name.line, name.text, (self._value(),))

    def _list(self, *, messages_only: bool) -> Iterator[Value]:
        self._take()
        if self._took("]"):
            return
        while True:
            if messages_only and self._next.kind not in _CLOSING:
                self._expected("'{', as a list of other values has ':' before it")
            yield self._value()
            if self._took("]"):
                return
            if not self._took(","):
                self._expected("',' or ']'")

    def _value(self) -> Value:
        if self._next.kind in _CLOSING:
            return self._message()
        if self._next.kind == "text":
            return self._text()
        line = self._next.line
        minus = self._took("-")
        if self._next.kind == "number":
            value = _number(self._take())
            return Number(line, -value if minus else value)
        if self._next.kind != "word":
            self._expected("a number" if minus else "a value")
        return Word(line, "-" * minus + self._take().text)

    def _message(self) -> Message:
        opened = self._take()
        closing = _CLOSING[opened.kind]
        self._depth += 1
        if self._depth > MOST_LEVELS:
            raise _SyntaxError(opened.line, f"more than {MOST_LEVELS} messages in each other")
        fields = tuple(self._fields(closing, opened))
        self._take()
        self._depth -= 1
        return Message(opened.line, fields)

    def _text(self) -> Text:
        line = self._next.line
        pieces: list[bytes] = []
        while self._next.kind == "text":
            pieces.append(_unescape(self._take()))
        return Text(line, b"".join(pieces))


def _number(token: _Token) -> int | float:
    text = token.text.lower()
    if len(text) > _LONGEST_NUMBER:
        raise _SyntaxError(token.line, "a number with too many digits")
    if text.startswith("0x"):
        return int(text, 16)
    if not text.isdigit():
        return float(text.removesuffix("f"))
    if text.startswith("0") and text != "0":
        return _octal(token)
    return int(text)


def _octal(token: _Token) -> int:
    try:
        return int(token.text, 8)
    except ValueError:
        raise _SyntaxError(token.line, f"{token.text} begins with 0 and is not octal") from None


_ESCAPE = re.compile(
    r"\\(?:(?P<octal>[0-7]{1,3})|[xX](?P<hex>[0-9A-Fa-f]{1,2})|u(?P<short>[0-9A-Fa-f]{4})"
    r"|U(?P<long>[0-9A-Fa-f]{8})|(?P<other>.))"
)
_CONTROL = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


def _unescape(token: _Token) -> bytes:
    text = token.text[1:-1]
    pieces: list[bytes] = []
    at = 0
    for match in _ESCAPE.finditer(text):
        pieces += (text[at : match.start()].encode(), _escaped(match, token.line))
        at = match.end()
    return b"".join((*pieces, text[at:].encode()))


def _escaped(match: re.Match[str], line: int) -> bytes:
    kind, written = str(match.lastgroup), str(match[str(match.lastgroup)])
    try:
        if kind == "octal":
            return bytes([int(written, 8)])
        if kind == "hex":
            return bytes([int(written, 16)])
        if kind in ("short", "long"):
            return chr(int(written, 16)).encode()
        if written in "\\'\"?":
            return written.encode()
        return bytes([_CONTROL[written]])
    except (ValueError, OverflowError, KeyError):
        # UnicodeEncodeError, for a surrogate, is a ValueError.
        raise _SyntaxError(line, f"unknown escape {match[0]!r} in a string") from None
