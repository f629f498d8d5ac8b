"""What a text format message may hold: checks a parsed tree against a declared schema.

Every violation becomes a notice with its line, and the value is left out: one reading tells everything that
is wrong with a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from predictd.server.config.model_config import Notice
from predictd.server.config.units import suggestion
from predictd.server.repository.textproto import Field, Message, Number, Text, Value, Word

T = TypeVar("T")

_NAMES = {Text: "a string", Number: "a number", Word: "a word", Message: "a message"}
_BOOLEANS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type of single values.

    Attributes:
        expected: For messages.
        read: Raises ValueError if the value is of another type; without a message, "expected ..." says enough.
    """

    expected: str
    read: Callable[[Value], object]


@dataclass(frozen=True, slots=True)
class Schema:
    """A type of messages.

    Attributes:
        fields: Types of the fields by name.
        oneofs: Groups of fields of which one at most may be there.
    """

    fields: Mapping[str, FieldType]
    oneofs: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class FieldType:
    """A field of a schema.

    Attributes:
        type: Of its values; None leaves messages unread.
        repeated: It may be there several times.
    """

    type: Scalar | Schema | None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Notes:
    """Collects what there is to say about a file."""

    notices: list[Notice] = field(default_factory=list)

    def error(self, line: int, name: str, message: str, remedy: str = "") -> None:
        """The model cannot be served like this."""
        self.notices.append(Notice(line, name, message, remedy))

    def warn(self, line: int, name: str, message: str, remedy: str = "") -> None:
        """It can, but predictd does not do this."""
        self.notices.append(Notice(line, name, message, remedy, "warning"))

    @property
    def errors(self) -> int:
        """How many of them keep a model from being served."""
        return sum(notice.severity == "error" for notice in self.notices)

    def in_order(self) -> tuple[Notice, ...]:
        """All, in the order of their lines."""
        return tuple(sorted(self.notices, key=lambda notice: notice.line or 0))


class Item(NamedTuple):
    """A value that was read."""

    line: int
    value: object


