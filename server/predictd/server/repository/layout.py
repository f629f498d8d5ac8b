"""What the names in a folder mean. Pure: a listing goes in, names come out.

A folder is read in one of three roles:

    repository   <name>.onnx, its <name>.toml, and <name>/ for a model
    model        model.toml or config.pbtxt, and either model.onnx or <version>/ folders
    version      the file that the model's configuration names; or else model.onnx, which may be a folder
                 with model.onnx and its external data; or one other .onnx file; or whatever an engine of
                 the user's own loads

What is said of .onnx holds for the files of every built-in engine. Where there are several of one name, the engine
that the model's configuration names decides, and without one the order in `predictd.engines.traits`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from predictd.engines.traits import BUILT_IN, model_suffixes
from predictd.server.config.units import LARGEST

MODEL_TOML = "model.toml"
CONFIG_PBTXT = "config.pbtxt"
MODEL_ONNX = "model.onnx"
SUFFIXES = model_suffixes()

_MODEL = "model"

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
    def models(self) -> tuple[str, ...]:
        """The files that a built-in engine serves."""
        return tuple(name for name in self.files if name.endswith(SUFFIXES))

    @property
    def standard(self) -> tuple[str, ...]:
        """Those of them that are called model, as exporters call them."""
        return tuple(name for name in self.models if stem(name) == _MODEL)


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


def stem(name: str) -> str:
    """A model file's name without its suffix."""
    return name.rpartition(".")[0]


def is_plain_model(listing: Listing) -> bool:
    """A folder without versions is one model and not a repository of them.

    A single model.onnx, as exporters write it, takes the folder's name; with other models beside it, it is
    one among them.
    """
    if listing.folders:
        return False
    stems = {stem(name) for name in listing.models}
    return stems == {_MODEL} or (configured(listing) and len(stems) <= 1)


def configured(listing: Listing) -> bool:
    """The folder says itself that it is a model's."""
    return MODEL_TOML in listing.files or CONFIG_PBTXT in listing.files


def by_preference(names: Iterable[str], engine: str | None) -> list[str]:
    """Model files of one name, the one to serve first; without those that the engine does not serve."""
    suffixes = model_suffixes(engine)
    return sorted((name for name in names if name.endswith(suffixes)), key=lambda name: _rank(name, suffixes))


def _rank(name: str, suffixes: tuple[str, ...]) -> int:
    return next(rank for rank, suffix in enumerate(suffixes) if name.endswith(suffix))


def check_served(name: str, engine: str | None) -> None:
    """Raise LayoutError if a file is one of another built-in engine than the one that shall serve it."""
    if engine not in BUILT_IN or not name.endswith(SUFFIXES) or name.endswith(model_suffixes(engine)):
        return
    suffix = "." + name.rpartition(".")[2]
    raise LayoutError(
        f"engine {engine!r} does not serve {suffix} files", "name another engine, or leave it out"
    )


def model_entry(listing: Listing, *, engine: str | None = None, named: str | None = None) -> str | None:
    """What to load from a version's folder, or from a model's folder without versions.

    Args:
        listing: The folder.
        engine: As the model's configuration names it; one of the user's own may load anything.
        named: The file that the model's configuration names.

    Returns:
        A file's path in the folder; None for the folder itself.

    Raises:
        LayoutError: Nothing here can be loaded, or several things can.
    """
    if named is not None:
        return _named_entry(listing, named)
    custom = engine is not None and ":" in engine
    suffixes = (".onnx",) if custom else model_suffixes(engine)
    for suffix in suffixes:
        if _MODEL + suffix in listing.files:
            return _MODEL + suffix
        if _MODEL + suffix in listing.folders:
            return f"{_MODEL + suffix}/{_MODEL + suffix}"
    if custom:
        candidates = [name for name in listing.files if name.startswith(f"{_MODEL}.") and name != MODEL_TOML]
        return candidates[0] if len(candidates) == 1 else None
    for suffix in suffixes:
        found = [name for name in listing.files if name.endswith(suffix)]
        if len(found) == 1:
            return found[0]
        if found:
            raise LayoutError(f"several {suffix} files", f"name the one to serve {_MODEL + suffix}")
    if _SAVED_MODEL in listing.files:
        raise LayoutError("a TensorFlow SavedModel", f"convert it to {MODEL_ONNX}, for example with tf2onnx")
    raise LayoutError("no model", f"put {_MODEL + suffixes[0]} here")


def _named_entry(listing: Listing, named: str) -> str:
    if named in listing.folders and named.endswith(".onnx"):
        return f"{named}/{MODEL_ONNX}"
    if "/" not in named and named not in (*listing.folders, *listing.files):
        raise LayoutError(f"no {named}", "the model's configuration names it: put it here, or name another")
    return named


def no_versions(listing: Listing) -> LayoutError:
    """What to say about a model's folder in which there is no model."""
    if listing.models:
        found = by_preference(listing.models, None)[0]
        standard = _MODEL + found.removeprefix(stem(found))
        return LayoutError(f"no {standard} and no version folder", f"rename {found} to {standard}")
    if listing.folders:
        remedy = (
            f"version folders are called by a number, such as 1/{MODEL_ONNX}; found {listing.folders[0]}/"
        )
        return LayoutError("no model", remedy)
    return LayoutError("no model", f"put {MODEL_ONNX} here, or 1/{MODEL_ONNX}")
