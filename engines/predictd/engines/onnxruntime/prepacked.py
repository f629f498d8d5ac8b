"""Weights that the workers of a model share: one file in the cache, mapped by all.

Theory of operation. ONNX Runtime copies the weights of a model into memory of its own, in the order in which its
kernels read them ("prepacked"), once in each process. It can also write the optimised graph with the prepacked
weights beside it, and a session of that file maps them read-only. So the first of several workers loads the model
as always, writes that file into the cache, forgets what it loaded, and maps the file as all others do; the kernel
keeps one copy of its pages. What is computed is the same, bit for bit.

The file fits the CPU, the build of ONNX Runtime and the optimisation level that it was made with, so they are all
in its key, beside the content of the model.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from typing import TYPE_CHECKING, Any

import onnxruntime

from predictd.engines.api import EngineOptions, LoadCancelledError, ModelLoadError
from predictd.engines.cache import WAIT_SECONDS, CacheFolder, NotMadeError
from predictd.engines.hardware import cpu_fingerprint
from predictd.engines.model_files import ModelFiles, model_files
from predictd.engines.onnxruntime.session import create_session, session_options, shares_weights

if TYPE_CHECKING:
    from pathlib import Path

KIND = "onnxruntime"
# Below this a copy is smaller than what a worker's interpreter and libraries take anyway.
SHARED_BYTES_MIN = 16 * 2**20
# Of one tensor: a smaller one would waste its mapping and most of its page.
_EXTERNAL_BYTES_MIN = 16 * 2**10
# Weights as they were, and prepacked.
_COPIES = 2
# Of a slow disk. To wait for the maker of a large copy is better than to need the memory of another one.
_SLOW_BYTES_PER_SECOND = 50e6
_GRAPH = "model.onnx"
_WEIGHTS = "weights.bin"
# Part of every key: another number whenever this module writes something else.
_FORMAT = 1

_log = logging.getLogger(__name__)


def open_shared(path: Path, options: EngineOptions) -> Any | None:
    """A session whose weights are shared with the other workers of the model.

    Returns:
        None where sharing is of no use, not wanted or not possible; the model is to be loaded without.

    Raises:
        ModelLoadError: The options are not usable.
    """
    settings = session_options(options)
    if options.cache is None or options.instances == 1 or not shares_weights(options):
        return None
    try:
        files = model_files(path)
        if files.size_bytes < SHARED_BYTES_MIN:
            return None
        key = _key(files, settings)
    except OSError:
        # Whatever is wrong with the file, loading it says it better.
        return None
    return _Shared(path, options, options.cache, files, key).open()


def write_prepacked(
    path: Path, graph: Path, weights: str, options: EngineOptions, *, external_bytes_min: int
) -> None:
    """Load a model, and write its optimised graph with the prepacked weights beside it.

    Args:
        path: The model.
        graph: The file to write.
        weights: The name of the file beside it, which is not written where there are no weights for it.
        options: With which the model is loaded.
        external_bytes_min: Smaller weights stay in the graph.

    Raises:
        ModelLoadError: The model cannot be loaded.
    """
    settings = session_options(options)
    settings.optimized_model_filepath = str(graph)
    for name, value in (
        ("session.optimized_model_external_initializers_file_name", weights),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(external_bytes_min)),
        ("session.save_external_prepacked_constant_initializers", "1"),
    ):
        settings.add_session_config_entry(name, value)
    create_session(path, settings, options.cancel)


class _Shared:
    """One model and its entry in the cache."""

    def __init__(
        self, path: Path, options: EngineOptions, cache: CacheFolder, files: ModelFiles, key: str
    ) -> None:
        self._path = path
        self._options = options
        self._cache = cache
        self._files = files
        self._key = key

    def open(self) -> Any | None:
        """Map the entry, made if need be; one that cannot be loaded is made once more."""
        wait_seconds = WAIT_SECONDS + self._files.size_bytes / _SLOW_BYTES_PER_SECOND
        for _ in range(2):
            entry = self._cache.make(KIND, self._key, self._build, wait_seconds=wait_seconds)
            if entry is None:
                return None
            try:
                return create_session(entry / _GRAPH, self._as_it_is(), self._options.cancel)
            except LoadCancelledError:
                raise
            except ModelLoadError as error:
                self._cache.discard(KIND, self._key, str(error))
        return None

    def _as_it_is(self) -> Any:
        settings = session_options(self._options)
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return settings

    def _build(self, folder: Path) -> None:
        self._check_room(folder)
        try:
            write_prepacked(
                self._path,
                folder / _GRAPH,
                _WEIGHTS,
                self._options,
                external_bytes_min=_EXTERNAL_BYTES_MIN,
            )
        except LoadCancelledError:
            raise
        except ModelLoadError as error:
            raise NotMadeError(f"{self._path}: {error}") from error
        if not self._files.unchanged():
            raise NotMadeError(f"{self._path} changed while it was loaded")
        if not (folder / _WEIGHTS).is_file():
            raise NotMadeError(f"ONNX Runtime wrote no weights of {self._path}")

    def _check_room(self, folder: Path) -> None:
        """Refuse before the work what would not fit after it."""
        needed_bytes = _COPIES * self._files.size_bytes
        if needed_bytes > self._cache.limit_bytes:
            raise NotMadeError(
                f"its {needed_bytes} bytes are more than the cache's limit, {self._cache.limit_bytes}"
            )
        free_bytes = shutil.disk_usage(folder).free
        if needed_bytes > free_bytes:
            raise NotMadeError(f"it needs {needed_bytes} bytes, and {free_bytes} are free")


def _key(files: ModelFiles, settings: Any) -> str:
    facts = (
        _FORMAT,
        files.content(),
        onnxruntime.get_build_info(),
        onnxruntime.__version__,
        cpu_fingerprint(),
        settings.graph_optimization_level.name,
        _EXTERNAL_BYTES_MIN,
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()
