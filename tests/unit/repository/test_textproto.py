from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, struct_pb2, text_format
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.config.model_config import ModelConfigError
from predictd.server.repository.textproto import MOST_LEVELS, Field, Message, Number, Text, Word, parse

PLACE = Path("config.pbtxt")


def read(text: str | bytes) -> Message:
    return parse(text.encode() if isinstance(text, str) else text, PLACE)


def only(text: str) -> Field:
    (field,) = read(text).fields
    return field


def refused(text: str | bytes) -> tuple[int | None, str]:
    with pytest.raises(ModelConfigError) as caught:
        read(text)
    assert caught.value.place == str(PLACE)
    assert "\n" not in str(caught.value)
    return caught.value.line, caught.value.message


@pytest.mark.parametrize("text", ["", " \t\r\n", "# a comment", "# one\n\n# two\n"])
def test_a_file_may_say_nothing(text: str) -> None:
    assert read(text) == Message(1, ())


def test_fields_keep_their_order_their_lines_and_how_often_they_are_there() -> None:
    text = 'a: 1\nb {\n  c: "x"  # why\n}\n\na: 2, a: 3; d <>\n'
    assert read(text).fields == (
        Field(1, "a", (Number(1, 1),)),
        Field(2, "b", (Message(2, (Field(3, "c", (Text(3, b"x"),)),)),)),
        Field(6, "a", (Number(6, 2),)),
        Field(6, "a", (Number(6, 3),)),
        Field(6, "d", (Message(6, ()),)),
    )


def test_lists_hold_scalars_or_messages() -> None:
    assert only("a: [1,\n2]") == Field(1, "a", (Number(1, 1), Number(2, 2)), is_list=True)
    assert only("a []") == Field(1, "a", (), is_list=True)
    messages = (Message(1, ()), Message(1, (Field(1, "b", (Word(1, "ON"),)),)))
    assert only("a [{}, <b: ON>]") == only("a: [{}, <b: ON>]") == Field(1, "a", messages, is_list=True)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0", 0),
        ("-7", -7),
        ("- 7", -7),
        ("0x1F", 31),
        ("-0xff", -255),
        ("017", 15),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("1e3", 1000.0),
        ("2f", 2.0),
        ("1.5E-1F", 0.15),
        ("18446744073709551616", 2**64),
    ],
)
def test_numbers(written: str, value: float) -> None:
    (number,) = only(f"a: {written}").values
    assert number == Number(1, value)
    assert type(number.value) is type(value)


