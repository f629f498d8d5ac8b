"""What the names in a folder mean. Pure: a listing goes in, names come out.

A folder is read in one of three roles:

    repository   <name>.onnx, its <name>.toml, and <name>/ for a model
    model        model.toml or config.pbtxt, and either model.onnx or <version>/ folders
    version      the file that the model's configuration names; or else model.onnx, which may be a folder
                 with model.onnx and its external data; or one other .onnx file; or whatever an engine of
                 the user's own loads
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from predictd.server.config.units import LARGEST

MODEL_TOML = "model.toml"
CONFIG_PBTXT = "config.pbtxt"
MODEL_ONNX = "model.onnx"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,255}")
_NUMBER = re.compile(r"[0-9]{1,19}")
_VERSION_LIKE = re.compile(r"[vV]?[0-9][0-9._]*")
# What TensorFlow calls the file of a model that predictd has no engine for.
_SAVED_MODEL = "saved_model.pb"
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
    """The folder does not say which model it holds.

    Attributes:
        what: What is wrong.
        remedy: What to do about it; empty where there is nothing to add.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}: {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


def visible(name: str) -> bool:
    """Not hidden, nor left behind by a file system or by Python."""
    return not name.startswith(".") and name not in _DEBRIS


def check_name(name: str) -> None:
    """Raise LayoutError unless clients can call a model this."""
    if not _NAME.fullmatch(name):
        raise LayoutError(
            f"{name!r} cannot be a model's name",
            "rename it with letters, digits, '_', '.', '-', at most 256, neither '.' nor '-' first",
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
        raise LayoutError("not a version", "version folders are called by a number from 1; rename it")
    if int(name) > LARGEST:
        raise LayoutError("not a version", f"the largest is {LARGEST}; rename it")
    return int(name)


def is_plain_model(listing: Listing) -> bool:
    """A folder without versions is one model and not a repository of them.

    A single model.onnx, as exporters write it, takes the folder's name; with other models beside it, it is
    one among them.
    """
    if listing.folders:
        return False
    return listing.onnx == (MODEL_ONNX,) or (configured(listing) and len(listing.onnx) <= 1)


def configured(listing: Listing) -> bool:
    """The folder says itself that it is a model's."""
    return MODEL_TOML in listing.files or CONFIG_PBTXT in listing.files


def model_entry(listing: Listing, *, custom_engine: bool, named: str | None = None) -> str | None:
    """What to load from a version's folder, or from a model's folder without versions.

    Args:
        listing: The folder.
        custom_engine: An engine of the user's own, which may load anything.
        named: The file that the model's configuration names.

    Returns:
        A file's path in the folder; None for the folder itself.

    Raises:
        LayoutError: Nothing here can be loaded, or several things can.
    """
    if named is not None:
        return _named_entry(listing, named)
    if MODEL_ONNX in listing.files:
        return MODEL_ONNX
    if MODEL_ONNX in listing.folders:
        return f"{MODEL_ONNX}/{MODEL_ONNX}"
    if custom_engine:
        candidates = [name for name in listing.files if name.startswith("model.") and name != MODEL_TOML]
        return candidates[0] if len(candidates) == 1 else None
    if len(listing.onnx) == 1:
        return listing.onnx[0]
    if listing.onnx:
        raise LayoutError("several .onnx files", f"name the one to serve {MODEL_ONNX}")
    if _SAVED_MODEL in listing.files:
        raise LayoutError("a TensorFlow SavedModel", f"convert it to {MODEL_ONNX}, for example with tf2onnx")
    raise LayoutError("no model", f"put {MODEL_ONNX} here")


def _named_entry(listing: Listing, named: str) -> str:
    if named in listing.folders and named.endswith(".onnx"):
        return f"{named}/{MODEL_ONNX}"
    if "/" not in named and named not in (*listing.folders, *listing.files):
        raise LayoutError(f"no {named}", "the model's configuration names it: put it here, or name another")
    return named


def no_versions(listing: Listing) -> LayoutError:
    """What to say about a model's folder in which there is no model."""
    if listing.onnx:
        return LayoutError(
            f"no {MODEL_ONNX} and no version folder", f"rename {listing.onnx[0]} to {MODEL_ONNX}"
        )
    if listing.folders:
        remedy = (
            f"version folders are called by a number, such as 1/{MODEL_ONNX}; found {listing.folders[0]}/"
        )
        return LayoutError("no model", remedy)
    return LayoutError("no model", f"put {MODEL_ONNX} here, or 1/{MODEL_ONNX}")
