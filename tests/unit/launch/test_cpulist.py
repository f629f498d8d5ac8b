import pytest

from predictd.server.launch.cpulist import CPUS_MAX, format_cpulist, parse_cpulist


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", ()),
        ("\n", ()),
        ("0\n", (0,)),
        ("0-2,5", (0, 1, 2, 5)),
        ("0,2-3", (0, 2, 3)),
        ("8,3-5,11", (3, 4, 5, 8, 11)),
        ("0-1,1-2", (0, 1, 2)),
        ("7-7", (7,)),
    ],
)
def test_reads_what_the_kernel_writes(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpulist(text) == cpus


@pytest.mark.parametrize(
    "text", ["a", "1,", ",1", "1-", "-1", "1--2", "1 2", "0x1", "1_0", "+1", "0-8:2/4", "\u0661"]
)
def test_garbage_is_refused_with_the_text_in_the_message(text: str) -> None:
    with pytest.raises(ValueError, match="not a CPU list") as caught:
        parse_cpulist(text)
    assert repr(text) in str(caught.value)


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match="'5-3' runs backwards"):
        parse_cpulist("0,5-3")


def test_a_huge_range_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ValueError, match="past the highest CPU id"):
        parse_cpulist("0-99999999999999")
    assert parse_cpulist(str(CPUS_MAX - 1)) == (CPUS_MAX - 1,)


@pytest.mark.parametrize(
    ("cpus", "text"),
    [([], ""), ([3], "3"), ([1, 0], "0-1"), ([5, 0, 1, 2, 2], "0-2,5"), ([3, 4, 5, 8, 11], "3-5,8,11")],
)
def test_writes_as_the_kernel_does(cpus: list[int], text: str) -> None:
    assert format_cpulist(cpus) == text


def test_a_negative_id_is_no_cpu() -> None:
    with pytest.raises(ValueError, match="-1 is not a CPU id"):
        format_cpulist([2, -1])
