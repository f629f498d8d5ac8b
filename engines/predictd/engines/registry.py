"""Engines by name. A runtime is imported when one of its models is first loaded, never before."""

from __future__ import annotations

import importlib
from typing import cast

from predictd.engines.api import LoadEngine, ModelLoadError
from predictd.engines.traits import BUILT_IN, engine_traits


def resolve(name: str) -> LoadEngine:
    """The loader of an engine.

    Args:
        name: A built-in engine, or "package.module:function" of any other.

    Raises:
        ModelLoadError: There is no such engine, or it cannot be imported.
    """
    module_name, _, function_name = engine_traits(name).loader.partition(":")
    if not module_name or not function_name:
        known = ", ".join(BUILT_IN)
        raise ModelLoadError(f"unknown engine {name!r}; known: {known}, or write package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        extra = engine_traits(name).extra
        remedy = f" (pip install 'predictd[{extra}]')" if extra else ""
        raise ModelLoadError(f"engine {name!r} cannot be imported: {error}{remedy}") from error
    load = getattr(module, function_name, None)
    if not callable(load):
        raise ModelLoadError(f"engine {name!r}: {module_name} has no function {function_name!r}")
    return cast("LoadEngine", load)
