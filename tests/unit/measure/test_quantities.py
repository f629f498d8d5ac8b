"""Numbers, times and sizes as people read them."""

from __future__ import annotations

from predictd.server.measure.quantities import count, number, seconds, size


def test_units() -> None:
    assert [seconds(value) for value in (0, 1e-6, 0.5e-3, 0.9996, 0.25, 90, 3600)] == [
        *("0 µs", "1 µs", "500 µs", "1000 ms", "250 ms", "90 s", "3600 s")
    ]
    assert [size(value) for value in (0, 1023, 1024, 5 << 20, 3 << 30, 1 << 44)] == [
        *("0 bytes", "1023 bytes", "1 KiB", "5 MiB", "3 GiB", "16384 GiB")
    ]


def test_a_large_number_has_no_exponent() -> None:
    assert [number(value, 3) for value in (0.0001234, 9.9996, 998.6, 999.4, 999.6, 123456.7)] == [
        *("0.000123", "10", "999", "999", "1000", "123457")
    ]


def test_nouns() -> None:
    assert [count(amount, "row", "rows") for amount in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
