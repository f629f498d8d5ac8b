"""Texts as clients may see them: without places on this machine and names inside of a model. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

# From the root on, two parts at least: "/" and "1/2" are no paths, and "a/b" may be anything's name.
_PATH = re.compile(r"(?<![\w./\-])(?:/[^\s/'\"`,;:()\[\]{}<>|]+)+/?")
_SOURCE = re.compile(r"\b[\w-]+\.(?:cc|cpp|cxx|cu|h|hpp|inc|py|pyx)(?::\d+|, line \d+)")
_NODE = re.compile(r"\b(\w+) node(?:\.? Name:)? ?'[^']*'")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


def without_paths(text: str, folders: Iterable[str] = ()) -> str:
    """A text with paths cut to what is below the folders, and those that lie elsewhere to their last part.

    Args:
        text: For a client.
        folders: That clients know the content of, such as repositories.
    """
    # The longest first: one may lie in another.
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(folder.rstrip("/") + "/", "") if folder != "/" else text
    return _PATH.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], text)


def of_engine(text: str) -> str:
    """What a client can make use of in the reason why an engine refused an input: neither nodes, paths nor sources."""
    text = _NODE.sub(r"\1", text)
    return without_paths(_ADDRESS.sub("…", _SOURCE.sub("…", text)))