@pytest.mark.parametrize("word", ["TYPE_FP32", "true", "inf", "-inf", "nan"])
def test_words(word: str) -> None:
    assert only(f"a: {word}").values == (Word(1, word),)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"plain"', b"plain"),
        ("'it is \"so\"'", b'it is "so"'),
        (r'"\a\b\f\n\r\t\v\\\'\"\?"', b"\a\b\f\n\r\t\v\\'\"?"),
        (r'"\0\12\377\x41\xZ"'.replace(r"\xZ", ""), b"\x00\n\xffA"),
        (r'"\u00e9\U0001F600"', "é😀".encode()),
        ('"é😀"', "é😀".encode()),
        ('"a" \'b\'\n  "c"', b"abc"),
        (r'"\\n"', b"\\n"),
        ('"# no comment"', b"# no comment"),
    ],
)
def test_strings_with_escapes_and_several_pieces(written: str, value: bytes) -> None:
    assert only(f"a: {written}").values == (Text(1, value),)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a", 1, "expected ':' or '{' after a, found the end of the file"),
        ("a: 1\nb 2", 2, "expected ':' or '{' after b, found '2'"),
        ("a:\n", 2, "expected a value, found the end of the file"),
        ("a: -\n}", 2, "expected a number, found '}'"),
        ("a {\n b: 1\n", 3, "'{' of line 1 is not closed"),
        ("a {\n b: 1\n>", 3, "expected a field's name or '}', found '>'"),
        ("a: 1\n}", 2, "expected a field's name, found '}'"),
        ("a: [1 2]", 1, "expected ',' or ']', found '2'"),
        ("a: [1,]", 1, "expected a value, found ']'"),
        ("a [1]", 1, "expected '{', as a list of other values has ':' before it, found '1'"),
        ("\n\na: 'x\n'", 3, "a string that begins with ' is not closed on its line"),
        ("a: 1x", 1, "not a number"),
        ("a: 08", 1, "08 begins with 0 and is not octal"),
        ("a: " + "9" * 101, 1, "a number with too many digits"),
        (r'a: "\q"', 1, r"unknown escape '\\q' in a string"),
        (r'a: "\777"', 1, r"unknown escape '\\777' in a string"),
        (r'a: "\ud800"', 1, r"unknown escape '\\ud800' in a string"),
        (r'a: "\UFFFFFFFF"', 1, r"unknown escape '\\UFFFFFFFF' in a string"),
        ("a: $", 1, "unexpected character '$'"),
        ("[a.b]: 1", 1, "expected a field's name, found '['"),
        ("a: 1,, b: 2", 1, "expected a field's name, found ','"),
        ('"a": 1', 1, "expected a field's name, found '\"a\"'"),
        (b"a: 1\n# \xff", 2, "not UTF-8 text"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_own(text: str | bytes, line: int, message: str) -> None:
    assert refused(text) == (line, message)


def test_a_file_of_any_depth_and_size_is_refused_in_words() -> None:
    read("a {" * MOST_LEVELS + "}" * MOST_LEVELS)
    depth = MOST_LEVELS + 1
    assert refused("a {" * depth + "}" * depth)[1] == "more than 100 messages in each other"
    assert refused("a: [" + "{a:[" * 5000)[1] == "more than 100 messages in each other"
    assert "larger than" in refused(b" " * (4 * 2**20 + 1))[1]


def line_of_mistake(data: bytes) -> int | None:
    try:
        parse(data, PLACE)
    except ModelConfigError as error:
        return error.line
    return 1


@given(st.binary())
def test_no_bytes_do_more_than_be_refused_with_their_line(data: bytes) -> None:
    line = line_of_mistake(data)
    assert line is not None
    assert 1 <= line <= data.count(b"\n") + 1


PIECES = (
    "a",
    "b:",
    ":",
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    ",",
    ";",
    "-",
    "1",
    "0x",
    "1.5",
    '"x"',
    "'",
    "\\",
    "#",
    "\n",
    "nan ",
)


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_no_mixture_of_the_language_s_own_pieces_does_either(text: str) -> None:
    line = line_of_mistake(text.encode())
    assert line is not None
    assert 1 <= line <= text.count("\n") + 1


def as_protobuf_has_it(message: Message) -> struct_pb2.ListValue:
    """The fields of a ListValue message that was parsed, for comparison."""
    result = struct_pb2.ListValue()
    for field in message.fields:
        assert field.name == "values"
        for value in field.values:
            assert isinstance(value, Message)
            (inner,) = value.fields
            (scalar,) = inner.values
            added = result.values.add()
            if isinstance(scalar, Text):
                added.string_value = scalar.value.decode()
            elif isinstance(scalar, Number):
                added.number_value = scalar.value
            elif isinstance(scalar, Word) and inner.name == "bool_value":
                added.bool_value = scalar.value == "true"
            elif isinstance(scalar, Word):
                added.number_value = float(scalar.value)
    return result


@given(
    st.lists(st.text(st.characters(codec="utf-8")) | st.floats(allow_nan=False) | st.booleans()),
    st.booleans(),
)
def test_whatever_protobuf_writes_is_read_back(values: list[str | float | bool], as_utf8: bool) -> None:
    message = struct_pb2.ListValue()
    for value in values:
        added = message.values.add()
        if isinstance(value, str):
            added.string_value = value
        elif isinstance(value, bool):
            added.bool_value = value
        else:
            added.number_value = value
    for compact in (True, False):
        written = text_format.MessageToString(message, as_utf8=as_utf8, as_one_line=compact)
        assert as_protobuf_has_it(read(written)) == message


def test_a_large_message_of_protobuf_s_own_is_read() -> None:
    file = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(file)
    for written in (
        text_format.MessageToString(file),
        text_format.MessageToString(file, use_short_repeated_primitives=True),
        text_format.MessageToString(file, pointy_brackets=True),
    ):
        assert [field.name for field in read(written).fields].count("message_type") == 3
