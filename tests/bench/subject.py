"""A model that is measured, and what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tests.fixtures import models, transformer

if TYPE_CHECKING:
    from pathlib import Path

    from predictd.engines.api import Array

Row = Mapping[str, "Array"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model.

    Attributes:
        name: As it is served.
        path: Its file.
        row: The inputs of one request, different for each seed: one row each.
        outputs: Name and shape of each, where the file does not tell.
    """

    name: str
    path: Path
    row: Callable[[int], Row]
    outputs: tuple[tuple[str, tuple[int, ...]], ...] = ()


def resnet50(folder: Path) -> Subject:
    """ResNet-50-sized: 600 KB in, a convolutional net."""
    name = "gpu_0/data_0"
    return Subject("resnet50", models.resnet50(folder / "resnet50.onnx"), _normal(name, 3, 224, 224))


def minilm(folder: Path) -> Subject:
    """MiniLM-sized: 8 to 128 tokens in, a transformer."""
    return _encoder("minilm", transformer.RAGGED_MINILM, folder)


def minilm_fixed(folder: Path) -> Subject:
    """The same for 128 tokens."""
    return _encoder("minilm-fixed", transformer.MINILM, folder)


def _encoder(name: str, size: transformer.Size, folder: Path) -> Subject:
    path = transformer.encoder(folder / f"{name}.onnx", size)
    return Subject(name, path, lambda seed: transformer.sentence(size, seed))


def identity(folder: Path) -> Subject:
    """10 MB in, the same out: nothing but transport."""
    width = 10 * 2**20 // 4
    path = models.identity(folder / "identity.onnx", shape=("batch", width))
    return Subject("identity", path, _normal("x", width))


def echoing(folder: Path, size_bytes: int) -> Subject:
    """So many bytes in, the same out: nothing but transport."""
    width = size_bytes // 4
    path = models.identity(folder / "echoing.onnx", shape=("batch", width))
    return Subject("echoing", path, _normal("x", width))


def nonzero(folder: Path) -> Subject:
    """As many rows out as there are numbers other than 0: nobody knows the size of an answer before its run."""

    def row(seed: int) -> Row:
        random = np.random.default_rng(seed)
        return {"x": (random.random((256, 4)) < (seed % 16 + 1) / 17).astype(np.float32)}

    return Subject("nonzero", models.nonzero(folder / "nonzero.onnx"), row)


def mlp(folder: Path) -> Subject:
    """A tiny MLP: what it costs is all ours."""
    return Subject("mlp", models.mlp(folder / "mlp.onnx"), _normal("x", 64))


def dense(folder: Path) -> Subject:
    """Many short matrix products: threads that wait for each other all the time."""
    return Subject("dense", models.mlp(folder / "dense.onnx", width=1024, layers=8), _normal("x", 1024))


def torch_convolutions(folder: Path) -> Subject:
    """A small convolutional net as TorchScript: an OpenMP runtime inside."""
    from tests.fixtures import torch_models

    path = torch_models.script(folder / "convolutions.pt", torch_models.convolutions(64, 8))
    return Subject("convolutions", path, _normal("input", 3, 32, 32), (("output", (-1, 10)),))


def _normal(name: str, *shape: int) -> Callable[[int], Row]:
    return lambda seed: {name: np.random.default_rng(seed).standard_normal((1, *shape), np.float32)}
