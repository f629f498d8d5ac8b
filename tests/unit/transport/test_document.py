"""docs/transport.md is the ABI: every table of offsets and numbers in it is what the code does."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from predictd.engines.api import DType
from predictd.server.supervise import frontends, pool
from predictd.server.transport import allocator, blocks, claims, records
from predictd.server.transport.claims import ClaimState
from predictd.server.transport.records import Status, TicketFlag

PAGE = (Path(__file__).parents[3] / "docs" / "transport.md").read_text(encoding="utf-8")
TYPES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q"}
CODES = {code: name for name, code in TYPES.items()}

Row = tuple[str, ...]
Field = tuple[int, str, str]


def tables(heading: str) -> list[list[Row]]:
    """The tables below a heading, up to the next heading; without their headers."""
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading '{heading}'"
    result: list[list[Row]] = []
    for block in re.findall(r"(?:^\|.*\n)+", found[2], re.MULTILINE):
        lines = [
            tuple(cell.strip().strip("`") for cell in line.strip("|").split("|"))
            for line in block.split("\n")
        ]
        result.append([line for line in lines[2:] if line != ("",)])
    return result


def table(heading: str) -> list[Row]:
    """The one table below a heading."""
    (found,) = tables(heading)
    return found


def fields(heading: str) -> list[Field]:
    """Offset, type and name of every field of a layout."""
    return [(int(offset), kind, name) for offset, kind, name, _ in table(heading)]


def of_dtype(dtype: np.dtype[Any]) -> list[Field]:
    """The fields of a NumPy record that say something."""
    assert dtype.fields is not None
    assert dtype.names is not None
    return [
        (
            dtype.fields[name][1],
            CODES[np.dtype(dtype.fields[name][0]).char.replace("L", "Q").replace("l", "q")],
            name,
        )
        for name in dtype.names
        if not name.startswith("reserved")
    ]


def of_struct(layout: struct.Struct) -> list[tuple[int, str]]:
    """Offset and type of every field of a packed struct."""
    found, at = [], 0
    for count, code in re.findall(r"(\d*)([A-Za-z])", layout.format):
        for _ in range(int(count or 1)):
            if code != "x":
                found.append((at, CODES[code]))
            at += struct.calcsize("<" + code)
    assert at == layout.size
    return found


# Records ------------------------------------------------------------------------------------------------------

RECORDS = {
    "Ticket": (records.TICKET, records.TICKET_STRUCT),
    "Completion": (records.COMPLETION, records.COMPLETION_STRUCT),
    "Release": (records.RELEASE, records.RELEASE_STRUCT),
}


@pytest.mark.parametrize("heading", RECORDS)
def test_the_records_are_laid_out_as_documented(heading: str) -> None:
    dtype, layout = RECORDS[heading]
    assert fields(heading) == of_dtype(dtype)
    assert [field[:2] for field in fields(heading)] == of_struct(struct.Struct(layout))


def test_the_drawings_name_the_words_of_the_records() -> None:
    for heading in ("Ticket", "Completion"):
        drawing = re.search(rf"^### {heading}\n.*?```\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
        assert drawing is not None
        words = re.findall(r"^ +(\d+)  (\w+)", drawing[1], re.MULTILINE)
        assert [int(offset) for offset, _ in words] == list(range(0, 64, 8))
        documented = {offset: name for offset, _, name in fields(heading)}
        for offset, start in words:
            assert documented[int(offset)].startswith(start)


def test_the_example_is_the_ticket_that_it_describes() -> None:
    example = re.search(r"```hex\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    ticket = struct.pack(
        *(records.TICKET_STRUCT, 3, 0, 7, 2, 0x1122334455667788, 184, 2, 0, 0),
        *(5, 41, 9, 10**9, records.NO_DEADLINE_NS),
    )
    assert bytes.fromhex(example[1]) == ticket


# Blocks and claims --------------------------------------------------------------------------------------------

# The response header has a word between error_bytes and bytes that says nothing.
STRUCTS = {
    "Request header": (blocks.REQUEST_HEADER, set()),
    "Input descriptor": (blocks.INPUT_DESCRIPTOR, set()),
    "Response header": (blocks.RESPONSE_HEADER, {20}),
    "Output descriptor": (blocks.OUTPUT_DESCRIPTOR, set()),
    "Claim table header": (struct.Struct(claims._HEADER.format + claims._PULSE.format.lstrip("<")), {4}),
}


@pytest.mark.parametrize("heading", STRUCTS)
def test_the_headers_and_descriptors_are_laid_out_as_documented(heading: str) -> None:
    layout, reserved = STRUCTS[heading]
    expected = [field for field in of_struct(layout) if field[0] not in reserved]
    assert [field[:2] for field in fields(heading)] == expected


@pytest.mark.parametrize(
    ("heading", "size"),
    [("Request header", 64), ("Response header", 64), ("Input descriptor", 24), ("Output descriptor", 40)],
)
def test_headers_and_descriptors_have_the_size_that_the_drawings_say(heading: str, size: int) -> None:
    assert STRUCTS[heading][0].size == size
    kind = "header" if "header" in heading else "descriptor"
    side = "Request block" if heading in ("Request header", "Input descriptor") else "Response block"
    drawing = re.search(rf"^## {side}\n.*?```\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert drawing is not None
    assert re.search(rf"{kind}.*, {size} bytes", drawing[1])


def test_the_fields_that_are_read_one_by_one_lie_where_documented() -> None:
    request = {name: offset for offset, _, name in fields("Request header")}
    assert (request["cancelled"], request["generation"]) == (
        blocks.CANCELLED_OFFSET,
        blocks.GENERATION_OFFSET,
    )
    output = {name: offset for offset, _, name in fields("Output descriptor")}
    assert output["rank"] == blocks._RANK_OFFSET


def test_a_request_stands_in_its_block_as_drawn() -> None:
    layout = blocks.lay_out_request(7, 2, [(DType.FP32, (2, 3), 24), (DType.INT64, (2,), 16)])
    found = {
        name: value
        for (_, _, name), value in zip(
            fields("Request header"), blocks.REQUEST_HEADER.unpack_from(layout.head), strict=True
        )
    }
    assert found == {
        "magic": blocks.REQUEST_MAGIC,
        "generation": 0,
        "lane": 7,
        "cancelled": 0,
        "inputs": 2,
        "rows": 2,
        "bytes": layout.size_bytes,
    }
    assert blocks.INPUT_DESCRIPTOR.unpack_from(layout.head, 64) == (192, 24, 12, 2, 1)
    assert struct.unpack_from("<2q", layout.head, 88) == (2, 3)
    assert blocks.INPUT_DESCRIPTOR.unpack_from(layout.head, 104) == (256, 16, 9, 1, 1)


# Numbers ------------------------------------------------------------------------------------------------------


def constant(name: str) -> object:
    modules: list[ModuleType] = [records, allocator, blocks, claims, pool, frontends]
    found = {getattr(module, name) for module in modules if hasattr(module, name)}
    assert len(found) == 1, f"{name} is {found or 'unknown'}"
    return found.pop()


@pytest.mark.parametrize(("name", "value"), [row[:2] for row in table("Constants")])
def test_the_constants_are_as_documented(name: str, value: str) -> None:
    assert constant(name) == int(value, 0)


@pytest.mark.parametrize(
    ("heading", "enumeration"),
    [("Status", Status), ("Ticket flags", TicketFlag), ("Claim state", ClaimState)],
)
def test_the_numbers_of_the_enumerations_are_as_documented(heading: str, enumeration: Any) -> None:
    documented = {row[1]: int(row[0]) for row in tables(heading)[0]}
    assert documented == {member.name: member.value for member in enumeration}


def test_the_element_types_are_as_documented() -> None:
    documented = [(int(value), name, int(size)) for value, name, size in table("Element types")]
    assert documented == [(dtype.value, dtype.name, dtype.itemsize) for dtype in DType]


def test_the_examples_of_size_classes_are_right() -> None:
    for asked, block in tables("Memory")[0]:
        assert allocator.size_class(int(asked)) == int(block)


def test_the_magic_numbers_spell_what_they_say() -> None:
    assert blocks.REQUEST_MAGIC.to_bytes(4, "little") == b"PRQ1"
    assert blocks.RESPONSE_MAGIC.to_bytes(4, "little") == b"PRP1"
