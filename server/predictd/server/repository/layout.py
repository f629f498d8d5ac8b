"""What the names in a folder mean. Pure: a listing goes in, names come out.

A folder is read in one of three roles:

    repository   <name>.onnx, its <name>.toml, and <name>/ for a model
    model        model.toml, and either model.onnx or <version>/ folders
    version      model.onnx, or one other .onnx file, or whatever an engine of the user's own loads
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from predictd.server.config.units import LARGEST

MODEL_TOML = "model.toml"
MODEL_ONNX = "model.onnx"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,255}")
_NUMBER = re.compile(r"[0-9]{1,19}")
_VERSION_LIKE = re.compile(r"[vV]?[0-9][0-9._]*")
# Folders that file systems and Python leave behind.
_DEBRIS = frozenset({"lost+found", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Listing:
    """The visible entries of a folder, sorted; symbolic links count as what they point to."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def onnx(self) -> tuple[str, ...]:
        """The .onnx files."""
        return tuple(name for name in self.files if name.endswith(".onnx"))


class LayoutError(ValueError):
    """The folder does not say which model it holds. The message is one line with the remedy."""


def visible(name: str) -> bool:
    """Not hidden, nor left behind by a file system or by Python."""
    return not name.startswith(".") and name not in _DEBRIS


def check_name(name: str) -> None:
    """Raise LayoutError unless clients can call a model this."""
    if not _NAME.fullmatch(name):
        raise LayoutError(
            f"{name!r} cannot be a model's name: rename it with letters, digits, '_', '.', '-', "
            "at most 256, neither '.' nor '-' first"
        )


def looks_like_version(name: str) -> bool:
    """The name is a number, or somebody seems to have meant one, as with "v2" or "1.0"."""
    return _VERSION_LIKE.fullmatch(name) is not None


def version_of(name: str) -> int:
    """The version that a folder's name means.

    Raises:
        LayoutError: The name is no version.
    """
    # One that begins with 0 could stand beside its twin without.
    if not _NUMBER.fullmatch(name) or name.startswith("0"):
        raise LayoutError("not a version: version folders are called by a number from 1; rename it")
    if int(name) > LARGEST:
        raise LayoutError(f"not a version: the largest is {LARGEST}; rename it")
    return int(name)


def is_plain_model(listing: Listing) -> bool:
    """A folder without versions is one model and not a repository of them.

    A single model.onnx, as exporters write it, takes the folder's name; with other models beside it, it is
    one among them.
    """
    if listing.folders:
        return False
    return listing.onnx == (MODEL_ONNX,) or (MODEL_TOML in listing.files and len(listing.onnx) <= 1)


def model_entry(listing: Listing, *, custom_engine: bool) -> str | None:
    """What to load from a version's folder, or from a model's folder without versions.

    Args:
        listing: The folder.
        custom_engine: An engine of the user's own, which may load anything.

    Returns:
        A file's name; None for the folder itself.

    Raises:
        LayoutError: Nothing here can be loaded, or several things can.
    """
    if MODEL_ONNX in listing.files:
        return MODEL_ONNX
    if custom_engine:
        named = [name for name in listing.files if name.startswith("model.") and name != MODEL_TOML]
        return named[0] if len(named) == 1 else None
    if len(listing.onnx) == 1:
        return listing.onnx[0]
    if listing.onnx:
        raise LayoutError(f"several .onnx files: name the one to serve {MODEL_ONNX}")
    raise LayoutError(f"no model: put {MODEL_ONNX} here")


def no_versions_remedy(listing: Listing) -> str:
    """What to say about a model's folder in which there is no model."""
    if listing.onnx:
        return f"no {MODEL_ONNX} and no version folder: rename {listing.onnx[0]} to {MODEL_ONNX}"
    if listing.folders:
        found = listing.folders[0]
        return f"no model: version folders are called by a number, such as 1/{MODEL_ONNX}; found {found}/"
    return f"no model: put {MODEL_ONNX} here, or 1/{MODEL_ONNX}"
