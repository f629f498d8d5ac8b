"""Tables of ranges in the cache folder, by what they depend on: model, inputs, method, ONNX Runtime."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from predictd.engines.model_files import model_files
from predictd.server.optimize.inputs import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.engines.cache import CacheFolder
    from predictd.server.optimize.calibration import Calibration

KIND = "calibration"
TABLE = "ranges.json"
# Part of every key: another number whenever calibration finds something else.
_FORMAT = 1


def table_for(
    cache: CacheFolder | None, key: str, make: Callable[[Path], None], work: Path
) -> tuple[Path, bool]:
    """The table of a key, made if need be; and whether it was there already.

    Args:
        cache: None keeps nothing.
        key: Of `table_key`.
        make: Writes the table into the file that it is given.
        work: A folder for a table that is not kept.
    """
    found = None if cache is None else cache.entry(KIND, key)
    if found is not None:
        return found / TABLE, True
    table = work / TABLE
    # Here, not in the cache, where a failure would be a warning and calibration would begin again.
    make(table)

    def keep(folder: Path) -> None:
        shutil.copyfile(table, folder / TABLE)

    if cache is not None:
        cache.make(KIND, key, keep)
    return table, False


def table_key(model: Path, calibration: Calibration, operators: Sequence[str], rows: int) -> str:
    """What the ranges of a model depend on."""
    facts = (
        _FORMAT,
        model_files(model).content(),
        digest(calibration.samples),
        calibration.method.value,
        sorted(operators),
        rows,
        onnxruntime.__version__,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()
