"""Names of the classes that outputs score, from the files that the workers read when they loaded the model.

They are read here again because lists of names are larger than what the control channel carries in a message.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from predictd.server.config.labels import LabelsError, read_labels
from predictd.server.config.lane import WireTensor

Names: TypeAlias = tuple[str, ...]

_log = logging.getLogger(__name__)


def names_by_digest(outputs: Iterable[WireTensor], known: Mapping[str, Names]) -> dict[str, Names]:
    """The names that outputs need; what is known already is not read again.

    A file that is no longer what the worker read has other names than the model: then there are none.
    """
    names: dict[str, Names] = {}
    for output in outputs:
        digest = output.labels_digest
        if digest and digest not in names:
            names[digest] = known[digest] if digest in known else _read(output, digest)
    return names


def _read(output: WireTensor, digest: str) -> Names:
    try:
        labels = read_labels(Path(output.labels_file))
    except (OSError, LabelsError) as error:
        _log.warning("output '%s' has no labels now: %s: %s", output.name, output.labels_file, error)
        return ()
    if labels.digest != digest:
        _log.warning(
            "output '%s' has no labels now: %s has changed since the model was loaded",
            output.name,
            output.labels_file,
        )
        return ()
    return labels.names
