"""Magika's own steps around its model: bytes of a file to features, scores to a label.

Magika (a file-type detector) carries an ONNX model and, beside it, a configuration that says how to feed and
read it. Its Python class would load the model with ONNX Runtime in this process, but here the daemon runs it.
So the steps stand here once more, after that configuration:

* The features are the first bytes of the file without leading whitespace, then the last ones without trailing
  whitespace, each as numbers, padded on the outer side with a token that no byte has.
* Files too short to tell, and those of whitespace alone, are text or unknown without asking the model.
* A label whose score is below its threshold becomes plain text or unknown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from predictd.server.cli.magika_package import MagikaError, model_file, package

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

INPUT = "bytes"
OUTPUT = "target_label"

_EMPTY = "empty"
_TEXT = "txt"
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a file is.

    Attributes:
        label: Magika's name for the kind.
        score: How sure the model is, 0 to 1; 1 where it was not asked.
        guess: The model's own label; differs from `label` when the score was too low for it.
    """

    label: str
    score: float
    guess: str


@dataclass(frozen=True, slots=True)
class Detector:
    """Magika's configuration.

    Attributes:
        beg_size: Features from the beginning.
        end_size: Features from the end.
        block_size: Bytes read at each end.
        padding: The token that stands for no byte.
        min_size: Shorter files are not shown to the model.
        labels: The model's outputs, in order.
        thresholds: Least score, for the labels that have one of their own.
        default_threshold: Least score of the others.
        overwrites: Labels that are given another name.
        textual: The labels that are text.
    """

    beg_size: int
    end_size: int
    block_size: int
    padding: int
    min_size: int
    labels: Sequence[str]
    thresholds: Mapping[str, float]
    default_threshold: float
    overwrites: Mapping[str, str]
    textual: frozenset[str]

    def features(self, stream: BinaryIO) -> npt.NDArray[np.int32] | Verdict:
        """Return the model's input, of shape [1, n], or the verdict where the model is not needed."""
        size = stream.seek(0, 2)
        if size == 0:
            return Verdict(_EMPTY, 1.0, _EMPTY)
        count = min(size, self.block_size)
        stream.seek(0)
        head = stream.read(count)
        if size < self.min_size:
            return _few(head)
        stream.seek(size - count)
        tail = stream.read(count).rstrip()
        tail = tail[max(len(tail) - self.end_size, 0) :]
        start = head.lstrip()[: self.beg_size]
        if len(start) < self.min_size:
            return _few(head)
        tokens = np.full((1, self.beg_size + self.end_size), self.padding, dtype=np.int32)
        tokens[0, : len(start)] = np.frombuffer(start, dtype=np.uint8)
        tokens[0, tokens.size - len(tail) :] = np.frombuffer(tail, dtype=np.uint8)
        return tokens

    def verdict(self, scores: npt.NDArray[Any]) -> Verdict:
        """Return the label that the model's scores, one for each label, stand for."""
        best = int(np.argmax(scores))
        guess, score = self.labels[best], float(scores[best])
        label = self.overwrites.get(guess, guess)
        if score < self.thresholds.get(guess, self.default_threshold):
            label = _TEXT if label in self.textual else _UNKNOWN
        return Verdict(label, score, guess)


def installed() -> Detector:
    """Return the detector of the installed Magika.

    Raises:
        MagikaError: There is none, or its model is fed in another way than this module knows.
    """
    folder, model = package(), model_file()
    try:
        config = json.loads(model.with_name("config.min.json").read_text(encoding="utf-8"))
        kinds = json.loads((folder / "config/content_types_kb.min.json").read_text(encoding="utf-8"))
        if config["mid_size"] or config["use_inputs_at_offsets"]:
            raise ValueError("features from the middle of a file")
        return Detector(
            beg_size=config["beg_size"],
            end_size=config["end_size"],
            block_size=config["block_size"],
            padding=config["padding_token"],
            min_size=config["min_file_size_for_dl"],
            labels=config["target_labels_space"],
            thresholds=config["thresholds"],
            default_threshold=config["medium_confidence_threshold"],
            overwrites=config["overwrite_map"],
            textual=frozenset(name for name, kind in kinds.items() if kind["is_text"]),
        )
    except (OSError, LookupError, ValueError) as error:
        raise MagikaError(f"{folder} is not a Magika that this predictd knows: {error!r}") from error


def _few(content: bytes) -> Verdict:
    try:
        content.decode()
    except UnicodeDecodeError:
        return Verdict(_UNKNOWN, 1.0, _UNKNOWN)
    return Verdict(_TEXT, 1.0, _TEXT)
