"""What is said of a file that is no model, whatever kind it should be."""

from __future__ import annotations


class ModelFileError(Exception):
    """The file is no model of its kind, or not all of it is there.

    Attributes:
        what: What it is instead.
        remedy: What to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what
        self.remedy = remedy
