"""Where the installed Magika keeps its model, found without importing it, which would load ONNX Runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# What the demo calls the model.
MODEL = "magika"


class MagikaError(Exception):
    """Magika is not installed, or is one that this predictd does not know. The message is one line."""


def package() -> Path:
    """Return Magika's folder. Raises MagikaError if it is not installed."""
    found = importlib.util.find_spec("magika")
    if found is None or not found.submodule_search_locations:
        raise MagikaError("the demo needs Magika's model: pip install 'predictd[demo]'")
    return Path(found.submodule_search_locations[0])


def model_file() -> Path:
    """Return the ONNX model. Raises MagikaError if there is none."""
    folder = package()
    # A release carries one model; were there more, the newest sorts last.
    models = sorted(folder.glob("models/*/model.onnx"))
    if not models:
        raise MagikaError(f"{folder} carries no models/*/model.onnx")
    return models[-1]
