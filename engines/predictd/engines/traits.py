"""What is known of each built-in engine without importing its runtime.

The launcher decides from this table what a worker's environment says, the repository which files are models.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Threading(enum.StrEnum):
    """Who makes the threads of a run, and so what they obey."""

    OPTIONS = "options"
    """The runtime's own pool, which takes its size from the options at load and no environment variable."""

    OPENMP = "openmp"
    """An OpenMP runtime, which takes everything from the environment at its first use."""

    UNKNOWN = "unknown"
    """An engine of the user's own: whatever it uses finds its variables set."""


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """One engine.

    Attributes:
        name: As model.toml and metadata call it.
        loader: "package.module:function".
        suffixes: Of the files that it serves when nobody says which engine shall.
        threading: Who makes its threads.
        asked_suffixes: Of the files that it serves, too, when somebody says that it shall.
        extra: Of the distribution `predictd`, which brings the runtime; empty for the one that is always there.
        device: Where its models run when nobody says where.
        builds: Suffixes of the files that it has to build something of before it serves them, which may take minutes.
    """

    name: str
    loader: str
    suffixes: tuple[str, ...]
    threading: Threading
    asked_suffixes: tuple[str, ...] = ()
    extra: str = ""
    device: str = "cpu"
    builds: tuple[str, ...] = ()

    @property
    def all_suffixes(self) -> tuple[str, ...]:
        """Of all files that it serves, those of its own first."""
        return self.suffixes + self.asked_suffixes


BUILT_IN: Mapping[str, EngineTraits] = {
    traits.name: traits
    for traits in (
        EngineTraits("onnxruntime", "predictd.engines.onnxruntime:load", (".onnx",), Threading.OPTIONS),
        EngineTraits(
            "openvino",
            "predictd.engines.openvino:load",
            (".xml",),
            Threading.OPTIONS,
            asked_suffixes=(".onnx",),
            extra="openvino",
        ),
        EngineTraits(
            "torch",
            "predictd.engines.torch.engine:load",
            (".pt", ".pt2"),
            Threading.OPENMP,
            extra="torch",
        ),
        EngineTraits(
            "tensorrt",
            "predictd.engines.tensorrt:load",
            (".plan", ".engine"),
            Threading.OPTIONS,
            asked_suffixes=(".onnx",),
            extra="tensorrt",
            device="0",
            builds=(".onnx",),
        ),
    )
}

COMPANIONS: Mapping[str, str] = {".xml": ".bin"}
"""Suffixes of models that are two files of one name, and the suffix of the second, with the weights."""


def engine_traits(name: str) -> EngineTraits:
    """What is known of an engine; of one that is not built in, little."""
    return BUILT_IN.get(name) or EngineTraits(name, name, (), Threading.UNKNOWN)


def engine_for_suffix(suffix: str, preferred: str | None = None) -> str | None:
    """The built-in engine that serves files with this suffix, such as ".onnx"; None when there is none.

    Args:
        suffix: Of the file.
        preferred: The engine to take if it serves them, even where another one is the usual.
    """
    if preferred is not None and suffix.lower() in engine_traits(preferred).all_suffixes:
        return preferred
    return next((name for name, traits in BUILT_IN.items() if suffix.lower() in traits.suffixes), None)


def model_suffixes(engine: str | None = None) -> tuple[str, ...]:
    """Of the files that a built-in engine serves, those that are preferred first; without a name, of all engines."""
    if engine is not None and engine in BUILT_IN:
        return BUILT_IN[engine].all_suffixes
    return tuple(dict.fromkeys(suffix for traits in BUILT_IN.values() for suffix in traits.suffixes))