class Record:
    """A message that was read. An absent field has its type's default value, as in proto3.

    Attributes:
        line: Where it begins.
        sound: Nothing in it is against the schema.
    """

    __slots__ = ("_items", "_lines", "line", "sound")

    def __init__(
        self,
        line: int,
        items: Mapping[str, Sequence[Item]] | None = None,
        lines: Mapping[str, int] | None = None,
        *,
        sound: bool = True,
    ) -> None:
        self.line = line
        self.sound = sound
        self._items = items or {}
        self._lines = lines or {}

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def line_of(self, name: str) -> int:
        """Where a field is first; the message's own line if it is not there."""
        return self._lines.get(name, self.line)

    def items(self, name: str) -> Sequence[Item]:
        """All values of a field, with their lines."""
        return self._items.get(name, ())

    def text(self, name: str) -> str:
        """A string or the name of an enum's value."""
        return self._one(name, str, "")

    def whole(self, name: str) -> int:
        """An integer."""
        return self._one(name, int, 0)

    def flag(self, name: str) -> bool:
        """A boolean."""
        return self._one(name, bool, False)

    def record(self, name: str) -> Record | None:
        """A message."""
        found = self._all(name, Record)
        return found[0] if found else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Strings."""
        return self._all(name, str)

    def wholes(self, name: str) -> tuple[int, ...]:
        """Integers."""
        return self._all(name, int)

    def records(self, name: str) -> tuple[Record, ...]:
        """Messages."""
        return self._all(name, Record)

    def _one(self, name: str, kind: type[T], default: T) -> T:
        found = self._all(name, kind)
        return found[0] if found else default

    def _all(self, name: str, kind: type[T]) -> tuple[T, ...]:
        return tuple(item.value for item in self.items(name) if isinstance(item.value, kind))


def decode(message: Message, schema: Schema, notes: Notes, place: str = "") -> Record:
    """Read a message.

    Args:
        message: As it was parsed.
        schema: What it may hold.
        notes: Violations are added to it.
        place: Path of fields that led here, for the notices.
    """
    before = len(notes.notices)
    items: dict[str, list[Item]] = {}
    lines: dict[str, int] = {}
    for entry in message.fields:
        where = f"{place}.{entry.name}" if place else entry.name
        field_type = schema.fields.get(entry.name)
        if field_type is None:
            hint = suggestion(entry.name, schema.fields)
            notes.error(entry.line, where, f"unknown field {entry.name!r}{hint}")
            continue
        _check_once(entry, field_type, where, notes, again=entry.name in lines)
        lines.setdefault(entry.name, entry.line)
        items.setdefault(entry.name, []).extend(_values(entry, field_type, notes, where))
    for group in schema.oneofs:
        given = [name for name in group if name in lines]
        for name in given[1:]:
            notes.error(lines[name], name, f"{name} and {given[0]} cannot both be there", "remove one")
    return Record(message.line, items, lines, sound=len(notes.notices) == before)


def _check_once(entry: Field, field_type: FieldType, where: str, notes: Notes, *, again: bool) -> None:
    if field_type.repeated:
        return
    if entry.is_list:
        notes.error(entry.line, where, f"{entry.name} takes one value, not a list")
    elif again:
        notes.error(entry.line, where, f"{entry.name} is there twice", "remove one")


def _values(entry: Field, field_type: FieldType, notes: Notes, where: str) -> Iterator[Item]:
    for value in entry.values:
        if isinstance(field_type.type, Scalar):
            try:
                yield Item(value.line, field_type.type.read(value))
            except ValueError as error:
                wrong = str(error) or f"expected {field_type.type.expected}, not {_NAMES[type(value)]}"
                notes.error(value.line, where, f"{entry.name}: {wrong}")
        elif not isinstance(value, Message):
            wrong = f"{entry.name}: expected a message {{ }}, not {_NAMES[type(value)]}"
            notes.error(value.line, where, wrong)
        elif field_type.type is None:
            yield Item(entry.line, Record(value.line))
        else:
            yield Item(entry.line, decode(value, field_type.type, notes, where))


def _read_string(value: Value) -> str:
    if not isinstance(value, Text):
        raise ValueError  # noqa: TRY004 - a reader raises nothing else
    try:
        return value.value.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


def _read_boolean(value: Value) -> bool:
    if isinstance(value, Word) and value.value in _BOOLEANS:
        return _BOOLEANS[value.value]
    if isinstance(value, Number) and value.value in (0, 1) and isinstance(value.value, int):
        return bool(value.value)
    raise ValueError


def _integer(low: int, high: int) -> Scalar:
    def read(value: Value) -> int:
        if not isinstance(value, Number) or not isinstance(value.value, int):
            raise ValueError  # noqa: TRY004 - a reader raises nothing else
        if not low <= value.value <= high:
            raise ValueError(f"{value.value} is not between {low} and {high}")
        return value.value

    return Scalar("a whole number", read)


def enumeration(**numbers: int) -> Scalar:
    """An enum by the names of its values; read as the name."""
    names = {number: name for name, number in numbers.items()}

    def read(value: Value) -> str:
        if isinstance(value, Number) and value.value in names:
            return names[int(value.value)]
        if isinstance(value, Word) and value.value in numbers:
            return value.value
        if isinstance(value, Text | Message):
            raise ValueError  # noqa: TRY004 - a reader raises nothing else
        raise ValueError(f"{value.value} is unknown{suggestion(str(value.value), numbers)}")

    return Scalar(f"one of {', '.join(numbers)}", read)


STRING = Scalar("a string", _read_string)
BOOL = Scalar("true or false", _read_boolean)
INT32 = _integer(-(2**31), 2**31 - 1)
INT64 = _integer(-(2**63), 2**63 - 1)
UINT32 = _integer(0, 2**32 - 1)
UINT64 = _integer(0, 2**64 - 1)
OPAQUE = None


def one(type_: Scalar | Schema | None) -> FieldType:
    """A field that is there once at most."""
    return FieldType(type_)


def many(type_: Scalar | Schema | None) -> FieldType:
    """A repeated field."""
    return FieldType(type_, repeated=True)


def mapping(key: Scalar, value: Scalar | Schema) -> FieldType:
    """A map: text format has it as repeated messages of key and value."""
    return FieldType(Schema({"key": one(key), "value": one(value)}), repeated=True)
