"""What one option is, and how a field of a dataclass declares it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from predictd.server.config.units import Kind

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """One option as it is declared.

    Attributes:
        field: Attribute of Settings.
        key: Key of predictd.toml; flag and variable follow from it.
        kind: How values are read and written.
        help: One sentence without the default.
        default: Value when nobody sets it.
        in_file: May stand in predictd.toml.
    """

    field: str
    key: str
    kind: Kind[Any]
    help: str
    default: Any
    in_file: bool

    @property
    def flag(self) -> str:
        """The command line's spelling."""
        return "PATH" if self.field == "paths" else "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"PREDICTD_{self.key.upper()}"

    @property
    def default_text(self) -> str:
        """The default as one would write it."""
        return self.kind.write(self.default)


def option(default: T, kind: Kind[T], help_: str, *, key: str = "", in_file: bool = True) -> T:
    """A field that is an option.

    Args:
        default: Value when nobody sets it.
        kind: How values are read and written.
        help_: One sentence without the default.
        key: Key of predictd.toml where that is not the field's name.
        in_file: May stand in predictd.toml.
    """
    return field(default=default, metadata={"kind": kind, "help": help_, "key": key, "in_file": in_file})


def declared_options(declaration: type) -> tuple[Option, ...]:
    """The options among a dataclass's fields, in the order of their declaration."""
    return tuple(
        Option(
            field=entry.name,
            key=entry.metadata["key"] or entry.name,
            kind=entry.metadata["kind"],
            help=entry.metadata["help"],
            default=entry.default,
            in_file=entry.metadata["in_file"],
        )
        for entry in fields(declaration)
        if entry.metadata
    )
