"""A child's output, cut into lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.observe.output_lines import LINE_CHARACTERS_MAX, OutputLine, OutputLines


def texts(lines: list[OutputLine]) -> list[str]:
    return [line.text for line in lines]


def test_a_line_is_given_when_it_is_whole_and_the_rest_at_the_end() -> None:
    output = OutputLines()
    assert texts(output.feed(b"one\ntw", 0.0)) == ["one"]
    assert texts(output.feed(b"o\r\n\n  \nthree", 0.0)) == ["two"]
    assert output.end() == (["one", "two", "three"], 1)


def test_beyond_so_many_a_second_they_are_counted_and_the_last_ones_kept() -> None:
    output = OutputLines(lines_per_second=2, last_lines=3)
    flood = b"".join(b"%d\n" % number for number in range(10))
    assert texts(output.feed(flood, 5.0)) == ["0", "1"]
    assert output.feed(b"10\n", 5.9) == []
    assert output.feed(b"11\n", 6.0) == [OutputLine("11", left_out=9)]
    assert output.end() == (["9", "10", "11"], 0)


def test_a_line_without_an_end_takes_no_more_memory_than_a_long_one() -> None:
    output = OutputLines(lines_per_second=1000)
    lines = [line for _ in range(100) for line in output.feed(b"x" * 1000, 0.0)]
    assert 40 <= len(lines) <= 100
    assert max(len(line.text) for line in lines) == LINE_CHARACTERS_MAX


def test_what_is_no_text_is_shown_as_its_bytes() -> None:
    assert texts(OutputLines().feed(b"a\xffb\n", 0.0)) == ["a\\xffb"]


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"x", b"\n"))), st.integers(1, 5))
def test_every_line_is_given_or_counted_however_it_is_cut(pieces: list[bytes], each: int) -> None:
    output = OutputLines(lines_per_second=each, last_lines=1000)
    given_lines = [line for piece in pieces for line in output.feed(piece, 0.0)]
    last, left_out = output.end()
    told = sum(1 + line.left_out for line in given_lines)
    assert told + left_out == len(last)
    whole = [
        line for line in b"".join(pieces).split(b"\n") if line.decode(errors="backslashreplace").rstrip()
    ]
    assert len(last) == len(whole)
