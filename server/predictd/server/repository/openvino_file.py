"""Whether a file can be an OpenVINO model with its weights beside it, told without loading it.

Such a model is an XML file that ends with the end of its root, and a file of weights of which it names the places.
So a copy that was interrupted shows, of the one as of the other.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from predictd.engines.traits import COMPANIONS
from predictd.server.repository.file_error import ModelFileError

_ROOT = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*)*<net\s[^>]*\bversion=", re.DOTALL
)
_CONSTANT = re.compile(rb"<data\b[^>]*?\boffset=\"(\d{1,18})\"[^>]*?\bsize=\"(\d{1,18})\"")
_END = b"</net>"
_AGAIN = "copy the model again"
_REMEMBERED = 1024


def check_openvino_file(path: Path) -> None:
    """Raise ModelFileError unless this can be an OpenVINO model, and OSError if it cannot be read."""
    status = path.stat()
    needed = _weights_bytes(path, (status.st_ino, status.st_size, status.st_mtime_ns))
    weights = path.with_suffix(COMPANIONS[path.suffix])
    if needed and not weights.exists():
        raise ModelFileError(f"no {weights.name} beside it", "an OpenVINO model is two files; copy both")
    size = weights.stat().st_size if needed else 0
    if size < needed:
        raise ModelFileError(f"{weights.name} is cut short: {size} of {needed} bytes are there", _AGAIN)


# A look a second at files of some megabytes, which seldom change.
@lru_cache(maxsize=_REMEMBERED)
def _weights_bytes(path: Path, _identity: tuple[int, int, int]) -> int:
    """How much of the weights the model names."""
    text = path.read_bytes()
    if not text:
        raise ModelFileError("an empty file", _AGAIN)
    if not _ROOT.match(text):
        raise ModelFileError(
            "not an OpenVINO model", "convert the model with ovc, or name the engine that loads this"
        )
    if not text.rstrip().endswith(_END):
        raise ModelFileError(f"cut short after {len(text)} bytes", _AGAIN)
    return max((int(found[1]) + int(found[2]) for found in _CONSTANT.finditer(text)), default=0)
