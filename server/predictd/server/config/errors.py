"""What is wrong with a configuration. Apart from what reads one, which the daemon's children need not load."""

from __future__ import annotations


class ConfigError(Exception):
    """The configuration is wrong.

    Attributes:
        place: A flag, an environment variable or a file.
        message: What is wrong, in one line.
    """

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.place = place
        self.message = message
