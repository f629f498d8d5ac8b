"""Text from elsewhere, made safe to stand on a line of a log or a page."""

from __future__ import annotations

import re

# Control characters, line and paragraph separators, marks that turn the direction of text, and lone
# surrogates: whatever can end a line, drive a terminal, or show something else than it says.
_UNSAFE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff\\ufeff]"
)


def escape_controls(text: str) -> str:
    """The text with each unsafe character written as in a Python string, so that it is one harmless line."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
