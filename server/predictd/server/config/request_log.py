"""Which requests have a line in the log."""

from __future__ import annotations

import re
from dataclasses import dataclass

OFF = "off"
PER_SECOND_MAX = 1000

_NUMBER = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(/s)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLogRule:
    """A share of all requests, or so many a second; neither is none.

    Attributes:
        fraction: Of all requests, from 0 to 1.
        per_second: At most.
    """

    fraction: float = 0.0
    per_second: float = 0.0

    @property
    def off(self) -> bool:
        """No request has a line."""
        return not (self.fraction or self.per_second)

    def share(self, parts: int) -> RequestLogRule:
        """The rule for one of several processes that together keep this one."""
        return RequestLogRule(fraction=self.fraction, per_second=self.per_second / parts)

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        if self.off:
            return OFF
        return f"{self.per_second:g}/s" if self.per_second else f"{self.fraction:g}"


def parse_request_log(value: object) -> RequestLogRule:
    """Read "off", a fraction such as 0.01, or a rate such as "5/s". Raises ValueError."""
    text = str(value)
    if text == OFF:
        return RequestLogRule()
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is neither a fraction such as 0.01 nor a rate such as 5/s nor "off"')
    number = float(match[1])
    if match[2]:
        if not 0 < number <= PER_SECOND_MAX:
            raise ValueError(f"{text} is not between 0/s and {PER_SECOND_MAX}/s")
        return RequestLogRule(per_second=number)
    if number > 1:
        raise ValueError(f"{text} is more than 1, which logs every request; a rate is written {text}/s")
    return RequestLogRule(fraction=number)
