"""Which requests are logged, as it is written."""

from __future__ import annotations

import pytest

from predictd.server.config.request_log import RequestLogRule, parse_request_log


@pytest.mark.parametrize(
    ("value", "rule", "text"),
    [
        ("off", RequestLogRule(), "off"),
        ("0", RequestLogRule(), "off"),
        (0.01, RequestLogRule(fraction=0.01), "0.01"),
        (1, RequestLogRule(fraction=1.0), "1"),
        (".5", RequestLogRule(fraction=0.5), "0.5"),
        ("5/s", RequestLogRule(per_second=5.0), "5/s"),
        ("0.2/s", RequestLogRule(per_second=0.2), "0.2/s"),
    ],
)
def test_fractions_and_rates(value: object, rule: RequestLogRule, text: str) -> None:
    assert parse_request_log(value) == rule
    assert str(rule) == text
    assert parse_request_log(text) == rule


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is neither a fraction"),
        ("1%", "is neither a fraction"),
        ("-0.1", "is neither a fraction"),
        ("nan", "is neither a fraction"),
        ("2", "2 is more than 1, which logs every request; a rate is written 2/s"),
        ("0/s", "is not between 0/s and 1000/s"),
        ("1001/s", "is not between 0/s and 1000/s"),
    ],
)
def test_anything_else_is_refused(value: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_request_log(value)


def test_several_processes_share_a_rate_and_not_a_fraction() -> None:
    assert RequestLogRule(per_second=6.0).share(3) == RequestLogRule(per_second=2.0)
    assert RequestLogRule(fraction=0.5).share(3) == RequestLogRule(fraction=0.5)
