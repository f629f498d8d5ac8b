"""What goes wrong with a user's files."""

from __future__ import annotations


class OptimizeError(Exception):
    """It cannot be done. One line that names the file and says what to do."""
