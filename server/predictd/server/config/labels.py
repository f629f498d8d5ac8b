"""Labels files: the names of the classes that an output scores."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

# Every class of ImageNet-21k, with all its synonyms, takes 1 MiB.
LABELS_LIMIT_BYTES = 4 * 1024 * 1024


class LabelsError(Exception):
    """A file is there and cannot be used as labels.

    Attributes:
        what: What is wrong.
        remedy: What to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Labels:
    """The names of classes.

    Attributes:
        names: By the index of the class; empty for a class without a name.
        digest: Equal for equal files.
    """

    names: tuple[str, ...]
    digest: str


def read_labels(path: Path) -> Labels:
    """Read a labels file: one name a line.

    Raises:
        OSError: It cannot be read.
        LabelsError: It holds no labels.
    """
    with path.open("rb") as file:
        data = file.read(LABELS_LIMIT_BYTES + 1)
    if len(data) > LABELS_LIMIT_BYTES:
        raise LabelsError(f"more than {LABELS_LIMIT_BYTES >> 20} MiB", "write one name a line and no more")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise LabelsError("not UTF-8 text", "save it as UTF-8") from None
    if not text.strip():
        raise LabelsError("no label in it", "write one a line")
    # Not splitlines(), which also splits at characters that a name may have.
    names = tuple(line.strip("\r") for line in text.removesuffix("\n").split("\n"))
    return Labels(names, hashlib.sha256(data).hexdigest())
